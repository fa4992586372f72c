"""How sure a choice is: scores on `test`, intervals, the region within the noise, calibration.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.balancing.notes import balance_notes
from pipeline.bootstrap import Bootstrap, cells_within_noise, paired_bootstrap
from pipeline.calibration import Calibration, measure_calibration
from pipeline.ensemble import mixture_predictions
from pipeline.metrics import Bools, Ints, Scores
from pipeline.mixture import Mixture
from pipeline.scored import ScoredSplit
from pipeline.sweeping.measuring import Measured
from pipeline.sweeping.selection import NoiseRegion, best_cell, noise_region
from pipeline.sweeping.source import Source
from pipeline.sweeping.sweep import CrossFit, Sweep

NOISE_REPLICATES = 400
NOISE_DRAWS = 2**23
"""Replicates at most for the region within the noise, and their product with the cells: each
redraws the plane."""


def doubts(source: Source, sweep: Sweep) -> list[str]:
    """What a reader should know of the heads and of the choice."""
    told = (name.replace("new", "New head") for name in source.names[1:])
    named = dict(zip(told, source.heads, strict=True))
    if len(named) == 1:
        named = {"The new head": source.heads[0]}
    judged = [source.scored] if source.test is None else [source.scored, source.test]
    notes = balance_notes(named, judged, folds=source.config.cross_fit > 0)
    if sweep.chosen_on is None and source.config.choose == "nll":
        notes.append(
            f"Nothing was calibrated: {sweep.split} is no split to choose on. Extract with --val, "
            "or choose by folds with --cross-fit 5."
        )
    return notes


def scores_on_test(source: Source, sweep: Sweep, cross_fit: CrossFit | None) -> Scores | None:
    """The ensemble on the split `test`; None where there is none."""
    if cross_fit is not None and source.split == "test":
        return cross_fit.scores
    return None if source.test is None else source.test.scores(source.heads, sweep.mixture)


def intervals(source: Source, sweep: Sweep, cross_fitted: Bools | None) -> Bootstrap:
    """Intervals of the ensemble, and of its lead over (1, 1) and over each head alone.

    Args:
        source: what was swept.
        sweep: the plane with its choice.
        cross_fitted: (N,) rows that are right at temperatures which other rows chose.
    """
    split = _judging(source, sweep)
    ones = Mixture((1.0,) * len(source.names), source.weights)
    compared: dict[str, Mixture | int] = {"ensemble": sweep.mixture}
    if sweep.temperatures != ones.temperatures or cross_fitted is not None:
        compared["(1, 1)"] = ones
    compared |= {name: k for k, name in enumerate(source.names)}
    right, labels = _right_rows(source, split, compared)
    if cross_fitted is not None and split is source.scored:
        right["ensemble"] = cross_fitted
    return paired_bootstrap(
        right, labels, len(source.store.class_names), split.name,
        replicates=source.config.replicates, seed=source.config.seed,
    )  # fmt: skip


def within_noise(source: Source, measured: Measured) -> NoiseRegion:
    """The cells that the split's samples cannot tell from the best one."""
    sweep, hits, config = measured.sweep, measured.hits, source.config
    best = best_cell(sweep.t_old, sweep.t_new, sweep.harmonic_mean, sweep.lowest_recall)
    allowed = min(NOISE_REPLICATES, max(100, NOISE_DRAWS // hits.n_cells))
    replicates = min(config.replicates, allowed)
    within = cells_within_noise(hits, best, replicates=replicates, seed=config.seed)
    return noise_region(sweep.t_old, sweep.t_new, best, within)


def reliability(source: Source, sweep: Sweep) -> Calibration:
    """Reliability before and after, where the choice is judged."""
    split = _judging(source, sweep)
    return measure_calibration(
        lambda: source.blocks(split), source.names, sweep.temperatures, split=split.name,
        fitted_on=sweep.chosen_on, weights=source.weights,
    )  # fmt: skip


def _judging(source: Source, sweep: Sweep) -> ScoredSplit:
    """Where the choice is judged: on `test` if another split chose, else where it was measured."""
    if sweep.chosen_on == "val" and source.test is not None:
        return source.test
    return source.scored


def _right_rows(
    source: Source, split: ScoredSplit, compared: Mapping[str, Mixture | int]
) -> tuple[dict[str, Bools], Ints]:
    """Rows (N,) that each classifier gets right: a mixture of all heads, or a head's place."""
    right: dict[str, list[Bools]] = {name: [] for name in compared}
    labels = []
    for block in source.blocks(split):
        labels.append(block.labels)
        for name, which in compared.items():
            if isinstance(which, int):
                predictions = block.logits[which].argmax(axis=1)
            else:
                predictions = mixture_predictions(block.logits, which.temperatures, which.weights)
            right[name].append(predictions == block.labels)
    return {name: np.concatenate(parts) for name, parts in right.items()}, np.concatenate(labels)
