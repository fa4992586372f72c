"""Intervals of the metrics of several classifiers, and the cells that noise cannot tell apart.

Both resample images as `pipeline.resampling` says; classes of few hits have the limits of
`pipeline.small_counts`.

Legend: N rows, C classes, M classifiers, R replicates, To and Tn temperatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cache.records import Count, Result, read
from cache.strict_json import JSON
from pipeline.intervals import CONFIDENCE, lowest_interval
from pipeline.metrics import IN_PERCENT, ZERO_SUBSTITUTE, Bools, Floats, Ints, count_per_class
from pipeline.plane.hits import HitPlane
from pipeline.resampling import Classified, Statistic, class_stream, resample_class
from pipeline.small_counts import ENOUGH_HITS, few_ends, have_few_hits

EQUAL = 1e-9
"""Distance in percent up to which two metrics are the same."""

TILE = 2**21
"""Replicates of cells summed at a time (8 MiB)."""

CELLS_COMPARED = 256
"""Cells at most whose pairs are compared to find how far apart chance alone puts two."""

ROWS_UNPACKED = 512
"""Rows of a class unpacked at a time."""


@dataclass(frozen=True)
class Estimate:
    """A metric, or a difference of two, with its 95 % interval, in percent."""

    value: float
    """On the samples themselves."""

    low: float
    """Lower end of the interval."""

    high: float
    """Upper end."""

    def to_json(self) -> list[float]:
        """Value, low and high."""
        return [self.value, self.low, self.high]

    @classmethod
    def from_json(cls, value: object, where: str) -> Estimate:
        """What `to_json` wrote; `where` names it in the StoreFormatError of what is not so."""
        return cls(*read(value, tuple[float, float, float], where))


@dataclass(frozen=True)
class Bootstrap(Result):
    """How sure the metrics of M classifiers on one split are."""

    split: str
    """Split whose rows were resampled."""

    replicates: Count
    """R."""

    values: Mapping[str, Mapping[str, Estimate]]
    """By classifier and metric."""

    differences: Mapping[str, Mapping[str, Estimate]]
    """The first classifier less each other, by that one's name and metric."""

    few_hits: Mapping[str, Count] = field(default_factory=dict)
    """Classes with fewer than `ENOUGH_HITS` hits, by classifier; those without any are left out."""

    @property
    def note(self) -> str:
        """What makes intervals wide, in a sentence; empty where nothing does."""
        if not self.few_hits:
            return ""
        named = ", ".join(f"{name} ({n})" for name, n in self.few_hits.items())
        return (
            f"Classes with fewer than {ENOUGH_HITS} hits make the intervals of both means wide: "
            f"{named}. More {self.split} images of them would narrow these."
        )

    def to_json(self) -> dict[str, JSON]:
        """Plain JSON values; an estimate is [value, low, high]."""
        return {**super().to_json(), "confidence": CONFIDENCE}


def paired_bootstrap(
    hits: Mapping[str, Bools], labels: Ints, n_classes: int, split: str, *,
    replicates: int, seed: int,
) -> Bootstrap:  # fmt: skip
    """Intervals of the metrics of M classifiers, and of the first one's lead over the others.

    Args:
        hits: (N,) which rows each classifier gets right, by its name.
        labels: (N,) class of each row.
        n_classes: C.
        split: where the rows come from.
        replicates: R.
        seed: of the draws.
    """
    names = list(hits)
    classified = Classified({name: hits[name][None] for name in names}, labels, n_classes)
    cells = [(name, metric) for name in names for metric in IN_PERCENT]
    leads = [(name, metric) for name in names[1:] for metric in IN_PERCENT]
    found = classified.estimate(
        [_metric(*cell) for cell in cells] + [_lead(names[0], *lead) for lead in leads],
        [(0, 100)] * len(cells) + [(-100, 100)] * len(leads),
        replicates=replicates, seed=seed,
    )  # fmt: skip
    estimates = [Estimate(float(values.mean()), *interval) for values, interval in found]
    values = _by_name(cells, estimates)
    samples, few = classified.class_samples, {}
    for name in names:
        (counts,) = classified.class_hits(name)
        lowest = values[name]["lowest_recall"].value
        # The levels of the replicates come close to these ends, which every other table has.
        values[name]["lowest_recall"] = Estimate(lowest, *lowest_interval(counts, samples))
        if n_few := int(have_few_hits(counts, samples).sum()):
            few[name] = n_few
    differences = _by_name(leads, estimates[len(cells) :])
    return Bootstrap(split, replicates, values, differences, few)


def _metric(name: str, metric: str) -> Statistic:
    """A metric of one classifier."""
    return lambda numbers: numbers.metric(name, metric)


def _lead(first: str, name: str, metric: str) -> Statistic:
    """The first classifier's metric less another's."""
    return lambda numbers: numbers.metric(first, metric) - numbers.metric(name, metric)


def _by_name(
    cells: Sequence[tuple[str, str]], estimates: Sequence[Estimate]
) -> dict[str, dict[str, Estimate]]:
    """Estimates by classifier and metric."""
    table: dict[str, dict[str, Estimate]] = {}
    for (name, metric), estimate in zip(cells, estimates, strict=False):
        table.setdefault(name, {})[metric] = estimate
    return table


