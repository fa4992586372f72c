"""The stage `sweep-temps`: the ensemble at every pair of temperatures, and an honest choice.

Legend: B rows of a block, C classes, To and Tn temperatures of the old and the new head.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Store
from pipeline.config import SweepConfig
from pipeline.ensemble import LogitBlock, logit_blocks, score_split, scored_split, softmaxes
from pipeline.errors import OutputExistsError
from pipeline.heads import Head, require_same_identity
from pipeline.metrics import (
    GROUPS,
    Floats,
    Ints,
    Scores,
    as_number,
    count_per_class,
    count_zeros,
    geometric_mean,
    group_masks,
    harmonic_mean,
    lowest_class,
    mean_recall,
    recalls_of_hits,
)
from pipeline.progress import Snapshot

SOFTMAX_BYTES = 2**25
"""Memory for the probabilities of both heads at all temperatures, of one block (32 MiB)."""

COLUMNS = ("t_old", "t_new", "accuracy", "geometric_mean", "harmonic_mean", "lowest_recall",
           "lowest_class", "substituted_zeros", *GROUPS, "split")  # fmt: skip
"""Columns of `sweep.csv`; the first six are the contract."""


@dataclass(frozen=True)
class Sweep:
    """Metrics of the ensemble on a grid of temperatures, in percent; every plane is (To, Tn)."""

    split: str
    """Split on which the grid was measured."""

    t_old: Floats
    """(To,) ascending temperatures of the old head."""

    t_new: Floats
    """(Tn,) ascending temperatures of the new head."""

    accuracy: Floats
    """Share of correct samples, eq. (4)."""

    geometric_mean: Floats
    """Eq. (6), zeros as 0.1 %."""

    harmonic_mean: Floats
    """Eq. (5), zeros as 0.1 %."""

    lowest_recall: Floats
    """The lowest recall of all classes."""

    lowest_class: Ints
    """Index of the class of the lowest recall, the first one on ties."""

    substituted_zeros: Ints
    """Classes of zero recall."""

    groups: Mapping[str, Floats]
    """Mean recall of the many, medium and few classes; NaN for an absent group."""

    class_names: tuple[str, ...]
    """Names of the classes (C,)."""

    n_samples: int
    """Samples that were scored in each cell."""

    n_failed: int
    """Samples left out because their image could not be read."""

    chosen: tuple[float, float] = (1.0, 1.0)
    """(t_old, t_new) to use: the best cell on `val`, or (1, 1) where nothing was chosen."""

    chosen_on: str | None = None
    """Split that chose the temperatures; None where (1, 1) was kept."""

    warnings: tuple[str, ...] = ()
    """What to know before the choice is trusted, a sentence each."""

    test_scores: Scores | None = None
    """The chosen temperatures on `test`, where the store has it."""

    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Identity of the store and settings of the head, as JSON values."""

    def cells(self) -> list[dict[str, Any]]:
        """One row for each cell, in the order of `COLUMNS`, t_old slowest; None for NaN."""
        planes = {name: getattr(self, name) for name in COLUMNS[2:8]} | dict(self.groups)
        rows = []
        for i, t_old in enumerate(self.t_old.tolist()):
            for j, t_new in enumerate(self.t_new.tolist()):
                values = {name: plane[i, j].item() for name, plane in planes.items()}
                values["lowest_class"] = self.class_names[values["lowest_class"]]
                values |= {name: as_number(values[name]) for name in GROUPS}
                rows.append({"t_old": t_old, "t_new": t_new, **values, "split": self.split})
        return rows

    def to_json(self) -> dict[str, Any]:
        """The sweep as plain JSON values."""
        return {
            "split": self.split,
            "chosen": {"t_old": self.chosen[0], "t_new": self.chosen[1]},
            "chosen_on": self.chosen_on,
            "warnings": list(self.warnings),
            "n_samples": self.n_samples,
            "n_failed": self.n_failed,
            "t_old": self.t_old.tolist(),
            "t_new": self.t_new.tolist(),
            "cells": self.cells(),
            "test": None if self.test_scores is None else self.test_scores.to_json(),
            "provenance": dict(self.provenance),
        }


