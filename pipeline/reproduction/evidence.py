"""Test images that every classifier gets right, and statistics of them with intervals.

Two things make a number uncertain, and each has its interval: the seeds of the fits, and the choice
of the test images. Over K seeds it is Student's, of their mean (`pipeline.studying.statistics`).
Over the images it is the basic bootstrap interval of that mean (`pipeline.resampling`), for
the same images, seed and R the one that every other command shows.

Legend: N test images, C classes, K seeds (1 for what has none), R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.intervals import lowest_interval
from pipeline.metrics import Bools, Floats, Ints, Scores, count_zeros, score_hits
from pipeline.reproduction.paper import PaperTable
from pipeline.resampling import Classified, RecallNumbers, Statistic
from pipeline.small_counts import have_few_hits
from pipeline.studying.statistics import spread_of

REPLICATES = 1000

ANYWHERE = (-math.inf, math.inf)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    """Lower end."""

    high: float
    """Upper end."""

    def to_json(self) -> list[float]:
        """Low and high."""
        return [self.low, self.high]


@dataclass(frozen=True)
class WithIntervals:
    """A number with what is known of its uncertainty."""

    value: float
    """Mean over the seeds."""

    images: Interval
    """Over the choice of test images."""

    seeds: Interval | None
    """Over the seeds; None for a single one, or where nothing depends on a seed."""

    n_seeds: int
    """K."""

    @property
    def interval(self) -> Interval:
        """The interval that a table shows: over seeds where there are several, else over images."""
        return self.images if self.seeds is None else self.seeds

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """All that a verdict has to heed."""
        return (self.images,) if self.seeds is None else (self.images, self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "value": self.value, "seeds": None if self.seeds is None else self.seeds.to_json(),
            "images": self.images.to_json(), "n_seeds": self.n_seeds,
        }  # fmt: skip


class PaperNumbers:
    """Numbers as printed; K is 1, and there are no recalls."""

    def __init__(self, *tables: PaperTable) -> None:
        self._values = {row.label: row.values for table in tables for row in table.rows}

    def metric(self, label: str, name: str) -> Floats:
        """A metric (1,)."""
        return np.array([self._values[label][name]])

    def recalls(self, label: str) -> Floats:
        """The paper prints none."""
        raise KeyError(label)

    limited_recalls = recalls


def in_paper(statistic: Statistic, *tables: PaperTable) -> float | None:
    """The statistic of the paper's own numbers; None where it prints none."""
    try:
        return float(statistic(PaperNumbers(*tables)).mean())
    except KeyError:
        return None


@dataclass(frozen=True, eq=False)
class Evidence:
    """Every classifier on the same test images."""

    labels: Ints
    """(N,) class of each image."""

    class_names: tuple[str, ...]
    """(C,)"""

    class_counts: Ints
    """(C,) training images of each class."""

    hits: Mapping[str, Bools]
    """(K, N) which images a classifier gets right, for each seed, by its label."""

    n_failed: int = 0
    """Test images that could not be read and are not among the N."""

    @property
    def classified(self) -> Classified:
        """The hits by class, as the bootstrap takes them."""
        return Classified(self.hits, self.labels, len(self.class_names))

    @property
    def class_samples(self) -> Ints:
        """(C,) test images of each class."""
        return self.classified.class_samples

    def numbers(self) -> RecallNumbers:
        """What was measured, (K,) or (K, C) by label."""
        return self.classified.numbers()

    def scores(self, label: str, seed: int = 0) -> Scores:
        """All metrics of a classifier with one of its seeds."""
        return score_hits(
            self.classified.class_hits(label)[seed], self.class_samples, self.class_counts,
            self.class_names, "test", self.n_failed,
        )  # fmt: skip

    def mean_zeros(self, label: str) -> float:
        """Classes of zero recall of a classifier, mean over its seeds."""
        return float(np.mean(count_zeros(self.numbers().recalls(label))))

    def lowest_interval(self, label: str) -> Interval:
        """Of the lowest recall over images, mean over its seeds; it heeds the selection."""
        samples = self.class_samples
        ends = [lowest_interval(hits, samples) for hits in self.classified.class_hits(label)]
        low, high = np.mean(ends, axis=0)
        return Interval(float(low), float(high))

    def estimate(
        self,
        statistics: Sequence[Statistic],
        bounds: Sequence[tuple[float, float]],
        *,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> list[WithIntervals]:
        """Each statistic with its intervals.

        Args:
            statistics: of the labels that have hits.
            bounds: between which each can lie.
            replicates: R, of the bootstrap over test images.
            seed: of its draws.
        """
        found = self.classified.estimate(statistics, bounds, replicates=replicates, seed=seed)
        return [
            WithIntervals(
                float(values.mean()), Interval(*images), over_seeds(values, within), len(values)
            )
            for (values, images), within in zip(found, bounds, strict=True)
        ]

    def few_hits(self) -> dict[str, int]:
        """Classes of few hits with some seed, by label; classifiers without any are left out."""
        samples = self.class_samples
        numbers = {
            label: int(have_few_hits(self.classified.class_hits(label), samples).any(axis=0).sum())
            for label in self.hits
        }
        return {label: n for label, n in numbers.items() if n}


def over_seeds(values: Floats, bounds: tuple[float, float] = ANYWHERE) -> Interval | None:
    """Student's interval of the mean of values (K,); None of a single one.

    It has no width where all seeds agree, so that a table still shows an interval over seeds.
    """
    if len(values) == 1:
        return None
    spread = spread_of(values.tolist(), highest=bounds[1], lowest=bounds[0])
    return Interval(*(spread.interval or (spread.mean, spread.mean)))
