"""A measured temperature plane: its numbers, its choice, and its files.

Legend: K new heads, C classes, To and Tn temperatures of the old and the new heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from cache.errors import StoreFormatError
from cache.records import Check, Count, Gap, Positive, Result, read
from cache.strict_json import JSON
from pipeline.bootstrap import Bootstrap
from pipeline.calibration import Calibration, finite
from pipeline.errors import EvaluationError
from pipeline.metrics import GROUPS, Floats, Ints, Scores, as_number
from pipeline.mixture import Mixture
from pipeline.sweeping.selection import NoiseRegion, best_cell

COLUMNS = ("t_old", "t_new", "accuracy", "geometric_mean", "harmonic_mean", "lowest_recall",
           "lowest_class", "substituted_zeros", *GROUPS, "split")  # fmt: skip
"""Columns of `sweep.csv`; the first six are the contract. `nll` and `ece` follow where measured."""

COLUMN_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(COLUMNS[:6], float), "lowest_class": str, "substituted_zeros": Count,
    "split": str,
}  # fmt: skip
"""What is in them; the others are numbers with gaps."""

Axis = Annotated[
    tuple[Positive, ...],
    Check("one or more ascending numbers", lambda t: bool(t) and list(t) == sorted(set(t))),
]

Fold = Annotated[tuple[Positive, ...], Check("two or more temperatures", lambda t: len(t) > 1)]


@dataclass(frozen=True)
class CrossFit(Result):
    """A choice that was judged on rows which had no part in it."""

    folds: tuple[Fold, ...]
    """Temperatures that each fold's rows were scored with, chosen on the rows of all others."""

    scores: Scores
    """Every row, at the temperatures that the other folds chose."""


@dataclass(frozen=True)
class Sweep:
    """Metrics of the ensemble on a grid of temperatures, in percent; every plane is (To, Tn)."""

    split: str
    """Split on which the grid was measured."""

    t_old: Floats
    """(To,) ascending temperatures of the old head."""

    t_new: Floats
    """(Tn,) ascending temperatures of the new head; of the first one where there are several."""

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

    test_views: int = 0
    """Test views of each image whose mean feature with the clean one was classified."""

    chosen: tuple[float, float] = (1.0, 1.0)
    """(t_old, t_new) to use; (1, 1) where nothing was chosen."""

    chosen_on: str | None = None
    """Split that chose the temperatures; None where (1, 1) was kept."""

    chosen_by: str = "harmonic-mean"
    """What the choice looked for: `harmonic-mean`, or `nll` of each head on its own."""

    factors: tuple[float, ...] = (1.0,)
    """(K,) what `t_new` is multiplied by for each new head; the first is 1."""

    weights: tuple[float, ...] = (1.0, 1.0)
    """(1 + K,) weights of the old and the new heads in the ensemble."""

    warnings: tuple[str, ...] = ()
    """What to know before the choice is trusted, a sentence each."""

    test_scores: Scores | None = None
    """The ensemble on `test`, where the store has it: at the chosen temperatures, or, where these
    were chosen on `test` by cross-fitting, every row at those that other rows chose."""

    cross_fit: CrossFit | None = None
    """The choice judged by cross-fitting."""

    bootstrap: Bootstrap | None = None
    """How sure the chosen cell's metrics are, and its lead over (1, 1) and over each head alone."""

    noise: NoiseRegion | None = None
    """The cells that these samples cannot tell from the best one."""

    calibration: Calibration | None = None
    """Reliability of the heads and the ensemble at (1, 1) and at the chosen temperatures."""

    more: Mapping[str, Floats] = field(default_factory=dict)
    """Further planes by their column: `nll` and `ece` where calibration was measured, or those of
    a later version; NaN where JSON has no number."""

    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Identity of the store and settings of the heads, as JSON values."""

    @property
    def mixture(self) -> Mixture:
        """Temperatures and weights to use: the chosen cell."""
        chosen_new = (self.chosen[1] * factor for factor in self.factors)
        return Mixture((self.chosen[0], *chosen_new), self.weights)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The chosen temperature of the old head and of every new one."""
        return self.mixture.temperatures

    @property
    def shape(self) -> tuple[int, int]:
        """To and Tn."""
        return len(self.t_old), len(self.t_new)

    @property
    def nll(self) -> Floats | None:
        """Mean negative log-likelihood of the ensemble, in nats; None where not measured."""
        return self.more.get("nll")

    @property
    def ece(self) -> Floats | None:
        """Expected calibration error of the ensemble, in percent; None where not measured."""
        return self.more.get("ece")

    def cells(self) -> list[dict[str, Any]]:
        """One row for each cell, in the order of `COLUMNS`, t_old slowest; None for NaN."""
        planes = {name: getattr(self, name) for name in COLUMNS[2:8]} | dict(self.groups)
        rows = []
        for i, t_old in enumerate(self.t_old.tolist()):
            for j, t_new in enumerate(self.t_new.tolist()):
                values = {name: plane[i, j].item() for name, plane in planes.items()}
                values["lowest_class"] = self.class_names[values["lowest_class"]]
                values |= {name: as_number(values[name]) for name in GROUPS}
                more = {name: finite(float(plane[i, j])) for name, plane in self.more.items()}
                rows.append({"t_old": t_old, "t_new": t_new, **values, "split": self.split, **more})
        return rows

    def to_json(self) -> dict[str, JSON]:
        """The sweep as plain JSON values."""
        same = {name: getattr(self, name) for name in _SAVED_AS_THEY_ARE}
        saved = _Saved(
            **same, chosen=_Chosen(*self.chosen), test=self.test_scores, cells=tuple(self.cells()),
            t_old=tuple(self.t_old.tolist()), t_new=tuple(self.t_new.tolist()),
        )  # fmt: skip
        return {**saved.to_json(), "temperatures": list(self.temperatures)}

    @classmethod
    def from_json(cls, content: object, where: str = "the sweep") -> Sweep:
        """What `to_json` wrote, every value looked at.

        Args:
            content: parsed JSON.
            where: what to call it in an error, such as its path.

        Raises:
            EvaluationError: naming the first value that is not what `to_json` writes.
        """
        try:
            return _sweep(_Saved.from_json(content, where), where)
        except StoreFormatError as error:
            raise EvaluationError(
                f"{where} is no sweep of this version ({str(error).rstrip('.')}): run nolb "
                "sweep-temps again."
            ) from None


