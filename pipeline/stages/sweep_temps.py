"""The stage `sweep-temps`: the ensemble at every pair of temperatures, and an honest choice.

Legend: N rows, K new heads, F folds, To and Tn temperatures of the old and the new heads.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache import Store
from pipeline.balance_notes import balance_notes
from pipeline.bootstrap import Bootstrap, cells_within_noise, paired_bootstrap
from pipeline.calibration import Calibration, fit_temperatures, measure_calibration
from pipeline.config import SweepConfig
from pipeline.cores import available_cores
from pipeline.ensemble import (
    LogitBlock,
    averaged_views,
    heads_of,
    logit_blocks,
    mixture_predictions,
    score_split,
    scored_split,
)
from pipeline.errors import EvaluationError
from pipeline.heads import Head, require_same_identity
from pipeline.metrics import Bools, Floats, Ints, Scores, count_per_class, score_hits
from pipeline.plane import HitPlane, collect_hits, plane_members
from pipeline.plane.arithmetic import chunks_on
from pipeline.plane.confidence import ConfidencePlanes, measure_confidence
from pipeline.plane.partitions import MakeChunk
from pipeline.plane.scores import measure
from pipeline.progress import OnProgress, Snapshot
from pipeline.selection import (
    NoiseRegion,
    best_cell,
    finer_grid,
    noise_region,
    stratified_folds,
)
from pipeline.sweep import COLUMNS, CrossFit, Sweep, choose
from pipeline.sweep_files import save_sweep
from pipeline.weights import check_weights

__all__ = ["COLUMNS", "Sweep", "choose", "save_sweep", "sweep_temps"]

MIB = 2**20
THREAD_MIB = 128
"""Memory that a thread may need at its worst, see `duels.WORK_BYTES` and `hits.CHUNK`."""

NOISE_REPLICATES = 400
NOISE_DRAWS = 2**23
"""Replicates at most for the region within the noise, and their product with the cells: each
redraws the plane."""


def sweep_temps(
    store: Store,
    head: Head | Sequence[Head],
    config: SweepConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Sweep:
    """Measure the ensemble, eq. (11)-(13), at every pair of temperatures (Table 7), exactly.

    Every cell has the predictions of `ensemble_predictions`, to the last tie. On the split `val`
    temperatures are chosen: the cell of the best harmonic mean (ties: the higher lowest recall,
    then the nearest to (1, 1) in log temperature), or the temperatures of best likelihood of each
    head. Another split chooses only with `cross_fit`, and is then scored by folds that had no part
    in their own choice; else the grid only shows what happens, and (1, 1) is kept.

    Args:
        store: features (N, D) and old logits (N, C).
        head: the re-trained head, or several, which share one axis of the plane.
        config: the grids, in any order, the split and how to choose.
        on_progress: called with a snapshot, in rows, after each block.

    Raises:
        EvaluationError: if the split is missing, has no usable row or holds NaN, the weights are
            not those of the heads, or test views are asked for that are not there.
        HeadError: if a head belongs to another store, or nothing is said of test views and the
            heads were balanced for different ones.
    """
    source = _source(store, heads_of(head), config or SweepConfig())
    config = source.config
    t_old, t_new = np.unique(config.t_old), np.unique(config.t_new)
    fitted = _fitted_temperatures(source) if source.may_choose else None
    factors = (1.0,) * len(source.heads)
    if fitted is not None:
        t_old, t_new = np.union1d(t_old, fitted[0]), np.union1d(t_new, fitted[1])
        factors = tuple((fitted[1:] / fitted[1]).tolist())
    sweep, hits = _measure(source, t_old, t_new, factors, on_progress)
    if fitted is not None:
        chosen = (float(fitted[0]), float(fitted[1]))
        sweep = dataclasses.replace(sweep, chosen=chosen, chosen_on=source.split, chosen_by="nll")
    elif source.may_choose:
        for _ in range(config.refine):
            i, j = best_cell(t_old, t_new, sweep.harmonic_mean, sweep.lowest_recall)
            t_old, t_new = finer_grid(t_old, i), finer_grid(t_new, j)
            sweep, hits = _measure(source, t_old, t_new, factors, on_progress)
        sweep = choose(sweep)
    return _judged(source, sweep, hits)


@dataclass(frozen=True)
class _Source:
    """What a sweep reads and how."""

    store: Store
    """Features (N, D) and old logits (N, C)."""

    heads: list[Head]
    """The K new heads."""

    config: SweepConfig
    """The grids and how to choose."""

    split: str
    """Split that the grid is measured on."""

    weights: tuple[float, ...]
    """(1 + K,) weights of the old and the new heads in the ensemble."""

    make_chunk: MakeChunk
    """The arithmetic."""

    @property
    def may_choose(self) -> bool:
        """Whether temperatures may be chosen on the split."""
        return self.split == "val" or self.config.cross_fit > 0

    @property
    def names(self) -> list[str]:
        """Of the old and every new head."""
        several = len(self.heads) > 1
        return ["old", *(f"new {k + 1}" if several else "new" for k in range(len(self.heads)))]

    @property
    def threads(self) -> int:
        """As many as were asked for, where the memory allows them."""
        allowed = max(1, self.config.memory // 2 // THREAD_MIB)
        return min(self.config.threads or available_cores(), allowed)

    def blocks(self, split: str | None = None) -> Iterator[LogitBlock]:
        """Logits of the old and the new heads."""
        return logit_blocks(
            self.store, split or self.split, [None, *self.heads], self.config.test_views
        )

    def views(self, split: str) -> int:
        """Test views of each image that are averaged."""
        return averaged_views(self.store, split, self.config.test_views, self.heads)


def _source(store: Store, heads: list[Head], config: SweepConfig) -> _Source:
    """Check everything that can be checked before the work."""
    if not heads:
        raise EvaluationError("A sweep needs a re-trained head beside the old one.")
    for head in heads:
        require_same_identity(head, store)
    weights = check_weights(config.weights, 1 + len(heads))
    own = "val" if "val" in store and not config.cross_fit else "test"
    split = own if config.split == "auto" else config.split
    scored_split(store, split)
    averaged_views(store, split, config.test_views, heads)
    return _Source(store, heads, config, split, weights, chunks_on(config.device))


def _fitted_temperatures(source: _Source) -> Floats | None:
    """Temperatures (1 + K,) of best likelihood, where they are to choose, to five digits."""
    if source.config.choose != "nll":
        return None
    (found,) = fit_temperatures(source.blocks, 1 + len(source.heads))
    return np.array([float(f"{t:.5g}") for t in found])


def _measure(
    source: _Source,
    t_old: Floats,
    t_new: Floats,
    factors: tuple[float, ...],
    on_progress: OnProgress | None,
) -> tuple[Sweep, HitPlane]:
    """The plane of one grid, and what every cell gets right."""
    store, config = source.store, source.config
    split = store[source.split]
    members = plane_members(
        t_old, t_new, len(source.heads), weights=source.weights, factors=factors
    )
    hits = collect_hits(
        source.blocks(), members, len(store.class_names), make_chunk=source.make_chunk,
        threads=source.threads, bit_bytes=config.memory * MIB // 2,
        on_rows=on_progress and _as_snapshots(on_progress, int(split.usable.sum())),
    )  # fmt: skip
    sweep = Sweep(
        split=source.split, t_old=t_old, t_new=t_new, **measure(hits, store.class_counts),
        class_names=tuple(store.class_names), n_samples=len(hits.labels),
        n_failed=split.n_samples - len(hits.labels),
        test_views=source.views(source.split), factors=factors, weights=source.weights,
        provenance={
            "store": store.identity.to_json(),
            "head": dict(source.heads[0].config),
            "heads": [dict(head.config) for head in source.heads],
        },
    )  # fmt: skip
    return sweep, hits


def _judged(source: _Source, sweep: Sweep, hits: HitPlane) -> Sweep:
    """The sweep with its scores on `test`, its uncertainty and its calibration."""
    config = source.config
    cross_fit, right = _cross_fitted(source, sweep, hits) if config.cross_fit else (None, None)
    calibrates = config.calibration or config.choose == "nll"
    planes = _confidence(source, sweep, hits) if config.calibration else None
    return dataclasses.replace(
        sweep,
        cross_fit=cross_fit,
        test_scores=_test_scores(source, sweep, cross_fit),
        warnings=(*sweep.warnings, *_doubts(source, sweep)),
        bootstrap=_bootstrap(source, sweep, right) if config.replicates else None,
        noise=_noise(config, sweep, hits) if config.replicates else None,
        calibration=_calibration(source, sweep) if calibrates else None,
        nll=None if planes is None else planes.nll,
        ece=None if planes is None else planes.ece,
    )


def _doubts(source: _Source, sweep: Sweep) -> list[str]:
    """What a reader should know of the heads and of the choice."""
    named = {f"New head {k}": head for k, head in enumerate(source.heads, start=1)}
    if len(source.heads) == 1:
        named = {"The new head": source.heads[0]}
    splits = (source.split, *["test"] * _has_test(source.store))
    averaged = {split: source.views(split) for split in splits}
    doubts = balance_notes(source.store, named, averaged, folds=source.config.cross_fit > 0)
    if sweep.chosen_on is None and source.config.choose == "nll":
        doubts.append(
            f"Nothing was calibrated: {sweep.split} is no split to choose on. Extract with --val, "
            "or choose by folds with --cross-fit 5."
        )
    return doubts


def _cross_fitted(source: _Source, sweep: Sweep, hits: HitPlane) -> tuple[CrossFit, Bools]:
    """Choose on all folds but one, score that one; and which rows (N,) are right so."""
    store, config = source.store, source.config
    folds = stratified_folds(hits.labels, config.cross_fit, config.seed)
    if config.choose == "nll":
        chosen, right = _folds_by_likelihood(source, folds)
    else:
        chosen, right = _folds_by_recall(source, sweep, hits, folds)
    n_classes = len(store.class_names)
    scores = score_hits(
        count_per_class(hits.labels[right], n_classes), count_per_class(hits.labels, n_classes),
        store.class_counts, store.class_names, source.split, sweep.n_failed,
    )  # fmt: skip
    scores = dataclasses.replace(
        scores, predictor="ensemble", test_views=source.views(source.split)
    )
    return CrossFit(tuple(tuple(fold) for fold in chosen.tolist()), scores), right


def _folds_by_likelihood(source: _Source, folds: Ints) -> tuple[Floats, Bools]:
    """Temperatures (F, 1 + K) that are likeliest on the other folds; the rows (N,) right so."""
    n_heads = 1 + len(source.heads)
    chosen = fit_temperatures(source.blocks, n_heads, folds, source.config.cross_fit)
    return chosen, _right_by_fold(source, folds, chosen)


def _folds_by_recall(
    source: _Source, sweep: Sweep, hits: HitPlane, folds: Ints
) -> tuple[Floats, Bools]:
    """Temperatures (F, 1 + K) of the other folds' best cell; the rows (N,) right so."""
    chosen = np.ones((source.config.cross_fit, 1 + len(source.heads)))
    right = np.zeros(len(folds), bool)
    for fold in range(source.config.cross_fit):
        own = folds == fold
        planes = measure(hits, source.store.class_counts, ~own)
        i, j = best_cell(sweep.t_old, sweep.t_new, planes["harmonic_mean"], planes["lowest_recall"])
        right[own] = hits.rows(i, j)[own]
        chosen[fold] = sweep.t_old[i], *(sweep.t_new[j] * factor for factor in sweep.factors)
    return chosen, right


