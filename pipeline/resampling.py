"""Images drawn anew within their classes, and statistics of several classifiers on them.

The one bootstrap of the project: stratified, since every class keeps its number of images; paired,
since all classifiers are measured on the same resampled images, so that what they share cancels;
and basic (Davison and Hinkley 1997, sec. 5.2). Resampling adds noise to every recall, which lowers
a harmonic mean: its replicates lie below the value found, as this lies below the truth. The basic
interval reflects the replicates around the value. Classes of few hits, and the lowest recall, are
not resampled: see `pipeline.small_counts` and `pipeline.intervals`.

`scipy.stats.bootstrap` draws the same replicates (a sample for each class, its rows shared by all
classifiers), but does not serve here: it copies every resampled row of every classifier where
counts are enough, its draws change with the memory it may use (`batch`), and its statistic is not
told which replicate it is in, without which a class of few hits has no level.

Legend: N images, C classes, K seeds of one classifier, M classifiers with all their seeds, R
replicates, r of them at a time, n images of one class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.intervals import basic_interval
from pipeline.metrics import (
    Bools,
    Floats,
    Ints,
    count_per_class,
    geometric_mean,
    harmonic_mean,
    recalls_of_hits,
)
from pipeline.small_counts import SmallCountLimits, small_count_limits

HELD = 2**22
"""Recalls of replicates in memory at a time (32 MiB)."""

DRAWN = 2**17
"""Images of one class drawn at a time (1 MiB), or one replicate's."""

MEANS = {"geometric_mean": geometric_mean, "harmonic_mean": harmonic_mean}

Counts = NDArray[np.float32]
"""Whole numbers: below 2^24 they are exact in float32, whose products are the fastest."""


class Numbers(Protocol):
    """Where a statistic finds its numbers: measured, resampled, or printed in the paper."""

    def metric(self, label: str, name: str) -> Floats:
        """A metric (..., K) of a classifier, in percent; KeyError where there is none."""

    def recalls(self, label: str) -> Floats:
        """Recalls (..., K, C) of a classifier, in percent; KeyError where there are none."""

    def limited_recalls(self, label: str) -> Floats:
        """The same, when resampled with classes of few hits at the ends of exact intervals."""


Statistic = Callable[[Numbers], Floats]
"""One number (..., K) for each seed."""


