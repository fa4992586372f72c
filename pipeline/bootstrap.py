"""Uncertainty by the bootstrap, stratified by class: every class keeps its number of samples.

Classifiers are compared on the same resampled rows (paired), so that what both get right or wrong
does not blur their difference.

Resampling adds noise to every recall, which lowers a harmonic mean: its replicates lie below the
value found, as this lies below the truth. The intervals are therefore the basic ones (Davison and
Hinkley 1997, sec. 5.2), which turn the replicates over around the value. Classes of few hits, and
the lowest recall, are not the bootstrap's: see `pipeline.intervals`.

Legend: N rows, C classes, M classifiers, R replicates, U patterns of right and wrong among the
classifiers, To and Tn temperatures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.intervals import (
    CONFIDENCE,
    ENOUGH_HITS,
    Caution,
    basic_interval,
    caution,
    few_ends,
    have_few_hits,
)
from pipeline.metrics import (
    ZERO_SUBSTITUTE,
    Bools,
    Floats,
    Ints,
    count_per_class,
    geometric_mean,
    harmonic_mean,
    recalls_of_hits,
)
from pipeline.plane.hits import HitPlane

COMPARED = ("accuracy", "geometric_mean", "harmonic_mean", "lowest_recall")

EQUAL = 1e-9
"""Distance in percent up to which two metrics are the same."""

DRAWN = 2**21
"""Numbers drawn at a time (16 MiB)."""

CELLS_COMPARED = 256
"""Cells at most whose pairs are compared to find how far apart luck alone puts two."""

ROWS_DRAWN = 512
"""Rows of a class drawn at a time."""


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


@dataclass(frozen=True)
class Bootstrap:
    """How sure the metrics of M classifiers on one split are."""

    split: str
    """Split whose rows were resampled."""

    replicates: int
    """R."""

    values: Mapping[str, Mapping[str, Estimate]]
    """By classifier and metric."""

    differences: Mapping[str, Mapping[str, Estimate]]
    """The first classifier less each other, by that one's name and metric."""

    few_hits: Mapping[str, int] = field(default_factory=dict)
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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; an estimate is [value, low, high]."""
        plain = [
            {name: {k: e.to_json() for k, e in rows.items()} for name, rows in table.items()}
            for table in (self.values, self.differences)
        ]
        return {
            "split": self.split, "replicates": self.replicates, "confidence": CONFIDENCE,
            "values": plain[0], "differences": plain[1],
            "few_hits": dict(self.few_hits),
        }  # fmt: skip


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
    samples = count_per_class(labels, n_classes)
    right = np.stack([hits[name] for name in names], axis=1)
    counts = _class_hits(right, labels, n_classes)
    cautions = [
        caution(right[None, :, m], row[None], samples, replicates, seed)
        for m, row in enumerate(counts)
    ]
    found = _metrics(recalls_of_hits(counts, samples), samples)
    turned = np.concatenate(
        [
            _turned(counts, drawn, samples, cautions, rows)
            for rows, drawn in _resampled(right, labels, n_classes, replicates, seed)
        ]
    )
    values = {name: _estimates(found[m], turned[:, m], 0) for m, name in enumerate(names)}
    differences = {
        name: _estimates(found[0] - found[m], turned[:, 0] - turned[:, m], -100)
        for m, name in enumerate(names)
        if m > 0
    }
    few = {name: int(have_few_hits(counts[m], samples).sum()) for m, name in enumerate(names)}
    few = {name: n for name, n in few.items() if n}
    return Bootstrap(split, replicates, values, differences, few)


def cells_within_noise(
    hits: HitPlane, best: tuple[int, int], *, replicates: int, seed: int
) -> Bools:
    """Cells (To, Tn) whose harmonic mean cannot be told from the best cell's.

    The best cell is best by luck too. Its lead over a cell, in standard errors, is therefore held
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
    luck = _luck(hits, samples, replicates, seed)
    lead = means[0, best_at] - means[1]
    low = luck[:, best_at] * slopes[0, best_at]
    errors = np.array(
        [
            np.sqrt(np.mean((low - luck[:, cell] * slopes[1, cell]) ** 2))
            for cell in range(len(lead))
        ]
    )
    step = -(-hits.n_cells // CELLS_COMPARED)
    some = slice(best_at % step, None, step)  # neighbours are alike
    largest = _studentised_range(luck[:, some] * slopes[0, some], luck[:, some] * slopes[1, some])
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


def _class_hits(right: Bools, labels: Ints, n_classes: int) -> Ints:
    """Hits (M, C) of each class, of right rows (N, M)."""
    return np.stack([count_per_class(labels[m], n_classes) for m in right.T])


def _metrics(recalls: Floats, samples: Ints, cautious: Floats | None = None) -> Floats:
    """The metrics `COMPARED` (..., 4) of recalls (..., C).

    Args:
        recalls: (..., C) in percent.
        samples: (C,)
        cautious: (..., C) the same with classes of few hits at their ends, for the two means.
    """
    of_means = recalls if cautious is None else cautious
    accuracy = np.nansum(recalls * samples, axis=-1) / samples.sum()
    means = geometric_mean(of_means), harmonic_mean(of_means)
    return np.stack([accuracy, *means, np.nanmin(recalls, axis=-1)], axis=-1)


def _turned(
    found: Ints, drawn: Ints, samples: Ints, cautions: list[Caution], rows: slice
) -> Floats:
    """Metrics (r, M, 4) of replicates, turned over around those of the hits found.

    Args:
        found: (M, C) hits.
        drawn: (r, M, C) hits of some replicates.
        samples: (C,)
        cautions: M of them.
        rows: which replicates they are.
    """
    turned = np.empty((*drawn.shape[:2], len(COMPARED)))
    for m, careful in enumerate(cautions):
        before = recalls_of_hits(found[m], samples)[None]
        after = recalls_of_hits(drawn[:, m], samples)
        if careful.few.any():
            before = np.broadcast_to(before, after.shape)
        cautious = [careful.applied(one[:, None], rows)[:, 0] for one in (before, after)]
        ends = (
            _metrics(one, samples, of) for one, of in zip((before, after), cautious, strict=True)
        )
        turned[:, m] = 2 * next(ends) - next(ends)
        turned[:, m, COMPARED.index("lowest_recall")] = careful.lowest[rows, 0]
    return turned


def _resampled(
    right: Bools, labels: Ints, n_classes: int, replicates: int, seed: int
) -> Iterator[tuple[slice, Ints]]:
    """Hits (r, M, C) of replicates, some at a time, and which they are.

    Rows of a class with the same pattern of right and wrong are alike, so that a replicate is one
    multinomial draw of pattern counts for each class.
    """
    generator = np.random.default_rng(seed)
    patterns, of_row = np.unique(right, axis=0, return_inverse=True)
    n_patterns = len(patterns)
    table = count_per_class(labels * n_patterns + of_row.ravel(), n_classes * n_patterns)
    table = table.reshape(n_classes, n_patterns)
    samples = table.sum(axis=1)
    shares = table / np.maximum(samples, 1)[:, None]
    shares[samples == 0, 0] = 1.0  # nothing is drawn there, but shares must add up to 1
    step = max(1, DRAWN // table.size)
    for start in range(0, replicates, step):
        size = (min(step, replicates - start), n_classes)
        drawn = generator.multinomial(samples, shares, size=size)
        hits = np.swapaxes(drawn @ patterns.astype(np.int64), 1, 2)
        yield slice(start, start + size[0]), hits


def _estimates(found: Floats, turned: Floats, lowest: float) -> dict[str, Estimate]:
    """Estimates of the metrics, which lie between `lowest` and 100, from (4,) and (R, 4)."""
    return {
        name: Estimate(
            float(found[k]), *basic_interval(float(found[k]), turned[:, k], (lowest, 100))
        )
        for k, name in enumerate(COMPARED)
    }


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


def _luck(hits: HitPlane, samples: Ints, replicates: int, seed: int) -> NDArray[np.float32]:
    """What resampling takes off the sum of 1 / recall (R, cells), to first order.

    Classes of few hits are not resampled. The draws depend on seed and class alone.
    """
    luck = np.zeros((replicates, hits.n_cells), np.float32)
    width = max(8, DRAWN // replicates // 8 * 8)
    for start in range(0, hits.n_cells, width):
        cells = slice(start, min(start + width, hits.n_cells))
        for label in np.flatnonzero(samples).tolist():
            n = int(samples[label])
            generator = np.random.default_rng((seed, label))
            right = _redrawn_hits(hits, label, n, cells, generator, replicates)
            rows, always = hits.of_class(label)
            found = always + hits.unpacked(rows, cells).sum(axis=0, dtype=np.int64)
            slope = np.where(
                have_few_hits(found, samples[label]), 0.0, n / np.maximum(found, 1) ** 2
            )
            luck[:, cells] += (right - found.astype(np.float32)) * slope.astype(np.float32)
    return luck


def _redrawn_hits(
    hits: HitPlane,
    label: int,
    n: int,
    cells: slice,
    generator: np.random.Generator,
    replicates: int,
) -> NDArray[np.float32]:
    """Hits (R, cells) of one class when its n rows are drawn anew; some rows at a time."""
    rows, always = hits.of_class(label)
    # Counts below 2^24 are exact in float32, whose products are the fastest.
    right = np.zeros((replicates, cells.stop - cells.start), np.float32)
    to_draw, undrawn = np.full(replicates, n), n
    for start in range(0, len(rows), ROWS_DRAWN):
        some = rows[start : start + ROWS_DRAWN]
        here = generator.binomial(to_draw, len(some) / undrawn)
        times = generator.multinomial(here, np.full(len(some), 1 / len(some)))
        right += times.astype(np.float32) @ hits.unpacked(some, cells).astype(np.float32)
        to_draw, undrawn = to_draw - here, undrawn - len(some)
    if always:
        right += generator.binomial(to_draw, always / undrawn).astype(np.float32)[:, None]
    return right