def _right_by_fold(source: _Source, folds: Ints, temperatures: Floats) -> Bools:
    """Which rows (N,) are right at their fold's temperatures (F, 1 + K)."""
    right, done = np.zeros(len(folds), bool), 0
    for block in source.blocks():
        rows = slice(done, done + len(block.labels))
        own = list(temperatures[folds[rows]].T)
        right[rows] = mixture_predictions(block.logits, own, source.weights) == block.labels
        done = rows.stop
    return right


def _test_scores(source: _Source, sweep: Sweep, cross_fit: CrossFit | None) -> Scores | None:
    """The ensemble on the split `test`; None where there is none."""
    if cross_fit is not None and source.split == "test":
        return cross_fit.scores
    if not _has_test(source.store):
        return None
    return score_split(
        source.store, "test", source.heads, sweep.temperatures, source.weights,
        source.config.test_views,
    )  # fmt: skip


def _judging_split(source: _Source, sweep: Sweep) -> str:
    """Where the choice is judged: on `test` if another split chose, else where it was measured."""
    judged_on_test = sweep.chosen_on == "val" and _has_test(source.store)
    return "test" if judged_on_test else source.split


def _has_test(store: Store) -> bool:
    """Whether there is a test split that can be scored."""
    return "test" in store and bool(store["test"].usable.any())