class RecallNumbers:
    """Numbers from recalls.

    Args:
        recalls: (..., K, C) in percent by label, NaN for classes without samples.
        class_samples: (C,) images of each class.
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

    def limited_recalls(self, label: str) -> Floats:
        """Recalls (..., K, C), the same: those that were measured have no limits."""
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


class LimitedNumbers(RecallNumbers):
    """What was measured, with classes of few hits at their limits in `limited_recalls`.

    Args:
        found: what was measured.
        limits: by label.
        rows: the replicates whose limits they are.
    """

    def __init__(
        self, found: RecallNumbers, limits: Mapping[str, SmallCountLimits], rows: slice
    ) -> None:
        super().__init__(found._recalls, found._samples)
        self._found = found
        self._limits = limits
        self._rows = rows

    def limited_recalls(self, label: str) -> Floats:
        """Recalls (r, K, C), or (K, C) where no class of the label has few hits."""
        return self._limits[label].applied(self._recalls[label], self._rows)

    def _computed(self, label: str, name: str) -> Floats:
        return self._found.metric(label, name)


class ResampledNumbers(LimitedNumbers):
    """The same on resampled images.

    A metric is as far from the one found, the other way, as the truth may be: reflected, a
    difference or a range of several such gives what these of the truth may be.

    Args:
        before: what these replicates were drawn from.
        recalls: (r, K, C) in percent by label.
    """

    def __init__(self, before: LimitedNumbers, recalls: Mapping[str, Floats]) -> None:
        super().__init__(before._found, before._limits, before._rows)
        self._before = before
        self._recalls = recalls

    def _computed(self, label: str, name: str) -> Floats:
        found = self._found.metric(label, name)
        if name == "lowest_recall":
            return np.asarray(2 * found - self._limits[label].lowest[self._rows])
        if name not in MEANS:
            return RecallNumbers._computed(self, label, name)
        drawn_from, drawn = (
            MEANS[name](numbers.limited_recalls(label)) for numbers in (self._before, self)
        )
        return np.asarray(2 * (found - drawn_from) + drawn)


@dataclass(frozen=True, eq=False)
class Classified:
    """Which of the same N images several classifiers get right."""

    hits: Mapping[str, Bools]
    """(K, N) for each seed, by the classifier's label."""

    labels: Ints
    """(N,) class of each image."""

    n_classes: int
    """C."""

    @property
    def class_samples(self) -> Ints:
        """(C,) images of each class."""
        return count_per_class(self.labels, self.n_classes)

    def class_hits(self, label: str) -> Ints:
        """Hits (K, C) of each class."""
        rows = [self.labels[right] for right in self.hits[label]]
        return np.stack([count_per_class(row, self.n_classes) for row in rows])

    def numbers(self) -> RecallNumbers:
        """What was measured, (K,) or (K, C) by label."""
        samples = self.class_samples
        recalls = {label: recalls_of_hits(self.class_hits(label), samples) for label in self.hits}
        return RecallNumbers(recalls, samples)

    def estimate(
        self,
        statistics: Sequence[Statistic],
        bounds: Sequence[tuple[float, float]],
        *,
        replicates: int,
        seed: int,
    ) -> list[tuple[Floats, tuple[float, float]]]:
        """Values (K,) of each statistic, and the 95 % interval of their mean over the images.

        Args:
            statistics: of the labels that have hits.
            bounds: between which each can lie.
            replicates: R.
            seed: of the draws.
        """
        numbers = self.numbers()
        found = [np.atleast_1d(statistic(numbers)) for statistic in statistics]
        reflected: list[list[Floats]] = [[] for _ in statistics]
        for before, after in self._resampled(numbers, replicates, seed):
            for kept, statistic in zip(reflected, statistics, strict=True):
                kept.append((2 * statistic(before) - statistic(after)).mean(axis=-1))
        return [
            (values, basic_interval(float(values.mean()), np.concatenate(kept), within))
            for values, kept, within in zip(found, reflected, bounds, strict=True)
        ]

    def _resampled(
        self, found: RecallNumbers, replicates: int, seed: int
    ) -> Iterator[tuple[LimitedNumbers, ResampledNumbers]]:
        """What some replicates were drawn from, and what they are.

        Classes of few hits are at the same limits on both sides, so that reflection leaves them
        there.
        """
        samples = self.class_samples
        limits = {
            label: small_count_limits(hits, self.class_hits(label), samples, replicates, seed)
            for label, hits in self.hits.items()
        }
        for rows, drawn in self._resampled_hits(replicates, seed):
            before = LimitedNumbers(found, limits, rows)
            after = {label: recalls_of_hits(hits, samples) for label, hits in drawn.items()}
            yield before, ResampledNumbers(before, after)

    def _resampled_hits(
        self, replicates: int, seed: int
    ) -> Iterator[tuple[slice, dict[str, Counts]]]:
        """Hits (r, K, C) by label on images drawn anew, some replicates at a time."""
        streams = [class_stream(seed, c) for c in range(self.n_classes)]
        right = np.concatenate(list(self.hits.values())).astype(np.float32)  # (M, N)
        ends = np.cumsum([len(hits) for hits in self.hits.values()])[:-1]
        order = np.argsort(self.labels, kind="stable")
        of_class = np.split(order, np.cumsum(self.class_samples)[:-1])
        step = max(1, HELD // (len(right) * self.n_classes))
        for start in range(0, replicates, step):
            count = min(step, replicates - start)
            hits = np.zeros((count, len(right), self.n_classes), np.float32)
            for c, rows in enumerate(of_class):
                own = right[:, rows].T
                for some, times in resample_class(streams[c], len(rows), count):
                    hits[some, :, c] = times @ own
            parts = np.split(hits, ends, axis=1)
            yield slice(start, start + count), dict(zip(self.hits, parts, strict=True))


def class_stream(seed: int, label: int) -> np.random.Generator:
    """The random numbers of one class.

    Each class has its own and draws on it replicate by replicate, so that the images drawn depend
    neither on the number of classifiers nor on the memory.
    """
    return np.random.default_rng((seed, label))


def resample_class(
    stream: np.random.Generator, n: int, replicates: int
) -> Iterator[tuple[slice, Counts]]:
    """How often (r, n) each of a class's n images is drawn, some replicates at a time.

    Args:
        stream: of `class_stream`.
        n: images of the class, drawn with replacement as often as there are of them.
        replicates: R.
    """
    step = max(1, DRAWN // max(n, 1))
    for start in range(0, replicates if n else 0, step):
        count = min(step, replicates - start)
        # Counting drawn places takes a fifth of the time of a multinomial draw.
        places = stream.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        times = np.bincount(places.ravel(), minlength=count * n).reshape(count, n)
        yield slice(start, start + count), times.astype(np.float32)
