"""Uncertainty by the bootstrap, stratified by class: every class keeps its number of samples.

Classifiers are compared on the same resampled rows (paired), so that what both get right or wrong
does not blur their difference.

Resampling adds noise to every recall, which lowers a harmonic mean or a minimum: their replicates
lie below the value found, as this lies below the truth. The intervals are therefore the basic ones
(Davison and Hinkley 1997, sec. 5.2), which turn the replicates over around the value. Where the
truth is known (`benchmarks/bootstrap_coverage.py`, 100 classes of 100 images), those of the
harmonic mean hold it in 97 % of the draws, plain percentiles in 42 %. Of the lowest recall it is
81 % and 43 %: a minimum over a hundred noisy recalls is the hardest to bound.

Legend: N rows, C classes, M classifiers, R replicates, U patterns of right and wrong among the
classifiers, To and Tn temperatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import (
    ZERO_SUBSTITUTE,
    Bools,
    Floats,
    Ints,
    count_per_class,
    geometric_mean,
    harmonic_mean,
    lowest_class,
    recalls_of_hits,
)
from pipeline.plane.hits import HitPlane

COMPARED = ("accuracy", "geometric_mean", "harmonic_mean", "lowest_recall")
CONFIDENCE = 0.95

EQUAL = 1e-9
"""Distance in percent up to which two metrics are the same."""

DRAWN = 2**21
"""Numbers drawn at a time (16 MiB)."""

ROWS_DRAWN = 512
"""Rows of a class drawn at a time."""


@dataclass(frozen=True)
class Estimate:
    """A metric, or a difference of two, with its 95 % interval, in percent."""

    value: float
    """On the samples themselves."""

    low: float
    """Lower end of the basic bootstrap interval."""

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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; an estimate is [value, low, high]."""
        plain = [
            {name: {k: e.to_json() for k, e in rows.items()} for name, rows in table.items()}
            for table in (self.values, self.differences)
        ]
        return {
            "split": self.split, "replicates": self.replicates, "confidence": CONFIDENCE,
            "values": plain[0], "differences": plain[1],
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
    right = np.stack([hits[name] for name in names], axis=1)
    found = _metrics(_class_hits(right, labels, n_classes), labels, n_classes)[0]
    drawn = np.concatenate(
        [
            _metrics(counts, labels, n_classes)
            for counts in _resampled(right, labels, n_classes, replicates, seed)
        ]
    )
    values = {name: _estimates(found[m], drawn[:, m], 0) for m, name in enumerate(names)}
    differences = {
        name: _estimates(found[0] - found[m], drawn[:, 0] - drawn[:, m], -100)
        for m, name in enumerate(names)
        if m > 0
    }
    return Bootstrap(split, replicates, values, differences)


def cells_within_noise(
    hits: HitPlane, best: tuple[int, int], *, replicates: int, seed: int
) -> Bools:
    """Cells (To, Tn) whose harmonic mean cannot be told from the best cell's.

    Those are the cells to which the best one's lead has an interval that holds 0, as the intervals
    of `paired_bootstrap` are made: a cell is told apart where the two would be told apart if they
    were the only ones compared.

    Args:
        hits: which rows every cell gets right.
        best: indices of the best cell.
        replicates: R.
        seed: of the draws.
    """
    best_at = best[0] * hits.shape[1] + best[1]
    counts = count_per_class(hits.labels, hits.n_classes)
    found = harmonic_mean(
        np.concatenate([recalls_of_hits(some, counts) for _, some in hits.counts()])
    )  # fmt: skip
    first = 8 * (best_at // 8)
    own = slice(first, min(first + 8, hits.n_cells))
    of_best = _harmonic_means(hits, own, replicates, seed)[:, best_at - first, None]
    within = np.empty(hits.n_cells, bool)
    rank = round((1 + CONFIDENCE) / 2 * (replicates - 1))
    width = max(8, DRAWN // replicates // 8 * 8)
    for start in range(0, hits.n_cells, width):
        cells = slice(start, min(start + width, hits.n_cells))
        lead = of_best - _harmonic_means(hits, cells, replicates, seed)
        high = np.partition(lead, rank, axis=0)[rank]
        # The last digits of equal recalls may differ by the order of their sum.
        within[cells] = 2 * (found[best_at] - found[cells]) - high <= EQUAL
    return within.reshape(hits.shape)


def _class_hits(right: Bools, labels: Ints, n_classes: int) -> Ints:
    """Hits (1, C, M) of each class."""
    return np.stack([count_per_class(labels[m], n_classes) for m in right.T], axis=1)[None]


def _metrics(hits: Ints, labels: Ints, n_classes: int) -> Floats:
    """The metrics `COMPARED` (R, M, 4) of hits (R, C, M)."""
    samples = count_per_class(labels, n_classes)
    by_class = np.moveaxis(hits, 1, -1)
    recalls = recalls_of_hits(by_class, samples)
    lowest = np.take_along_axis(recalls, lowest_class(recalls)[..., None], axis=-1)[..., 0]
    accuracy = 100.0 * by_class.sum(axis=-1) / samples.sum()
    means = geometric_mean(recalls), harmonic_mean(recalls)
    return np.stack([accuracy, *means, lowest], axis=-1)


def _resampled(
    right: Bools, labels: Ints, n_classes: int, replicates: int, seed: int
) -> list[Ints]:
    """Hits (r, C, M) of replicates, some at a time.

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
    parts = []
    for start in range(0, replicates, step):
        size = (min(step, replicates - start), n_classes)
        drawn = generator.multinomial(samples, shares, size=size)
        parts.append(np.asarray(drawn @ patterns.astype(np.int64)))
    return parts


def _estimates(found: Floats, drawn: Floats, lowest: float) -> dict[str, Estimate]:
    """Estimates of the metrics, which lie between `lowest` and 100, from (4,) and (R, 4)."""
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(drawn, [1 - tail, tail], axis=0)
    low, high = np.clip(2 * found - ends, lowest, 100)
    return {
        name: Estimate(float(found[k]), float(low[k]), float(high[k]))
        for k, name in enumerate(COMPARED)
    }


def _harmonic_means(hits: HitPlane, cells: slice, replicates: int, seed: int) -> Floats:
    """Harmonic means (R, n) of n cells; the draws depend on seed and class alone."""
    inverses = np.zeros((replicates, cells.stop - cells.start))
    samples = count_per_class(hits.labels, hits.n_classes)
    present = np.flatnonzero(samples)
    for label in present.tolist():
        n = int(samples[label])
        right = _redrawn_hits(
            hits, label, n, cells, np.random.default_rng((seed, label)), replicates
        )
        np.copyto(right, np.float32(ZERO_SUBSTITUTE * n), where=right == 0)
        inverses += np.divide(np.float32(n), right, out=right)
    return 100 * len(present) / inverses


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