def _bootstrap(source: _Source, sweep: Sweep, cross_fitted: Bools | None) -> Bootstrap:
    """Intervals of the ensemble, and of its lead over (1, 1) and over each head alone."""
    split = _judging_split(source, sweep)
    compared: dict[str, Sequence[float] | int] = {"ensemble": sweep.temperatures}
    ones = (1.0,) * len(sweep.temperatures)
    if sweep.temperatures != ones or cross_fitted is not None:
        compared["(1, 1)"] = ones
    compared |= {name: k for k, name in enumerate(source.names)}
    right, labels = _right_rows(source, split, compared)
    if cross_fitted is not None and split == source.split:
        right["ensemble"] = cross_fitted
    return paired_bootstrap(
        right, labels, len(source.store.class_names), split,
        replicates=source.config.replicates, seed=source.config.seed,
    )  # fmt: skip


def _right_rows(
    source: _Source, split: str, compared: Mapping[str, Sequence[float] | int]
) -> tuple[dict[str, Bools], Ints]:
    """Rows (N,) that each classifier gets right: an ensemble's temperatures, or a head's place."""
    right: dict[str, list[Bools]] = {name: [] for name in compared}
    labels = []
    for block in source.blocks(split):
        labels.append(block.labels)
        for name, which in compared.items():
            if isinstance(which, int):
                predictions = block.logits[which].argmax(axis=1)
            else:
                predictions = mixture_predictions(block.logits, which, source.weights)
            right[name].append(predictions == block.labels)
    return {name: np.concatenate(parts) for name, parts in right.items()}, np.concatenate(labels)


