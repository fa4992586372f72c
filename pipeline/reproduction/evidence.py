"""Which test images every classifier gets right, and what follows from it, with intervals.

Two things make a number uncertain, and each has its interval: the seeds of the fits, and the choice
of the test images. Over K seeds it is Student's, of their mean. Over the images it is the basic
bootstrap interval of that mean (as in `pipeline.bootstrap`, with its reasons): every class's images
are drawn anew, the same ones for all classifiers and seeds, so that what they share cancels.
Classes of few hits and lowest recalls lie where exact intervals put them (`pipeline.intervals`).

Legend: N test images, C classes, K seeds (1 for what has none), M classifiers with all their seeds,
R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.intervals import CONFIDENCE, Caution, basic_interval, caution, have_few_hits
from pipeline.metrics import (
    Bools,
    Floats,
    Ints,
    Scores,
    count_per_class,
    geometric_mean,
    harmonic_mean,
    recalls_of_hits,
    score_hits,
)
from pipeline.reproduction.paper import PaperTable

REPLICATES = 1000
DRAWN = 2**22
"""Recalls of replicates in memory at a time (32 MiB)."""

MEANS = {"geometric_mean": geometric_mean, "harmonic_mean": harmonic_mean}

ANYWHERE = (-math.inf, math.inf)


class Numbers(Protocol):
    """Where a statistic finds its numbers: measured, redrawn, or printed in the paper."""

    def metric(self, label: str, name: str) -> Floats:
        """A metric (..., K) of a classifier, in percent; KeyError where there is none."""

    def recalls(self, label: str) -> Floats:
        """Recalls (..., K, C) of a classifier, in percent; KeyError where there are none."""

    def cautious_recalls(self, label: str) -> Floats:
        """The same, where redrawn with classes of few hits at the ends of exact intervals."""


Statistic = Callable[[Numbers], Floats]
"""One number (..., K) for each seed."""


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
class Measured:
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
        """What a table shows: over seeds where there are several, else over images."""
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


class RecallNumbers:
    """Numbers from recalls.

    Args:
        recalls: (..., K, C) in percent by label, NaN for classes without samples.
        class_samples: (C,) test images of each class.
    """

    def __init__(self, recalls: Mapping[str, Floats], class_samples: Ints) -> None:
        self._recalls = recalls
        self._samples = class_samples
        self._known: dict[tuple[str, str], Floats] = {}

    def metric(self, label: str, name: str) -> Floats:
        """A metric (..., K); each is computed once."""
        key = label, name
        if key not in self._known:
            self._known[key] = self._computed(label, name)
        return self._known[key]

    def recalls(self, label: str) -> Floats:
        """Recalls (..., K, C)."""
        return self._recalls[label]

    def cautious_recalls(self, label: str) -> Floats:
        """Recalls (..., K, C); of those found there are no others."""
        return self._recalls[label]

    def _computed(self, label: str, name: str) -> Floats:
        recalls = self._recalls[label]
        if name == "accuracy":
            return np.asarray(np.nansum(recalls * self._samples, axis=-1) / self._samples.sum())
        if name in MEANS:
            return MEANS[name](recalls)
        if name == "lowest_recall":
            return np.asarray(np.nanmin(recalls, axis=-1))
        raise KeyError(name)


class CautiousNumbers(RecallNumbers):
    """What was found, with classes of few hits at their ends wherever recalls are asked for.

    Args:
        found: what was measured.
        recalls: (K, C) in percent by label.
        class_samples: (C,)
        cautions: by label.
        rows: the replicates whose ends they are.
    """

    def __init__(
        self,
        found: RecallNumbers,
        recalls: Mapping[str, Floats],
        class_samples: Ints,
        cautions: Mapping[str, Caution],
        rows: slice,
    ) -> None:
        super().__init__(recalls, class_samples)
        self._found = found
        self._cautions = cautions
        self._rows = rows

    def cautious_recalls(self, label: str) -> Floats:
        """Recalls (r, K, C), or (K, C) where no class of the label has few hits."""
        return self._cautions[label].applied(self._recalls[label], self._rows)

    def _computed(self, label: str, name: str) -> Floats:
        return self._found.metric(label, name)


class RedrawnNumbers(CautiousNumbers):
    """The same on images drawn anew.

    A metric is as far from the one found, the other way, as the truth may be: turned over, a
    difference or a range of several such gives what these of the truth may be.

    Args:
        before: what these replicates were drawn from.
        recalls: (r, K, C) in percent by label.
    """

    def __init__(self, before: CautiousNumbers, recalls: Mapping[str, Floats]) -> None:
        super().__init__(before._found, recalls, before._samples, before._cautions, before._rows)
        self._before = before

    def _computed(self, label: str, name: str) -> Floats:
        found, careful = self._found.metric(label, name), self._cautions[label]
        if name == "lowest_recall":
            return np.asarray(2 * found - careful.lowest[self._rows])
        if name not in MEANS:
            return RecallNumbers._computed(self, label, name)
        drawn_from, drawn = (
            MEANS[name](numbers.cautious_recalls(label)) for numbers in (self._before, self)
        )
        return np.asarray(2 * (found - drawn_from) + drawn)


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

    cautious_recalls = recalls


def in_paper(statistic: Statistic, *tables: PaperTable) -> float | None:
    """What the paper's own numbers say; None where they do not."""
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
    def class_samples(self) -> Ints:
        """(C,) test images of each class."""
        return count_per_class(self.labels, len(self.class_names))

    def numbers(self) -> RecallNumbers:
        """What was measured, (K,) or (K, C) by label."""
        samples = self.class_samples
        recalls = {
            label: recalls_of_hits(self._class_hits(hits), samples)
            for label, hits in self.hits.items()
        }
        return RecallNumbers(recalls, samples)

    def scores(self, label: str, seed: int = 0) -> Scores:
        """All metrics of a classifier with one of its seeds."""
        return score_hits(
            self._class_hits(self.hits[label])[seed], self.class_samples, self.class_counts,
            self.class_names, "test", self.n_failed,
        )  # fmt: skip

    def mean_zeros(self, label: str) -> float:
        """Classes of zero recall of a classifier, mean over its seeds."""
        zeros = [self.scores(label, k).substituted_zeros for k in range(len(self.hits[label]))]
        return float(np.mean(zeros))

    def estimate(
        self,
        statistics: Sequence[Statistic],
        bounds: Sequence[tuple[float, float]],
        *,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> list[Measured]:
        """Each statistic with its intervals.

        Args:
            statistics: of the labels that have hits.
            bounds: between which each can lie.
            replicates: R, of the bootstrap over test images.
            seed: of its draws.
        """
        numbers = self.numbers()
        found = [np.atleast_1d(statistic(numbers)) for statistic in statistics]
        turned: list[list[Floats]] = [[] for _ in statistics]
        for before, after in self._redrawn(replicates, seed):
            for kept, statistic in zip(turned, statistics, strict=True):
                kept.append((2 * statistic(before) - statistic(after)).mean(axis=-1))
        return [
            _measured(values, np.concatenate(kept), within)
            for values, kept, within in zip(found, turned, bounds, strict=True)
        ]

    def few_hits(self) -> dict[str, int]:
        """Classes of few hits with some seed, by label; classifiers without any are left out."""
        samples = self.class_samples
        numbers = {
            label: int(have_few_hits(self._class_hits(hits), samples).any(axis=0).sum())
            for label, hits in self.hits.items()
        }
        return {label: n for label, n in numbers.items() if n}

    def _class_hits(self, hits: Bools) -> Ints:
        """Hits (K, C) of each class."""
        n_classes = len(self.class_names)
        return np.stack([count_per_class(self.labels[right], n_classes) for right in hits])

    def _redrawn(
        self, replicates: int, seed: int
    ) -> Iterator[tuple[CautiousNumbers, RedrawnNumbers]]:
        """What some replicates were drawn from, and what they are.

        The images are drawn anew within each class. Classes of few hits are at the same ends on
        both sides, so that turning over leaves them there.
        """
        samples, found = self.class_samples, self.numbers()
        recalls = {label: found.recalls(label) for label in self.hits}
        cautions = {
            label: caution(hits, self._class_hits(hits), samples, replicates, seed)
            for label, hits in self.hits.items()
        }
        for rows, drawn in self._redrawn_hits(replicates, seed):
            before = CautiousNumbers(found, recalls, samples, cautions, rows)
            after = {label: recalls_of_hits(hits, samples) for label, hits in drawn.items()}
            yield before, RedrawnNumbers(before, after)

    def _redrawn_hits(
        self, replicates: int, seed: int
    ) -> Iterator[tuple[slice, dict[str, NDArray[np.float32]]]]:
        """Hits (r, K, C) by label on images drawn anew, some replicates at a time."""
        n_classes = len(self.class_names)
        # One stream a class, drawn on: the images drawn depend neither on the number of classifiers
        # nor on the memory.
        streams = [np.random.default_rng((seed, c)) for c in range(n_classes)]
        right = np.concatenate(list(self.hits.values())).astype(np.float32)  # (M, N)
        ends = np.cumsum([len(hits) for hits in self.hits.values()])[:-1]
        of_class = [np.flatnonzero(self.labels == c) for c in range(n_classes)]
        step = max(1, DRAWN // (len(right) * n_classes))
        for start in range(0, replicates, step):
            count = min(step, replicates - start)
            # Counts below 2^24 are exact in float32, whose products are the fastest.
            hits = np.zeros((count, len(right), n_classes), np.float32)
            for c, rows in enumerate(of_class):
                if len(rows):
                    shares = np.full(len(rows), 1 / len(rows))
                    times = streams[c].multinomial(len(rows), shares, size=count)
                    hits[:, :, c] = times.astype(np.float32) @ right[:, rows].T
            parts = np.split(hits, ends, axis=1)
            yield slice(start, start + count), dict(zip(self.hits, parts, strict=True))


def _measured(values: Floats, turned: Floats, bounds: tuple[float, float]) -> Measured:
    """Mean of values (K,), with its interval and that of the replicates (R,)."""
    mean = float(values.mean())
    images = Interval(*basic_interval(mean, turned, bounds))
    return Measured(mean, images, over_seeds(values, bounds), len(values))


def over_seeds(values: Floats, bounds: tuple[float, float] = ANYWHERE) -> Interval | None:
    """Student's interval of the mean of values (K,); None of a single one."""
    n_seeds = len(values)
    if n_seeds == 1:
        return None
    error = float(values.std(ddof=1)) / math.sqrt(n_seeds)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n_seeds - 1)) * error
    mean = float(values.mean())
    return Interval(max(mean - half, bounds[0]), min(mean + half, bounds[1]))
