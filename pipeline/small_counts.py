"""Limits of recalls of few hits, which the bootstrap cannot resample.

The bootstrap knows a class by its own images. A class without a hit has none in any replicate, and
one of two hits has recalls of 0 to 5 of 20: a harmonic mean or a minimum follows such classes alone
and its bootstrap interval then misses the truth, by far.

A class with fewer than `ENOUGH_HITS` hits is therefore not resampled. It is put at an end of its
exact interval (Clopper and Pearson 1934): at the lower end of a random level in half of the
replicates, at the upper one in the others, all such classes of a classifier alike, as no image says
how they go together. This is the confidence distribution of one recall (Fay, Proschan and Brittain
2015, who combine such distributions the same way). Every other class is resampled, so that
intervals are the bootstrap's own where all classes have enough hits.

Legend: N rows, C classes, K seeds of one classifier, R replicates, F classes of few hits over all
seeds.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from pipeline.intervals import exact_ends, lowest_ends
from pipeline.metrics import ZERO_SUBSTITUTE, Bools, Floats, Ints

ENOUGH_HITS = 5
"""Hits from which on a class is resampled. From 3 on intervals hold a known truth equally often;
with 5 they are about the narrowest (100 classes of 50 images, recalls of Beta(2, 3): 24 points with
3, 12 with 5, 17 with 8 and 23 with 12; `benchmarks.bootstrap_coverage --enough H`)."""


def have_few_hits(hits: Ints, samples: Ints) -> Bools:
    """Which classes (..., C) have samples (..., C), and fewer hits (..., C) than enough."""
    return np.asarray((hits < ENOUGH_HITS) & (samples > 0))


def few_ends(levels: Floats, hits: Ints, samples: Ints) -> Floats:
    """The same (R, F) for means: above zero, but lower than what stands for zero, counts as that.

    Else a class with one hit could count less than one without.
    """
    # Many classes share the few pairs that there are, and each costs an incomplete beta function.
    pairs, of_class = np.unique(hits * (samples.max(initial=0) + 1) + samples, return_inverse=True)
    kinds = divmod(pairs, samples.max(initial=0) + 1)
    ends = exact_ends(levels, *kinds)[:, of_class.ravel()]
    return np.where(ends > 0, np.maximum(ends, 100 * ZERO_SUBSTITUTE), ends)


@dataclass(frozen=True, eq=False)
class SmallCountLimits:
    """Recalls of a classifier's classes of few hits, and its lowest recall, in every replicate."""

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
        limited = np.array(np.broadcast_to(recalls, (len(ends), *self.few.shape)))
        limited[:, self.few] = ends
        return limited


def small_count_limits(
    right: Bools, hits: Ints, samples: Ints, replicates: int, seed: int
) -> SmallCountLimits:
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
    return SmallCountLimits(few, few_ends(levels, hits[few], at), np.stack(lowest, axis=1))