def _noise(config: SweepConfig, sweep: Sweep, hits: HitPlane) -> NoiseRegion:
    """The cells that the split's samples cannot tell from the best one."""
    best = best_cell(sweep.t_old, sweep.t_new, sweep.harmonic_mean, sweep.lowest_recall)
    allowed = min(NOISE_REPLICATES, max(100, NOISE_DRAWS // hits.n_cells))
    replicates = min(config.replicates, allowed)
    within = cells_within_noise(hits, best, replicates=replicates, seed=config.seed)
    return noise_region(sweep.t_old, sweep.t_new, best, within)


def _calibration(source: _Source, sweep: Sweep) -> Calibration:
    """Reliability before and after, where the choice is judged."""
    split = _judging_split(source, sweep)
    return measure_calibration(
        lambda: source.blocks(split), source.names, sweep.temperatures, split=split,
        fitted_on=sweep.chosen_on, weights=source.weights,
    )  # fmt: skip


def _confidence(source: _Source, sweep: Sweep, hits: HitPlane) -> ConfidencePlanes:
    """Likelihood and calibration in every cell of the sweep's plane."""
    members = plane_members(
        sweep.t_old, sweep.t_new, len(sweep.factors), weights=sweep.weights, factors=sweep.factors
    )
    return measure_confidence(
        source.blocks(), members, hits, make_chunk=source.make_chunk, threads=source.threads
    )


def _as_snapshots(on_progress: OnProgress, total: int) -> Callable[[int], None]:
    """A callback that takes rows done and passes a snapshot on."""
    begun = time.perf_counter()
    return lambda done: on_progress(Snapshot(done, total, done, time.perf_counter() - begun))
