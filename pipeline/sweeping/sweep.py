"""A measured temperature plane: its numbers, its choice, and its files.

Legend: K new heads, C classes, To and Tn temperatures of the old and the new heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from pipeline.bootstrap import Bootstrap, Estimate
from pipeline.calibration import Calibration, finite
from pipeline.checked_json import Values
from pipeline.errors import EvaluationError
from pipeline.metrics import GROUPS, Floats, Ints, Scores, as_number
from pipeline.mixture import Mixture
from pipeline.sweeping.selection import NoiseRegion, best_cell

_Part = TypeVar("_Part")

COLUMNS = ("t_old", "t_new", "accuracy", "geometric_mean", "harmonic_mean", "lowest_recall",
           "lowest_class", "substituted_zeros", *GROUPS, "split")  # fmt: skip
"""Columns of `sweep.csv`; the first six are the contract. `nll` and `ece` follow where measured."""


@dataclass(frozen=True)
class CrossFit:
    """A choice that was judged on rows which had no part in it."""

    folds: tuple[tuple[float, ...], ...]
    """Temperatures that each fold's rows were scored with, chosen on the rows of all others."""

    scores: Scores
    """Every row, at the temperatures that the other folds chose."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"folds": [list(fold) for fold in self.folds], "scores": self.scores.to_json()}

    @classmethod
    def from_json(cls, content: object, where: str) -> CrossFit:
        """What `to_json` wrote; `where` names it in the ValueError of what is not so."""
        found = Values(content, where)
        folds = tuple(
            Values({"fold": fold}, found.at("folds")).temperatures("fold")
            for fold in found.items("folds")
        )
        return cls(folds, Scores.from_json(found.raw("scores"), found.at("scores")))


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

    def to_json(self) -> dict[str, Any]:
        """The sweep as plain JSON values."""
        parts = ("test_scores", "cross_fit", "bootstrap", "noise", "calibration")
        values = {name: getattr(self, name) for name in parts}
        plain = {k: None if part is None else part.to_json() for k, part in values.items()}
        return {
            "split": self.split,
            "chosen": {"t_old": self.chosen[0], "t_new": self.chosen[1]},
            "chosen_on": self.chosen_on,
            "chosen_by": self.chosen_by,
            "temperatures": list(self.temperatures),
            "factors": list(self.factors),
            "weights": list(self.weights),
            "warnings": list(self.warnings),
            "n_samples": self.n_samples,
            "n_failed": self.n_failed,
            "test_views": self.test_views,
            "t_old": self.t_old.tolist(),
            "t_new": self.t_new.tolist(),
            "class_names": list(self.class_names),
            "cells": self.cells(),
            "test": plain.pop("test_scores"),
            **plain,
            "provenance": dict(self.provenance),
        }

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
            return _read(Values(content, where))
        except (ValueError, OverflowError) as error:
            raise EvaluationError(
                f"{where} is no sweep of this version ({error}): run nolb sweep-temps again."
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


def _read(found: Values) -> Sweep:
    """A sweep from its JSON."""
    t_old, t_new = (_axis(found, name) for name in ("t_old", "t_new"))
    shape = (len(t_old), len(t_new))
    names = found.texts("class_names")
    chosen = found.inner("chosen")
    factors = found.temperatures("factors")
    weights = found.temperatures("weights", 1 + len(factors))
    return Sweep(
        split=found.text("split"), t_old=t_old, t_new=t_new, **_planes(found, t_old, t_new, names),
        class_names=names, n_samples=found.count("n_samples"), n_failed=found.count("n_failed"),
        test_views=found.count("test_views"),
        chosen=(chosen.temperature("t_old"), chosen.temperature("t_new")),
        chosen_on=found.text_or_none("chosen_on"), chosen_by=found.text("chosen_by"),
        factors=factors, weights=weights, warnings=found.texts("warnings"),
        test_scores=_part(found, "test", Scores.from_json),
        cross_fit=_part(found, "cross_fit", CrossFit.from_json),
        bootstrap=_part(found, "bootstrap", _bootstrap),
        noise=_part(found, "noise", lambda one, where: NoiseRegion.from_json(one, shape, where)),
        calibration=_part(found, "calibration", Calibration.from_json),
        provenance=dict(found.mapping("provenance")),
    )  # fmt: skip


def _axis(found: Values, name: str) -> Floats:
    """(T,) ascending temperatures."""
    grid = np.array(found.temperatures(name))
    if not (np.diff(grid) > 0).all():
        raise ValueError(f"{found.at(name)} must be ascending")
    return grid


def _planes(
    found: Values, t_old: Floats, t_new: Floats, class_names: Sequence[str]
) -> dict[str, Any]:
    """Every plane (To, Tn), from the rows of the cells; columns that are new here come along."""
    cells = [Values(cell, found.at("cells")) for cell in found.items("cells")]
    places = [(cell.number("t_old"), cell.number("t_new")) for cell in cells]
    if places != [(old, new) for old in t_old.tolist() for new in t_new.tolist()]:
        raise ValueError(
            f"{found.at('cells')} must be the {len(t_old)} x {len(t_new)} pairs of t_old and t_new"
        )
    shape = (len(t_old), len(t_new))

    def plane(name: str, *, gaps: bool = False) -> Floats:
        values = [
            np.nan if gaps and cell.raw(name) is None else cell.number(name) for cell in cells
        ]
        return np.array(values, np.float64).reshape(shape)

    def numeric(name: str) -> bool:
        return all(isinstance(cell.raw(name), int | float | None) for cell in cells)

    places_of = {name: c for c, name in enumerate(class_names)}
    lowest = [places_of.get(cell.text("lowest_class")) for cell in cells]
    if None in lowest:
        raise ValueError(f"'lowest_class' of {found.at('cells')} must be one of the class names")
    zeros = [cell.count("substituted_zeros") for cell in cells]
    others = [name for name in cells[0].names() if name not in COLUMNS and numeric(name)]
    return {
        **{name: plane(name) for name in COLUMNS[2:6]},
        "lowest_class": np.array(lowest, np.int64).reshape(shape),
        "substituted_zeros": np.array(zeros, np.int64).reshape(shape),
        "groups": {name: plane(name, gaps=True) for name in GROUPS},
        "more": {name: plane(name, gaps=True) for name in others},
    }


def _part(found: Values, name: str, read: Callable[[object, str], _Part]) -> _Part | None:
    """A part that not every sweep has."""
    value = found.raw(name)
    return None if value is None else read(value, found.at(name))


def _bootstrap(content: object, where: str) -> Bootstrap:
    """What `Bootstrap.to_json` wrote."""
    found = Values(content, where)
    tables = [
        {
            name: {metric: _estimate(of.inner(name), metric) for metric in of.inner(name).names()}
            for name in of.names()
        }
        for of in (found.inner("values"), found.inner("differences"))
    ]
    few = found.inner("few_hits")
    few_hits = {name: few.count(name) for name in few.names()}
    return Bootstrap(
        found.text("split"), found.count("replicates"), tables[0], tables[1], few_hits
    )  # fmt: skip


def _estimate(found: Values, metric: str) -> Estimate:
    """Value, low and high."""
    return Estimate(*found.numbers(metric, 3))
