"""The sums Z that turn exponentials into probabilities, and the arithmetic that computes them.

Nearly all the time of a sweep goes here: an exponential for each class, head and temperature. They
are computed in float32, and their error is part of the intervals of `duels`.

Legend: B rows of a chunk, R of them asked for, C classes, T temperatures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from pipeline.ensemble import Logits
from pipeline.metrics import Floats
from pipeline.plane.candidates import Indices, surviving

PARTITION_ERROR = 2.0**-16
"""Bound on the relative error of Z in float32, for any number of classes up to a million.

With u = 2^-24: the exponent x = s / t carries 3 u |x| (difference, reciprocal, product), which
moves Z by at most 3 u times the mean of |x| under the softmax; that mean is below the entropy, so
below log C < 14: 42 u. exp itself: 4 u or less, taken as 8 u. Adding C numbers in pairs above runs
of 128: (16 + log2 C) u < 36 u. Together below 90 u; the bound is 256 u."""

ROUGH_RANGE = (2.0**-20, 2.0**20)
"""Temperatures whose reciprocal and products float32 holds; outside, float64 computes Z."""

CACHED = 2**16
"""Numbers in the working array of one step: 256 KiB in float32, a part of the second cache."""


class Chunk(Protocol):
    """Rows of logits on the device that computes."""

    def surviving(self, margins: Sequence[float]) -> tuple[Indices, Indices]:
        """See `candidates.surviving`."""

    def partitions(self, head: int, rows: Indices, temperatures: Floats) -> Floats:
        """(R, T) sums of exp((logit - largest) / t) over the classes, to `PARTITION_ERROR`."""


MakeChunk = Callable[[Sequence[Logits]], Chunk]
"""Puts the logits (B, C) of every head where they are computed on."""


class NumpyChunk:
    """Logits in memory, computed on by NumPy; several threads may work on chunks at a time."""

    def __init__(self, logits: Sequence[Logits]) -> None:
        self._logits = logits

    def surviving(self, margins: Sequence[float]) -> tuple[Indices, Indices]:
        """Compare blocks that fit the cache."""
        step = max(1, CACHED // self._logits[0].shape[1])
        parts = []
        for start in range(0, len(self._logits[0]), step):
            rows, classes = surviving([v[start : start + step] for v in self._logits], margins)
            parts.append((rows + start, classes))
        rows_parts, classes_parts = zip(*parts, strict=True)
        return np.concatenate(rows_parts), np.concatenate(classes_parts)

    def partitions(self, head: int, rows: Indices, temperatures: Floats) -> Floats:
        """Add up block by block, each at all temperatures while it is in the cache."""
        logits = self._logits[head]
        step = max(1, CACHED // logits.shape[1])
        sums = np.empty((len(rows), len(temperatures)))
        for start in range(0, len(rows), step):
            taken = rows[start : start + step]
            _add_up(logits[taken], temperatures, sums[start : start + step])
        return sums


def _add_up(logits: Logits, temperatures: Floats, sums: Floats) -> None:
    """Write the sums (R, T) of a small block (R, C)."""
    tops = logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # to -inf, where the exponential is 0 as it should be
        rough = (logits - tops).astype(np.float32, copy=False)
        out = np.empty_like(rough)
        for k, t in enumerate(temperatures.tolist()):
            if ROUGH_RANGE[0] <= t <= ROUGH_RANGE[1]:
                np.multiply(rough, np.float32(1 / t), out=out)
                np.exp(out, out=out)
                sums[:, k] = out.sum(axis=1)
            else:
                exact = (logits.astype(np.float64) - tops) / t
                sums[:, k] = np.exp(exact).sum(axis=1)