def choose(sweep: Sweep) -> Sweep:
    """The sweep with its best cell chosen, and a warning for each edge of the grid it lies on."""
    i, j = best_cell(sweep.t_old, sweep.t_new, sweep.harmonic_mean, sweep.lowest_recall)
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


@dataclass(frozen=True)
class _Chosen(Result):
    """The chosen cell."""

    t_old: Positive
    t_new: Positive


@dataclass(frozen=True)
class _Saved(Result):
    """What `sweep.json` says: a `Sweep`, its planes cell by cell."""

    split: str
    chosen: _Chosen
    chosen_on: str | None
    chosen_by: str
    factors: tuple[Positive, ...]
    weights: tuple[Positive, ...]
    warnings: tuple[str, ...]
    n_samples: Count
    n_failed: Count
    test_views: Count
    t_old: Axis
    t_new: Axis
    class_names: tuple[str, ...]
    cells: tuple[Mapping[str, object], ...]
    test: Scores | None
    cross_fit: CrossFit | None
    bootstrap: Bootstrap | None
    noise: NoiseRegion | None
    calibration: Calibration | None
    provenance: Mapping[str, object]

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        if not self.factors or len(self.weights) != 1 + len(self.factors):
            raise EvaluationError(
                f"{len(self.factors)} factors need a weight each and one of the old head, not "
                f"{len(self.weights)} weights."
            )
        shape = (len(self.t_old), len(self.t_new))
        rows = self.noise.cells if self.noise is not None else ((0,) * shape[1],) * shape[0]
        if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
            raise EvaluationError(f"the cells of the noise must be {shape[0]} lists of {shape[1]}.")


_SAVED_AS_THEY_ARE = tuple(
    each.name
    for each in dataclasses.fields(_Saved)
    if each.name not in ("chosen", "t_old", "t_new", "cells", "test")
)


def _sweep(saved: _Saved, where: str) -> Sweep:
    """A sweep as it was before it was saved."""
    return Sweep(
        **{name: getattr(saved, name) for name in _SAVED_AS_THEY_ARE},
        **_planes(saved, f"'cells' of {where}"),
        t_old=np.array(saved.t_old), t_new=np.array(saved.t_new),
        chosen=(saved.chosen.t_old, saved.chosen.t_new), test_scores=saved.test,
    )  # fmt: skip


def _planes(saved: _Saved, where: str) -> dict[str, Any]:
    """Every plane (To, Tn), from the rows of the cells; columns that are new here come along."""
    others = [
        name
        for name in (saved.cells[0] if saved.cells else ())
        if all(isinstance(cell.get(name), int | float | None) for cell in saved.cells)
    ]
    names = list(dict.fromkeys((*COLUMNS, *others)))
    columns = {name: _column(saved.cells, name, where) for name in names}
    shape = (len(saved.t_old), len(saved.t_new))
    pairs = list(zip(columns["t_old"], columns["t_new"], strict=True))
    if pairs != [(old, new) for old in saved.t_old for new in saved.t_new]:
        raise StoreFormatError(
            f"{where} must be the {shape[0]} x {shape[1]} pairs of t_old and t_new."
        )
    places = {name: c for c, name in enumerate(saved.class_names)}
    lowest = [places.get(name, -1) for name in columns["lowest_class"]]
    if min(lowest) < 0:
        raise StoreFormatError(f"'lowest_class' of {where} must be one of the class names.")
    planes = {name: np.reshape(column, shape) for name, column in columns.items()}
    return {
        **{name: planes[name] for name in COLUMNS[2:8]},
        "lowest_class": np.reshape(lowest, shape),
        "groups": {name: planes[name] for name in GROUPS},
        "more": {name: plane for name, plane in planes.items() if name not in COLUMNS},
    }


def _column(cells: Sequence[Mapping[str, object]], name: str, where: str) -> list[Any]:
    """What every cell says under a name."""
    if any(name not in cell for cell in cells):
        raise StoreFormatError(f"an entry of {where} misses '{name:.40}'.")
    kind = COLUMN_TYPES.get(name, Gap)
    return [read(cell[name], kind, f"'{name:.40}' of {where}") for cell in cells]
