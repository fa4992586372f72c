"""Intervals where few images decide: recalls of few hits, and the lowest of many recalls.

The bootstrap knows a class by its own images. A class without a hit has none in any replicate, and
one of two hits has recalls of 0 to 5 of 20: a harmonic mean or a minimum follows such classes alone
and its bootstrap interval then misses the truth, by far. Two rules mend that.

*Few hits.* A class with fewer than `ENOUGH_HITS` hits is not redrawn from its images. It is put at
an end of its exact interval (Clopper and Pearson 1934): at the lower end of a random level in half
of the replicates, at the upper one in the others, all such classes of a classifier alike, as no
image says how they go together. This is the confidence distribution of one recall (Fay, Proschan
and Brittain 2015, who combine such distributions the same way). Every other class is redrawn, so
that intervals are the bootstrap's own where all classes have enough hits.

*The lowest of C recalls.* The truth is no lower than every class's lower end, without a correction
(Berger 1982: an intersection is refuted by one class), and no higher than the recall t at which so
low a class, or so many of them, would still be seen, were no class below t.

`benchmarks/bootstrap_coverage.py` measures how often the intervals hold a known truth.

Legend: N rows, C classes, K seeds of one classifier, R replicates, F classes of few hits over all
seeds, G recalls tried.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, betaincinv

from pipeline.metrics import ZERO_SUBSTITUTE, Bools, Floats, Ints

CONFIDENCE = 0.95

ENOUGH_HITS = 5
"""Hits from which on a class is redrawn. From 3 on intervals hold a known truth alike; with 5 they
are about the narrowest (100 classes of 50 images, recalls of Beta(2, 3): 24 points with 3, 12 with
5, 17 with 8 and 23 with 12; `benchmarks.bootstrap_coverage --enough H`)."""

TRIED = np.linspace(0, 1, 513)[1:] ** 2
"""Lowest recalls (G,) tried, densest at zero; between them one interpolates."""

MOST_TIES = 64
"""Lowest classes that are counted together; fewer than there are make a bound wider, not wrong."""

MIDDLE = 0.5
"""Level below which ends are lower ones."""

NEGLIGIBLE = 1e-12
"""Chance below which a class is never the lowest."""


def have_few_hits(hits: Ints, samples: Ints) -> Bools:
    """Which classes (..., C) have samples (..., C), and fewer hits (..., C) than enough."""
    return np.asarray((hits < ENOUGH_HITS) & (samples > 0))


def exact_ends(levels: Floats, hits: Ints, samples: Ints) -> Floats:
    """Recalls (R, F) in percent that classes have at levels (R,) of their confidence distribution.

    Levels below one half are lower ends: the truth lies below with at most that chance. Those above
    are upper ends: it lies below with at least that chance.

    Args:
        levels: (R,) between 0 and 1; 0.025 and 0.975 are the ends of a 95 % interval.
        hits: (F,)
        samples: (F,) above zero.
    """
    level = levels[:, None]
    lower = np.where(hits == 0, 0.0, betaincinv(np.maximum(hits, 1), samples - hits + 1.0, level))
    rest = np.maximum(samples - hits, 1)
    upper = np.where(hits == samples, 1.0, betaincinv(hits + 1.0, rest, level))
    return np.asarray(100 * np.where(level < MIDDLE, lower, upper))


def few_ends(levels: Floats, hits: Ints, samples: Ints) -> Floats:
    """The same (R, F) for means: above zero, but lower than what stands for zero, counts as that.

    Else a class with one hit could count less than one without.
    """
    # Many classes share the few pairs that there are, and each costs an incomplete beta function.
    pairs, of_class = np.unique(hits * (samples.max(initial=0) + 1) + samples, return_inverse=True)
    kinds = divmod(pairs, samples.max(initial=0) + 1)
    ends = exact_ends(levels, *kinds)[:, of_class.ravel()]
    return np.where(ends > 0, np.maximum(ends, 100 * ZERO_SUBSTITUTE), ends)


def lowest_ends(levels: Floats, hits: Ints, samples: Ints) -> Floats:
    """Lowest recalls (R,) in percent at levels (R,), as `exact_ends` of one class.

    Args:
        levels: (R,) between 0 and 1.
        hits: (C,)
        samples: (C,), zero for a class that has no recall.
    """
    hits, samples = hits[samples > 0], samples[samples > 0]
    sizes = np.unique(samples)
    fewest = np.array([hits[samples == n].min() for n in sizes])
    lower = exact_ends(np.minimum(levels, np.nextafter(MIDDLE, 0)), fewest, sizes).min(axis=1)
    if np.array_equal(hits, samples):
        return np.where(levels < MIDDLE, lower, 100.0)
    chances = _chances_of_so_low(hits, samples)
    upper = 100 * np.interp(1 - levels, chances[::-1], TRIED[::-1])
    return np.where(levels < MIDDLE, lower, upper)


@dataclass(frozen=True, eq=False)
class Caution:
    """Where a classifier's classes of few hits and its lowest recall lie, in every replicate."""

    few: Bools
    """(K, C) classes of few hits."""

    ends: Floats
    """(R, F) their recalls, in percent."""

    lowest: Floats
    """(R, K) the lowest recall, in percent."""

    def applied(self, recalls: Floats, rows: slice) -> Floats:
        """Recalls (r, K, C) of some replicates with classes of few hits put at their ends.

        Args:
            recalls: (r, K, C), or (K, C) for the same in all; as they are without such classes.
            rows: which replicates they are.
        """
        if not self.few.any():
            return recalls
        ends = self.ends[rows]
        cautious = np.array(np.broadcast_to(recalls, (len(ends), *self.few.shape)))
        cautious[:, self.few] = ends
        return cautious


