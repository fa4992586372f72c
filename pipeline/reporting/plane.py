"""The temperature plane of a report: a sweep of the same store and head, and its recalls.

Legend: To and Tn temperatures of the old and the new head, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache import Identity, Store, StoreError
from pipeline.errors import EvaluationError
from pipeline.heads import Head
from pipeline.metrics import Ints, count_per_class
from pipeline.plane import collect_hits, plane_members
from pipeline.scored import ScoredSplit
from pipeline.seen_views import averaged_views
from pipeline.sweeping.files import load_sweep
from pipeline.sweeping.sweep import Sweep

MOST_HITS = 2_000_000
"""Cells times classes up to which a page carries every recall of every cell (2 to 5 MB)."""


@dataclass(frozen=True, eq=False)
class CellHits:
    """What every cell gets right, class by class."""

    hits: Ints
    """(To, Tn, C) correct samples."""

    class_samples: Ints
    """(C,) samples of each class in the split."""


def sweep_of(
    sweep: Sweep | Path, store: Store, head: Head, test_views: bool | None = None
) -> Sweep:
    """The sweep to report: itself, or that of the folder it was saved in.

    Raises:
        EvaluationError: if there is none, it is damaged, or was measured on another store or head,
            or with other test views.
    """
    where = f"{sweep}/sweep.json" if isinstance(sweep, Path) else "The sweep"
    found = load_sweep(sweep) if isinstance(sweep, Path) else sweep
    _require_same(found, store, head, where)
    if found.split in store:
        _require_same_views(found, averaged_views(store, found.split, [head], test_views), where)
    return found


def hits_of_cells(sweep: Sweep, store: Store, head: Head) -> CellHits | None:
    """The correct samples of every class in every cell; None where that is too much for a page."""
    cells, n_classes = len(sweep.t_old) * len(sweep.t_new), len(store.class_names)
    if sweep.split not in store or cells * n_classes > MOST_HITS:
        return None
    scored = ScoredSplit(store, sweep.split, sweep.test_views)
    hits = _count(sweep, scored, head)
    samples = count_per_class(scored.labels, n_classes)
    if not np.allclose(100 * hits.sum(axis=-1) / samples.sum(), sweep.accuracy, atol=1e-6):
        return None  # measured by other rules, such as weights: show what was measured, no more
    return CellHits(hits, samples)


def _count(sweep: Sweep, scored: ScoredSplit, head: Head) -> Ints:
    """Correct samples (To, Tn, C)."""
    n_classes = len(scored.store.class_names)
    members = plane_members(sweep.t_old, sweep.t_new)
    plane = collect_hits(scored.blocks([None, head]), members, n_classes)
    hits = np.empty((plane.n_cells, n_classes), np.int64)
    for cells, counts in plane.counts():
        hits[cells] = counts
    return hits.reshape(*plane.shape, n_classes)


def _require_same(sweep: Sweep, store: Store, head: Head, where: str) -> None:
    """Refuse a sweep of another store or of another head."""
    provenance = sweep.provenance
    try:
        identity = Identity.from_json(provenance["store"])
        of_head = provenance["head"]
    except (KeyError, StoreError) as error:
        raise EvaluationError(
            f"{where} does not say what it was measured on ({error}): run nolb sweep-temps again."
        ) from None
    differences = identity.feature_space_differences(store.identity)
    if sweep.class_names != store.class_names:
        differences.append("class_names")
    if of_head != head.provenance.to_json():
        differences.append("the settings of the head")
    if len(sweep.factors) > 1:
        differences.append("several new heads, where a report shows one")
    if differences:
        raise EvaluationError(
            f"{where} was measured on something else ({'; '.join(differences)}): run nolb "
            "sweep-temps with this store and head, or leave --sweep out."
        )


def _require_same_views(sweep: Sweep, averaged: int, where: str) -> None:
    """Refuse a sweep of clean images in a report of averaged views, and the other way round."""
    if sweep.test_views != averaged:
        has, wants = ("the clean image alone" if not n else f"the mean of {1 + n} views"
                      for n in (sweep.test_views, averaged))  # fmt: skip
        switch = "--test-views" if averaged else "--no-test-views"
        raise EvaluationError(
            f"{where} was measured on {has} of each image, and this report is of {wants}: run nolb "
            f"sweep-temps again with {switch}, or give both commands the same."
        )
