"""Classes that can be predicted somewhere on the plane: the Pareto front of the heads' logits.

Legend: B rows, C classes, K heads, E entries (a row and one of its candidates).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ensemble import Logits
from pipeline.metrics import Bools, Floats

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Candidates:
    """Entries ordered by row, then by class; every row has one or more."""

    rows: Indices
    """(E,)"""

    classes: Indices
    """(E,)"""

    counts: Indices
    """(B,) candidates of each row."""

    @property
    def starts(self) -> Indices:
        """(B,) first entry of each row."""
        return np.cumsum(self.counts) - self.counts


def find_candidates(
    entries: tuple[Indices, Indices], logits: Sequence[Logits], margins: Sequence[float]
) -> Candidates:
    """The entries that are left when each row's dominated classes are taken out.

    A class is taken out when another one is above it by the margin in every head, for then its
    probability is lower in every head at every temperature, after rounding too; and when another
    one of lower index equals it in every head, for then both tie everywhere. What is left holds
    the prediction of every cell.

    Args:
        entries: rows and classes (E,) from `surviving`, which has taken out most.
        logits: (B, C) of each head.
        margins: of each head, see `Member.logit_margin`.
    """
    rows, classes = entries
    n_rows = len(logits[0])
    counts = np.bincount(rows, minlength=n_rows)
    many = np.flatnonzero(counts[rows] > 1)
    if many.size == 0:
        return Candidates(rows, classes, counts)
    values = np.stack([v[rows[many], classes[many]] for v in logits]).astype(np.float64)
    keep = np.ones(len(rows), bool)
    keep[many] = _peeled(rows[many], classes[many], values, margins)
    rows, classes = rows[keep], classes[keep]
    return Candidates(rows, classes, np.bincount(rows, minlength=n_rows))


def surviving(logits: Sequence[Logits], margins: Sequence[float]) -> tuple[Indices, Indices]:
    """Rows and classes (E,) that no head's own first choice dominates, in one pass."""
    index = np.arange(len(logits[0]))
    alive = np.ones(logits[0].shape, bool)
    for anchor in (v.argmax(axis=1) for v in logits):
        above = np.zeros(logits[0].shape, bool)
        for values, margin in zip(logits, margins, strict=True):
            np.logical_or(above, values > below(values[index, anchor], margin)[:, None], out=above)
        alive &= above
    rows, classes = np.nonzero(alive)
    return rows, classes


def below(values: NDArray[Any], margin: float) -> NDArray[Any]:
    """Numbers of the same type that are less than the values by the margin or a little more."""
    with np.errstate(over="ignore"):  # -inf lies below by any margin
        lower = (values.astype(np.float64) - margin).astype(values.dtype)
    lowest: NDArray[Any] = np.nextafter(lower, np.array(-np.inf, values.dtype))
    return lowest


def _peeled(rows: Indices, classes: Indices, values: Floats, margins: Sequence[float]) -> Bools:
    """Which entries (E,) stay, for values (K, E).

    Each round takes the highest sum of logits of every row, keeps it, and takes out what it
    dominates: as many rounds as the longest front has classes.
    """
    stays = np.zeros(len(rows), bool)
    left = np.arange(len(rows))
    with np.errstate(over="ignore"):
        scores = values.sum(axis=0)
    while left.size:
        starts = np.flatnonzero(np.diff(rows[left], prepend=-1))
        segment = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(left)))
        best = np.maximum.reduceat(scores[left], starts)[segment]
        firsts = np.flatnonzero(scores[left] == best)
        # Of equal sums the first entry leads, so that equal classes fall to the lowest index.
        _, at = np.unique(segment[firsts], return_index=True)
        leaders = left[firsts[at]]
        stays[leaders] = True
        leader = leaders[segment]
        beaten = np.ones(len(left), bool)
        equal = classes[leader] <= classes[left]
        for one, margin in zip(values, margins, strict=True):
            beaten &= below(one[leader], margin) >= one[left]
            equal &= one[leader] == one[left]
        left = left[~(beaten | equal)]
    return stays
