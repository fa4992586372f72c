"""The temperature plane of a report, from what `sweep-temps` measured.

Legend: To and Tn temperatures of the old and the new head, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache import Identity, Store
from pipeline.ensemble import averaged_views, logit_blocks
from pipeline.errors import EvaluationError, NolbError
from pipeline.heads import Head
from pipeline.metrics import Floats, Ints, count_per_class
from pipeline.plane import collect_hits, plane_members
from pipeline.selection import NoiseRegion

METRICS: Mapping[str, str] = {
    "harmonic_mean": "Harmonic mean of recalls",
    "geometric_mean": "Geometric mean of recalls",
    "lowest_recall": "Lowest recall",
    "accuracy": "Accuracy",
    "substituted_zeros": "Classes of zero recall",
    "many": "Mean recall, many",
    "medium": "Mean recall, medium",
    "few": "Mean recall, few",
}
"""Columns of a sweep that everybody asks for, the one shown first at the head."""

NOT_METRICS = frozenset({"t_old", "t_new", "lowest_class", "split"})

MOST_HITS = 2_000_000
"""Cells times classes up to which a page carries every recall of every cell (2 to 5 MB)."""


Interval = tuple[float, float, float]
"""A value, and the low and the high end of its 95 % interval."""


@dataclass(frozen=True)
class Lead:
    """How much better the ensemble is than one other classifier, by the bootstrap."""

    over: str
    """The other classifier: `old`, `new`, or `(1, 1)`."""

    metrics: Mapping[str, Interval]
    """Differences in percentage points, by metric."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Metrics of the ensemble over two temperatures, in percent; planes are (To, Tn)."""

    split: str
    """Split on which it was measured."""

    t_old: Floats
    """(To,) ascending."""

    t_new: Floats
    """(Tn,) ascending."""

    metrics: Mapping[str, Floats]
    """Planes by column of the sweep; NaN where a group is absent."""

    lowest_class: Ints
    """(To, Tn) index of the class of the lowest recall."""

    chosen: tuple[float, float]
    """(t_old, t_new) to use."""

    chosen_on: str | None
    """Split that chose them, None where nothing was chosen."""

    warnings: tuple[str, ...]
    """What to know before the choice is trusted."""

    n_samples: int
    """Samples scored in each cell."""

    n_failed: int
    """Samples left out."""

    test_views: int
    """Test views of each image that were averaged with the clean one."""

    rows: tuple[Mapping[str, Any], ...]
    """The cells as the sweep lists them, t_old slowest."""

    noise: NoiseRegion | None = None
    """Cells that these samples cannot tell from the best one."""

    leads: tuple[Lead, ...] = ()
    """What the ensemble gains over each classifier, with its uncertainty."""

    leads_on: str = ""
    """Split that the leads were measured on."""

    cross_fitted: Mapping[str, float] | None = None
    """Metrics of the ensemble at temperatures that other folds chose."""

    hits: Ints | None = None
    """(To, Tn, C) correct samples, None where that would be too much for a page."""

    class_samples: Ints | None = None
    """(C,) samples of each class in the split."""

    # What figures and tables take a plane by.
    @property
    def accuracy(self) -> Floats:
        """Share of correct samples."""
        return self.metrics["accuracy"]

    @property
    def geometric_mean(self) -> Floats:
        """Geometric mean of the recalls."""
        return self.metrics["geometric_mean"]

    @property
    def harmonic_mean(self) -> Floats:
        """Harmonic mean of the recalls."""
        return self.metrics["harmonic_mean"]

    @property
    def lowest_recall(self) -> Floats:
        """Lowest recall of all classes."""
        return self.metrics["lowest_recall"]

    def cells(self) -> list[dict[str, Any]]:
        """One row for each cell."""
        return [dict(row) for row in self.rows]


def grid_of_sweep(
    sweep: Mapping[str, Any] | Path, store: Store, head: Head, test_views: bool | None = None
) -> Grid:
    """The plane of a sweep: of the folder it was saved in, or of its JSON form.

    Raises:
        EvaluationError: if there is none, it is damaged, or was measured on another store or head,
            or with other test views.
    """
    where = f"{sweep}/sweep.json" if isinstance(sweep, Path) else "The sweep"
    content = _read(sweep) if isinstance(sweep, Path) else sweep
    try:
        grid = _parsed(content, store.class_names)
        _require_same(content["provenance"], store, head, where)
        _require_same_views(grid, store, head, test_views, where)
    except EvaluationError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, NolbError) as error:
        raise EvaluationError(
            f"{where} is no sweep of this store ({type(error).__name__}: {error}): run nolb "
            "sweep-temps again."
        ) from None
    return grid


def with_hits(grid: Grid, store: Store, head: Head) -> Grid:
    """The grid with the correct samples of every class in every cell, where that is affordable."""
    if grid.split not in store:
        return grid
    split = store[grid.split]
    if len(grid.t_old) * len(grid.t_new) * len(store.class_names) > MOST_HITS:
        return grid
    hits = _count(store, grid, head)
    samples = count_per_class(split.labels[split.usable], len(store.class_names))
    if not np.allclose(100 * hits.sum(axis=-1) / samples.sum(), grid.accuracy, atol=1e-6):
        return grid  # measured by other rules, such as weights: show what was measured, no more
    return replace(grid, hits=hits, class_samples=samples)


