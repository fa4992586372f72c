"""A measured temperature plane: its numbers, its choice, and its files.

Legend: K new heads, C classes, To and Tn temperatures of the old and the new heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.bootstrap import Bootstrap
from pipeline.calibration import Calibration, finite
from pipeline.metrics import GROUPS, Floats, Ints, Scores, as_number
from pipeline.selection import NoiseRegion, best_cell

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

    nll: Floats | None = None
    """Mean negative log-likelihood of the ensemble, in nats."""

    ece: Floats | None = None
    """Expected calibration error of the ensemble, in percent."""

    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Identity of the store and settings of the heads, as JSON values."""

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The chosen temperature of the old head and of every new one."""
        return (self.chosen[0], *(self.chosen[1] * factor for factor in self.factors))

    def cells(self) -> list[dict[str, Any]]:
        """One row for each cell, in the order of `COLUMNS`, t_old slowest; None for NaN."""
        planes = {name: getattr(self, name) for name in COLUMNS[2:8]} | dict(self.groups)
        extra = {name: getattr(self, name) for name in ("nll", "ece")}
        extra = {name: plane for name, plane in extra.items() if plane is not None}
        rows = []
        for i, t_old in enumerate(self.t_old.tolist()):
            for j, t_new in enumerate(self.t_new.tolist()):
                values = {name: plane[i, j].item() for name, plane in planes.items()}
                values["lowest_class"] = self.class_names[values["lowest_class"]]
                values |= {name: as_number(values[name]) for name in GROUPS}
                more = {name: finite(float(plane[i, j])) for name, plane in extra.items()}
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
            "weights": list(self.weights),
            "warnings": list(self.warnings),
            "n_samples": self.n_samples,
            "n_failed": self.n_failed,
            "test_views": self.test_views,
            "t_old": self.t_old.tolist(),
            "t_new": self.t_new.tolist(),
            "cells": self.cells(),
            "test": plain.pop("test_scores"),
            **plain,
            "provenance": dict(self.provenance),
        }


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