def sweep_temps(
    store: Store,
    head: Head,
    config: SweepConfig | None = None,
    *,
    on_progress: Callable[[Snapshot], None] | None = None,
) -> Sweep:
    """Measure the ensemble, eq. (11)-(13), at every pair of temperatures (Table 7).

    On the split `val` the cell of the best harmonic mean is chosen (ties: the higher lowest
    recall, then the nearest to (1, 1) in log temperature). No other split chooses: there the grid
    only shows what happens, and (1, 1) is kept.

    Args:
        store: features (N, D) and old logits (N, C).
        head: the re-trained head, fitted on this store or one of the same identity.
        config: the grids, in any order, and the split.
        on_progress: called with a snapshot, in rows, after each block.

    Raises:
        EvaluationError: if the split is missing, has no usable row or holds NaN.
        HeadError: if the head belongs to another store.
    """
    config = config or SweepConfig()
    require_same_identity(head, store)
    name = config.split if config.split != "auto" else "val" if "val" in store else "test"
    split = scored_split(store, name)
    t_old, t_new = np.unique(config.t_old), np.unique(config.t_new)
    hits = count_grid_hits(
        logit_blocks(store, name, [None, head]), t_old, t_new, len(store.class_names),
        on_rows=on_progress and _as_snapshots(on_progress, int(split.usable.sum())),
    )  # fmt: skip
    samples = count_per_class(split.labels[split.usable], len(store.class_names))
    sweep = Sweep(
        split=name, t_old=t_old, t_new=t_new, **_planes(hits, samples, store.class_counts),
        class_names=tuple(store.class_names), n_samples=int(samples.sum()),
        n_failed=split.n_samples - int(samples.sum()),
        provenance={"store": store.identity.to_json(), "head": dict(head.config)},
    )  # fmt: skip
    if name == "val":
        sweep = choose(sweep)
    return dataclasses.replace(sweep, test_scores=_test_scores(store, head, sweep.chosen))


