"""Where on the plane a class beats its rivals: a comparison in each cell, certain or undecided.

Legend: R contenders (a row and a class that may win it), P pairs of a contender and a rival, K
heads, To and Tn temperatures, cells = To * Tn in that order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ensemble import Logits, mixture_predictions
from pipeline.metrics import Floats
from pipeline.plane.candidates import Candidates, Indices
from pipeline.plane.members import MARGIN, Member
from pipeline.plane.partitions import PARTITION_ERROR, Chunk

Bits = NDArray[np.uint8]

WORK_BYTES = 2**25
"""Memory for what a thread compares or evaluates at a time (32 MiB)."""

RIVALS_UP_TO = 256
"""Candidates of a row up to which they are compared in pairs. More are left only where temperatures
are so high that rounding decides; there every cell is evaluated directly."""


@dataclass(frozen=True)
class Contenders:
    """R contenders in the order of their rows."""

    rows: Indices
    """(R,)"""

    classes: Indices
    """(R,)"""

    entries: Indices
    """(R,) their places among the candidates."""


def won_cells(
    chunk: Chunk,
    logits: Sequence[Logits],
    members: Sequence[Member],
    candidates: Candidates,
    contenders: Contenders,
) -> Bits:
    """Cells (R, cells / 8) that each contender wins, packed by `np.packbits`.

    Args:
        chunk: the rows on the device that computes.
        logits: the same rows (B, C) of each head.
        members: the heads' temperatures and weights.
        candidates: of every row.
        contenders: which classes to follow, all of them candidates.
    """
    n_cells = plane_size(members)
    won = np.zeros((len(contenders.rows), -(-n_cells // 8)), np.uint8)
    open_ = np.zeros_like(won)
    counts = candidates.counts[contenders.rows]
    open_[counts > RIVALS_UP_TO] = np.packbits(np.ones(n_cells, bool))
    fought = np.flatnonzero(counts <= RIVALS_UP_TO)
    for part in _parts(fought, counts, members):
        some = Contenders(contenders.rows[part], contenders.classes[part], contenders.entries[part])
        pair_contenders, rivals = _pairs(candidates, some)
        sides = _sides(chunk, logits, members, some, pair_contenders, rivals)
        certain, possible = _compare(sides, pair_contenders)
        won[part], open_[part] = certain, possible & ~certain
    _settle(won, open_, logits, members, contenders)
    return won


def plane_size(members: Sequence[Member]) -> int:
    """Number of cells, To * Tn."""
    old, new = _axis_sizes(members)
    return old * new


def _axis_sizes(members: Sequence[Member]) -> tuple[int, int]:
    """To and Tn."""
    sizes = {member.axis: len(member.temperatures) for member in members}
    return sizes[0], sizes[1]


def _parts(fought: Indices, counts: Indices, members: Sequence[Member]) -> Iterator[Indices]:
    """Runs of contenders whose pairs fit the memory for comparisons, one contender at least."""
    pairs = np.cumsum(counts[fought] - 1)
    # A pair needs two flags for each cell, and about eight numbers for each temperature.
    limit = max(1, WORK_BYTES // (2 * plane_size(members) + 64 * sum(_axis_sizes(members))))
    start = 0
    while start < len(fought):
        done = pairs[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(pairs, done + limit, side="right")))
        yield fought[start:stop]
        start = stop


def _pairs(candidates: Candidates, contenders: Contenders) -> tuple[Indices, Indices]:
    """Contender (P,) and rival class (P,) of each pair, in the order of the contenders."""
    counts = candidates.counts[contenders.rows]
    pair_contenders = np.repeat(np.arange(len(counts)), counts)
    firsts = (candidates.starts[contenders.rows] - (np.cumsum(counts) - counts))[pair_contenders]
    entries = firsts + np.arange(len(pair_contenders))
    rivals = entries != contenders.entries[pair_contenders]
    return pair_contenders[rivals], candidates.classes[entries[rivals]]


@dataclass(frozen=True)
class _Side:
    """What a pair's contender is ahead by on one axis (P, T), as an interval."""

    low: Floats
    high: Floats


