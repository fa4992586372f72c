"""Which temperatures are tried, and how one is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pipeline.config.checks import check_choices, check_device, require
from pipeline.config.parsing import (
    Size,
    Temperatures,
    Weights,
    parse_size,
    weigh_something,
)

DEFAULT_GRID: Temperatures = tuple(2.0 ** (k / 4) for k in range(-8, 17))
"""1/4 to 16 in steps of 2^(1/4): 25 temperatures, among them exactly 1, 2, 4 and 8."""

FEWEST_REPLICATES = 100
"""Bootstrap replicates from which on there is an interval. Of 39 the ends of 95 % are the first and
the last; of 100, chance moves an end by a seventh of its distance from the middle, a standard error
of sqrt(0.025 * 0.975 / R) / (1.96 * 0.058) of a normal distribution's; of 1000, by a 23rd."""

LEAST_MEMORY = 2**28
"""256 MiB: half of it for one thread, half for the hits."""


@dataclass(frozen=True)
class SweepConfig:
    """Which temperatures `sweep-temps` tries, and on which split."""

    t_old: Temperatures = field(default=DEFAULT_GRID)
    """Temperatures of the old head (eq. 13): `1,2,3`, or `start:stop:count` (geometric)."""

    t_new: Temperatures = field(default=DEFAULT_GRID)
    """Temperatures of the new head (eq. 12): `1,2,3`, or `start:stop:count` (geometric)."""

    split: str = "auto"
    """Split to measure on; `auto` is `val` where the store has it, else `test`."""

    test_views: bool | None = None
    """Classify the mean feature of each image and its test views, or the clean image alone; not
    set: the mean, where the store has test views, and the clean image alone for a head that was
    balanced on it."""

    choose: Literal["harmonic-mean", "nll"] = "harmonic-mean"
    """Choose the best cell of the plane, or calibrate each head on its own by its likelihood."""

    cross_fit: int = 0
    """Choose on all but one of this many folds and score on that one; the way to choose without a
    `val` split (`auto` is `test` then). 0 does not."""

    refine: int = 0
    """Rounds of finer temperatures around the best cell, and of further ones beyond an edge."""

    weights: Weights | None = None
    """Weights of the old and of each new head in the ensemble; 0 leaves a new head out. Not set:
    all equal."""

    calibration: bool = False
    """Also measure the ensemble's negative log-likelihood and calibration error in every cell."""

    replicates: int = 1000
    """Bootstrap replicates, 100 or more, for intervals and for the region within the noise; 0
    leaves both out."""

    seed: int = 0
    """Seed of folds and bootstrap."""

    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:K` or `auto`; the plane is exact on each."""

    threads: int = 0
    """Threads of the sweep on a CPU; 0 is one for each core."""

    memory: Size = "1GiB"
    """Most memory for a sweep, as 2GiB, whatever the store's size; hits beyond half of it go to
    disk."""

    def __post_init__(self) -> None:
        """Refuse settings that no sweep could use."""
        check_choices(self)
        for name, grid in (("t_old", self.t_old), ("t_new", self.t_new)):
            fits = len(grid) > 0 and all(0 < t < math.inf for t in grid)
            require(name, ",".join(map(str, grid)), fits, "one or more temperatures above 0")
        fits = self.weights is None or weigh_something(self.weights)
        needed = "numbers of 0 or more, one for each head and not all of them 0"
        require("weights", ",".join(map(str, self.weights or ())), fits, needed)
        for name in ("refine", "seed", "threads"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        fits = self.replicates >= FEWEST_REPLICATES or self.replicates == 0
        needed = f"{FEWEST_REPLICATES} or more, as intervals need, or 0 to leave intervals out"
        require("replicates", self.replicates, fits, needed)
        folds = self.cross_fit
        require("cross_fit", folds, folds == 0 or folds > 1, "2 folds or more, or 0")
        fits = not (self.cross_fit and self.refine)
        # The finer grid would lie where all labels, the held-out ones too, want it.
        require("refine", self.refine, fits, "0 with cross_fit, where no fold may steer the grid")
        fits = parse_size(self.memory) >= LEAST_MEMORY
        require("memory", self.memory, fits, "256MiB or more")
        check_device(self.device)