def count_grid_hits(
    blocks: Iterable[LogitBlock],
    t_old: Floats,
    t_new: Floats,
    n_classes: int,
    *,
    on_rows: Callable[[int], None] | None = None,
) -> Ints:
    """Correct samples (To, Tn, C) of each class in every cell.

    A softmax is computed once for each head and temperature; a cell is then one addition and one
    argmax. The halving of eq. (11) changes no order and is left out.

    Args:
        blocks: old and new logits (B, C) with labels.
        t_old: (To,) temperatures of the old head.
        t_new: (Tn,) temperatures of the new head.
        n_classes: C.
        on_rows: called with the number of rows done, after each block.
    """
    hits = np.zeros((len(t_old), len(t_new), n_classes), np.int64)
    rows = max(1, SOFTMAX_BYTES // (8 * n_classes * (len(t_old) + len(t_new))))
    done = 0
    for block in blocks:
        for start in range(0, len(block.labels), rows):
            labels = block.labels[start : start + rows]
            old, new = (logits[start : start + rows] for logits in block.logits)
            _add_hits(hits, labels, softmaxes(old, t_old), softmaxes(new, t_new))
            done += len(labels)
            if on_rows is not None:
                on_rows(done)
    return hits


def choose(sweep: Sweep) -> Sweep:
    """The sweep with its best cell chosen, and a warning for each edge of the grid it lies on."""
    t_old, t_new = np.meshgrid(sweep.t_old, sweep.t_new, indexing="ij")
    distance = np.log(t_old) ** 2 + np.log(t_new) ** 2
    # Equal recalls in another order of classes may differ in the last bits of their mean.
    keys = (distance.ravel(), -sweep.lowest_recall.ravel(), -sweep.harmonic_mean.ravel().round(9))
    i, j = np.unravel_index(np.lexsort(keys)[0], distance.shape)
    warnings = [
        f"The best {name} = {grid[at]:g} lies on the edge of the grid ({grid[0]:g} to "
        f"{grid[-1]:g}): a better one may lie beyond, so widen it with {option}."
        for name, option, grid, at in (
            ("t_old", "--t-old", sweep.t_old, i), ("t_new", "--t-new", sweep.t_new, j),
        )
        if len(grid) > 1 and at in (0, len(grid) - 1)
    ]  # fmt: skip
    return dataclasses.replace(
        sweep, chosen=(float(sweep.t_old[i]), float(sweep.t_new[j])), chosen_on=sweep.split,
        warnings=(*sweep.warnings, *warnings),
    )  # fmt: skip


def save_sweep(sweep: Sweep, out_dir: str | Path, overwrite: bool = False) -> list[Path]:
    """Write `sweep.csv`, `sweep.json` and the heat maps `sweep-heatmaps.png` into a folder.

    Args:
        sweep: what `sweep_temps` returned.
        out_dir: made where it is missing; other files in it are left alone.
        overwrite: whether files of those names may be replaced.

    Raises:
        OutputExistsError: if one of the files exists and `overwrite` is false.
    """
    from pipeline.figures import temperature_heatmaps  # matplotlib loads for half a second

    folder = Path(out_dir)
    names = ("sweep.csv", "sweep.json", "sweep-heatmaps.png")
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file: give a folder for the sweep's results.")
    present = [name for name in names if (folder / name).exists()]
    if present and not overwrite:
        raise OutputExistsError(
            f"{folder} holds {', '.join(present)} already: give another folder or --overwrite."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Everything is made first and moved last: a failure leaves what was there untouched.
    with tempfile.TemporaryDirectory(prefix=".sweep-", dir=folder) as temporary:
        made = Path(temporary)
        (made / names[0]).write_text(_csv(sweep), encoding="utf-8", newline="")
        (made / names[1]).write_text(json.dumps(sweep.to_json(), indent=1) + "\n", encoding="utf-8")
        temperature_heatmaps(sweep, made / names[2])
        return [(made / name).replace(folder / name) for name in names]


def _add_hits(hits: Ints, labels: NDArray[np.int64], old: Floats, new: Floats) -> None:
    """Add a block's hits to (To, Tn, C), from probabilities (To, B, C) and (Tn, B, C)."""
    both = np.empty(old.shape[1:])
    for i, p_old in enumerate(old):
        for j, p_new in enumerate(new):
            np.add(p_new, p_old, out=both)
            right = labels[both.argmax(axis=1) == labels]
            hits[i, j] += count_per_class(right, hits.shape[2])


def _as_snapshots(on_progress: Callable[[Snapshot], None], total: int) -> Callable[[int], None]:
    """A callback that takes rows done and passes a snapshot on."""
    begun = time.perf_counter()
    return lambda done: on_progress(Snapshot(done, total, done, time.perf_counter() - begun))


def _planes(hits: Ints, samples: Ints, class_counts: Ints) -> dict[str, Any]:
    """Every metric of every cell (To, Tn), from hits (To, Tn, C) and samples (C,)."""
    recalls = recalls_of_hits(hits, samples)
    worst = lowest_class(recalls)
    return {
        "accuracy": 100.0 * hits.sum(axis=-1) / samples.sum(),
        "geometric_mean": geometric_mean(recalls),
        "harmonic_mean": harmonic_mean(recalls),
        "lowest_recall": np.take_along_axis(recalls, worst[..., None], axis=-1)[..., 0],
        "lowest_class": worst,
        "substituted_zeros": count_zeros(recalls),
        "groups": {
            name: mean_recall(recalls, mask) for name, mask in group_masks(class_counts).items()
        },
    }


def _test_scores(store: Store, head: Head, chosen: tuple[float, float]) -> Scores | None:
    """The ensemble at the chosen temperatures on the split `test`; None where there is none."""
    if "test" not in store or not store["test"].usable.any():
        return None
    return score_split(store, "test", head, chosen)


def _csv(sweep: Sweep) -> str:
    """The grid as CSV, an absent group as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in sweep.cells():
        writer.writerow(f"{v:.10g}" if isinstance(v, float) else v for v in cell.values())
    return text.getvalue()