def _sides(
    chunk: Chunk,
    logits: Sequence[Logits],
    members: Sequence[Member],
    contenders: Contenders,
    pair_contenders: Indices,
    rivals: Indices,
) -> tuple[_Side, _Side]:
    """How far each contender is ahead of each rival, for the heads of either axis."""
    rows, at = np.unique(contenders.rows, return_inverse=True)
    sides = [_Side(*np.zeros((2, len(pair_contenders), size))) for size in _axis_sizes(members)]
    for head, (values, member) in enumerate(zip(logits, members, strict=True)):
        scale = member.weight / chunk.partitions(head, rows, member.temperatures)
        tops = values[contenders.rows].max(axis=1).astype(np.float64)
        mine = _exponentials(values[contenders.rows, contenders.classes], tops, member)
        theirs = _exponentials(
            values[contenders.rows[pair_contenders], rivals], tops[pair_contenders], member
        )  # fmt: skip
        mine, scale = mine[pair_contenders], scale[at[pair_contenders]]
        ahead = (mine - theirs) * scale
        # Z stretches the difference as a whole; the exponentials err each on their own.
        doubt = np.abs(ahead) * (2 * PARTITION_ERROR) + (mine + theirs) * scale * (2 * MARGIN)
        np.add(sides[member.axis].low, ahead - doubt, out=sides[member.axis].low)
        np.add(sides[member.axis].high, ahead + doubt, out=sides[member.axis].high)
    return sides[0], sides[1]


def _exponentials(logits: Logits, tops: Floats, member: Member) -> Floats:
    """exp((logit - largest) / t) of logits (P,) at all temperatures (P, T)."""
    with np.errstate(over="ignore"):
        exponents = (logits.astype(np.float64) - tops)[:, None] / member.temperatures
    return np.asarray(np.exp(exponents))


def _compare(sides: tuple[_Side, _Side], pair_contenders: Indices) -> tuple[Bits, Bits]:
    """Cells (R, cells / 8) where a contender is ahead of all rivals for certain, and perhaps."""
    old, new = sides
    n_pairs = len(pair_contenders)
    firsts = np.flatnonzero(np.diff(pair_contenders, prepend=-1))
    certain = old.low[:, :, None] > -new.low[:, None, :]
    possible = old.high[:, :, None] >= -new.high[:, None, :]
    both = [np.packbits(cells.reshape(n_pairs, -1), axis=1) for cells in (certain, possible)]
    if len(firsts) < n_pairs:
        both = [np.bitwise_and.reduceat(bits, firsts, axis=0) for bits in both]
    return both[0], both[1]


def _settle(
    won: Bits,
    open_: Bits,
    logits: Sequence[Logits],
    members: Sequence[Member],
    contenders: Contenders,
) -> None:
    """Evaluate the undecided cells directly and write them down."""
    n_cells, n_new = plane_size(members), _axis_sizes(members)[1]
    step = max(1, WORK_BYTES // (64 * logits[0].shape[1]))  # eight numbers for each class
    weights = [member.weight for member in members]
    doubtful = np.flatnonzero(open_.any(axis=1))
    group = max(1, WORK_BYTES // (4 * n_cells))
    for some in (doubtful[k : k + group] for k in range(0, len(doubtful), group)):
        found = np.unpackbits(won[some], axis=1, count=n_cells)
        at, cells = np.nonzero(np.unpackbits(open_[some], axis=1, count=n_cells))
        for start in range(0, len(at), step):
            part = slice(start, start + step)
            contender, cell = some[at[part]], cells[part]
            steps = (cell // n_new, cell % n_new)
            predictions = mixture_predictions(
                [v[contenders.rows[contender]] for v in logits],
                [member.temperatures[steps[member.axis]] for member in members],
                weights,
            )
            found[at[part], cell] = predictions == contenders.classes[contender]
        won[some] = np.packbits(found, axis=1)