def cells_within_noise(
    hits: HitPlane, best: tuple[int, int], *, replicates: int, seed: int
) -> Bools:
    """Cells (To, Tn) whose harmonic mean cannot be told from the best cell's.

    The best cell is best by chance too. Its lead over a cell, in standard errors, is therefore held
    against the largest that resampling alone puts between any two cells: of equally good ones all
    are kept in 95 % of the samples or more (multiple comparisons with the best, Hsu 1981, by the
    studentised range of the bootstrap as in Hansen, Lunde and Nason 2011, sec. 3.1.2).

    Resampling moves a mean by its slope: replicates of the mean itself now and then lose the last
    hit of a class, and one that falls to a tenth hides every other difference. Leads are those of
    1 / recall estimated by (n + 1) / (hits + 1), which is right on average but for classes of few
    hits (Chao and Strawderman 1972); n / hits is too high. Classes of few hits stand at the lower
    ends of their 95 % intervals in the best cell, at the upper ends in the others.

    Args:
        hits: which rows every cell gets right.
        best: indices of the best cell.
        replicates: R.
        seed: of the draws.
    """
    best_at = best[0] * hits.shape[1] + best[1]
    samples = count_per_class(hits.labels, hits.n_classes)
    inverses = _sums_of_inverses(hits, samples)
    means = 100 * np.sum(samples > 0) / inverses
    # A mean of sum S falls by mean / S for each unit that S rises.
    slopes = (means / inverses).astype(np.float32)
    differences = _null_differences(hits, samples, replicates, seed)
    lead = means[0, best_at] - means[1]
    low = differences[:, best_at] * slopes[0, best_at]
    errors = np.array(
        [
            np.sqrt(np.mean((low - differences[:, cell] * slopes[1, cell]) ** 2))
            for cell in range(len(lead))
        ]
    )
    step = -(-hits.n_cells // CELLS_COMPARED)
    some = slice(best_at % step, None, step)  # neighbours are alike
    largest = _studentised_range(
        differences[:, some] * slopes[0, some], differences[:, some] * slopes[1, some]
    )
    # The last digits of equal recalls may differ by the order of their sum.
    within = lead <= largest * errors + EQUAL
    within[best_at] = True
    return np.asarray(within).reshape(hits.shape)


def _studentised_range(low: NDArray[np.float32], high: NDArray[np.float32]) -> float:
    """The largest lead of one cell over another, in standard errors, that 5 % of replicates exceed.

    Args:
        low: (R, n) what resampling adds to the cells that lead.
        high: (R, n) the same of those behind.
    """
    largest = np.zeros(len(low), np.float32)
    for cell in range(low.shape[1]):
        leads = low[:, cell, None] - high
        errors = np.sqrt(np.mean(leads**2, axis=0))
        apart = errors > EQUAL
        if apart.any():
            np.maximum(largest, (leads[:, apart] / errors[apart]).max(axis=1), out=largest)
    return float(np.quantile(largest, CONFIDENCE))


def _sums_of_inverses(hits: HitPlane, samples: Ints) -> Floats:
    """Sums (2, cells) over the classes of 1 / recall, with few hits at lower and at upper ends."""
    tail = (1 - CONFIDENCE) / 2
    sums = np.empty((2, hits.n_cells))
    for cells, counts in hits.counts():
        few = have_few_hits(counts, samples)
        sizes = np.broadcast_to(samples, counts.shape)
        inverses = np.where(sizes > 0, (sizes + 1.0) / (counts + 1), 0.0)
        ends = few_ends(np.array([tail, 1 - tail]), counts[few], sizes[few]) / 100
        for total, at in zip(sums, np.maximum(ends, ZERO_SUBSTITUTE), strict=True):
            inverses[few] = 1 / at
            total[cells] = inverses.sum(axis=1)
    return sums


def _null_differences(
    hits: HitPlane, samples: Ints, replicates: int, seed: int
) -> NDArray[np.float32]:
    """What resampling takes off the sum of 1 / recall (R, cells), to first order.

    Classes of few hits are not resampled. The draws depend on seed and class alone.
    """
    differences = np.zeros((replicates, hits.n_cells), np.float32)
    width = max(8, TILE // replicates // 8 * 8)
    for start in range(0, hits.n_cells, width):
        cells = slice(start, min(start + width, hits.n_cells))
        for label in np.flatnonzero(samples).tolist():
            n = int(samples[label])
            right = _resampled_hits(hits, label, cells, class_stream(seed, label), replicates)
            rows, always = hits.of_class(label)
            found = always + hits.unpacked(rows, cells).sum(axis=0, dtype=np.int64)
            slope = np.where(
                have_few_hits(found, samples[label]), 0.0, n / np.maximum(found, 1) ** 2
            )
            differences[:, cells] += (right - found.astype(np.float32)) * slope.astype(np.float32)
    return differences


def _resampled_hits(
    hits: HitPlane, label: int, cells: slice, stream: np.random.Generator, replicates: int
) -> NDArray[np.float32]:
    """Hits (R, cells) of one class on its rows drawn anew."""
    rows, _ = hits.of_class(label)
    own = np.flatnonzero(hits.labels == label)
    always, places = hits.always[own], np.searchsorted(own, hits.varying[rows])
    right = np.zeros((replicates, cells.stop - cells.start), np.float32)
    for some, times in resample_class(stream, len(own), replicates):
        right[some] = times[:, always].sum(axis=1)[:, None]
        for start in range(0, len(rows), ROWS_UNPACKED):
            part = slice(start, start + ROWS_UNPACKED)
            unpacked = hits.unpacked(rows[part], cells).astype(np.float32)
            right[some] += times[:, places[part]] @ unpacked
    return right