def caution(right: Bools, hits: Ints, samples: Ints, replicates: int, seed: int) -> Caution:
    """Draw levels for one classifier; two that are right on the same rows have the same ones.

    Args:
        right: (K, N) rows that it gets right with each seed.
        hits: (K, C) the same counted by class.
        samples: (C,) rows of each class.
        replicates: R.
        seed: of the levels.
    """
    generator = np.random.default_rng((seed, zlib.crc32(np.packbits(right).tobytes())))
    # Every level once, so that their own chance adds no noise to an interval.
    levels = (generator.permutation(replicates) + 0.5) / replicates
    few = have_few_hits(hits, samples)
    at = np.broadcast_to(samples, hits.shape)[few]
    lowest = [lowest_ends(levels, row, samples) for row in hits]
    return Caution(few, few_ends(levels, hits[few], at), np.stack(lowest, axis=1))


def basic_interval(
    value: float, turned: Floats, bounds: tuple[float, float]
) -> tuple[float, float]:
    """The interval of replicates (R,) turned over around what they were drawn from.

    It is stretched to hold the value itself, which can lie outside: a harmonic mean of many noisy
    recalls lies below the true one in nearly every sample.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(turned, [tail, 1 - tail])
    low, high = np.clip([min(low, value), max(high, value)], *bounds)
    return float(low), float(high)


def _chances_of_so_low(hits: Ints, samples: Ints) -> Floats:
    """Chances (G,), at most, of a lowest class as low as found, were no recall below `TRIED`.

    Classes are ordered by the upper ends of their 95 % intervals, which is the order of their
    recalls where all have the same number of samples. Of several that share the lowest end the
    chance is that so many do, or that any is lower. Each recall is taken as low as it can be: at
    the one tried or at its own lower end.
    """
    tail = (1 - CONFIDENCE) / 2
    ends = exact_ends(np.array([tail, 1 - tail]), hits, samples) / 100
    lowest = float(ends[1].min())
    as_low = _most_hits(samples, lowest, tail * (1 + 1e-6))
    lower = _most_hits(samples, lowest, tail * (1 - 1e-6))
    ties = min(int((hits <= as_low).sum()), MOST_TIES)
    near = _chance_of_at_most(as_low, samples, ends[0]) > NEGLIGIBLE
    recalls = np.maximum(TRIED[:, None], ends[0][near])
    some = _chance_of_at_most(as_low[near], samples[near], recalls)
    chance = _chance_of_several(some, ties)
    if ties > 1:
        any_lower = _chance_of_at_most(lower[near], samples[near], recalls)
        chance = chance + _chance_of_several(any_lower, 1)
    return np.asarray(np.minimum(chance, 1))


def _most_hits(samples: Ints, end: float, tail: float) -> Ints:
    """Most hits (C,) of a class whose upper end is at most as high; -1 where none is so low."""
    most = {n: int((bdtr(np.arange(n), n, end) <= tail).sum()) - 1 for n in set(samples.tolist())}
    return np.array([most[n] for n in samples.tolist()])


def _chance_of_at_most(hits: Ints, samples: Ints, recalls: Floats) -> Floats:
    """Chance (..., C) of at most so many hits (C,), 0 for -1, at recalls (..., C)."""
    return np.asarray(np.where(hits < 0, 0.0, bdtr(np.maximum(hits, 0), samples, recalls)))


def _chance_of_several(chances: Floats, least: int) -> Floats:
    """Chance (G,) that at least so many of C independent events of chances (G, C) happen."""
    fewer = np.zeros((len(chances), least))  # chances of exactly 0, 1 ... events so far
    fewer[:, 0] = 1
    for c in range(chances.shape[1]):
        happens = fewer * chances[:, c, None]
        fewer -= happens
        fewer[:, 1:] += happens[:, :-1]
    return np.asarray(1 - fewer.sum(axis=1))