def _count(store: Store, grid: Grid, head: Head) -> Ints:
    """Correct samples (To, Tn, C)."""
    n_classes = len(store.class_names)
    members = plane_members(grid.t_old, grid.t_new)
    blocks = logit_blocks(store, grid.split, [None, head], grid.test_views > 0)
    plane = collect_hits(blocks, members, n_classes)
    hits = np.empty((plane.n_cells, n_classes), np.int64)
    for cells, counts in plane.counts():
        hits[cells] = counts
    return hits.reshape(*plane.shape, n_classes)


def _read(folder: Path) -> Mapping[str, Any]:
    """The JSON of a saved sweep."""
    path = folder / "sweep.json"
    if not path.is_file():
        raise EvaluationError(
            f"{folder} holds no sweep.json: make one with nolb sweep-temps STORE HEAD --out "
            f"{folder}, or leave --sweep out."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}).") from None
    if not isinstance(content, dict):
        raise EvaluationError(f"{path} is no sweep: it holds a {type(content).__name__}.")
    return content


def _parsed(content: Mapping[str, Any], class_names: tuple[str, ...]) -> Grid:
    """The grid from a sweep's JSON; columns that are new here are taken along by their names."""
    t_old, t_new = (np.array(content[name], np.float64) for name in ("t_old", "t_new"))
    shape = (len(t_old), len(t_new))
    rows = tuple(content["cells"])
    if len(rows) != shape[0] * shape[1]:
        raise EvaluationError(f"The sweep has {len(rows)} cells for a grid of {shape}.")
    names = [
        *(name for name in METRICS if name in rows[0]),
        *(name for name in rows[0] if name not in METRICS and name not in NOT_METRICS),
    ]
    planes = {}
    for name in names:
        values = [np.nan if row[name] is None else row[name] for row in rows]
        if all(isinstance(value, int | float) for value in values):
            planes[name] = np.array(values, np.float64).reshape(shape)
    index_of = {name: c for c, name in enumerate(class_names)}
    lowest = np.array([index_of[row["lowest_class"]] for row in rows], np.int64).reshape(shape)
    chosen = content["chosen"]
    return Grid(
        split=str(content["split"]),
        t_old=t_old,
        t_new=t_new,
        metrics=planes,
        lowest_class=lowest,
        chosen=(float(chosen["t_old"]), float(chosen["t_new"])),
        chosen_on=content["chosen_on"],
        warnings=tuple(map(str, content["warnings"])),
        n_samples=int(content["n_samples"]),
        n_failed=int(content["n_failed"]),
        test_views=int(content.get("test_views", 0)),
        rows=rows,
        noise=_noise(content.get("noise"), shape),
        leads=_leads(content.get("bootstrap")),
        leads_on=(content.get("bootstrap") or {}).get("split", ""),
        cross_fitted=(content.get("cross_fit") or {}).get("scores"),
    )


def _noise(content: Mapping[str, Any] | None, shape: tuple[int, int]) -> NoiseRegion | None:
    """The region within the noise, where it was measured."""
    if content is None:
        return None
    best, t_old, t_new = (tuple(map(float, content[k])) for k in ("best", "t_old", "t_new"))
    return NoiseRegion(
        best=(best[0], best[1]),
        mask=np.array(content["cells"], np.bool_).reshape(shape),
        share=float(content["share"]),
        t_old=(t_old[0], t_old[1]),
        t_new=(t_new[0], t_new[1]),
    )


def _leads(content: Mapping[str, Any] | None) -> tuple[Lead, ...]:
    """The bootstrap's differences, where they were measured."""
    if content is None:
        return ()
    return tuple(
        Lead(name, {metric: (v[0], v[1], v[2]) for metric, v in found.items()})
        for name, found in content["differences"].items()
    )


def _require_same(provenance: Mapping[str, Any], store: Store, head: Head, where: str) -> None:
    """Refuse a sweep of another store or of another head."""
    identity = Identity.from_json(provenance["store"])
    differences = identity.feature_space_differences(store.identity)
    if provenance["head"] != json.loads(json.dumps(dict(head.config))):
        differences.append("the settings of the head")
    if len(provenance.get("heads", [0])) > 1:
        differences.append("several new heads, where a report shows one")
    if differences:
        raise EvaluationError(
            f"{where} was measured on something else ({'; '.join(differences)}): run nolb "
            "sweep-temps with this store and head, or leave --sweep out."
        )


def _require_same_views(
    grid: Grid, store: Store, head: Head, test_views: bool | None, where: str
) -> None:
    """Refuse a sweep of clean images in a report of averaged views, and the other way round."""
    if grid.split not in store:
        return
    averaged = averaged_views(store, grid.split, test_views, [head])
    if grid.test_views != averaged:
        has, wants = ("the clean image alone" if not n else f"the mean of {1 + n} views"
                      for n in (grid.test_views, averaged))  # fmt: skip
        switch = "--test-views" if averaged else "--no-test-views"
        raise EvaluationError(
            f"{where} was measured on {has} of each image, and this report is of {wants}: run nolb "
            f"sweep-temps again with {switch}, or give both commands the same."
        )
