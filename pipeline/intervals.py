"""Exact intervals of recalls, and of the lowest of many; the basic bootstrap interval.

*One recall*, of a class named in advance, has the interval of Clopper and Pearson (1934).

*The lowest of C recalls.* The truth is no lower than every class's lower end, without a correction
(Berger 1982: an intersection is refuted by one class), and no higher than the recall t at which so
low a class, or so many of them, would still be seen, were no class below t. A class that was
selected as the lowest has no other interval anywhere in this project.

`benchmarks/bootstrap_coverage.py` measures how often the intervals hold a known truth.

Legend: C classes, R levels or replicates, F some classes, G recalls tried.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONFIDENCE = 0.95

TRIED = np.linspace(0, 1, 513)[1:] ** 2
"""Lowest recalls (G,) tried, densest at zero; between them one interpolates."""

MOST_TIES = 64
"""Lowest classes that are counted together; fewer than there are make a bound wider, not wrong."""

MIDDLE = 0.5
"""Level below which ends are lower ones."""

NEGLIGIBLE = 1e-12
"""Chance below which a class is never the lowest."""


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


def lowest_interval(hits: Ints, samples: Ints) -> tuple[float, float]:
    """95 % interval of the lowest of C recalls, in percent, which heeds that it was selected.

    Args:
        hits: (C,)
        samples: (C,), zero for a class that has no recall, but not for all.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = lowest_ends(np.array([tail, 1 - tail]), hits, samples)
    # Many classes that share the lowest recall can put the truth just below it.
    found = 100 * float((hits[samples > 0] / samples[samples > 0]).min())
    return min(float(low), found), max(float(high), found)


def basic_interval(
    value: float, reflected: Floats, bounds: tuple[float, float]
) -> tuple[float, float]:
    """The interval of replicates (R,) reflected around what they were drawn from.

    It is stretched to hold the value itself, which can lie outside: a harmonic mean of many noisy
    recalls lies below the true one in nearly every sample.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(reflected, [tail, 1 - tail])
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
