"""Which samples every cell gets right: counted once, kept as bits, asked in many ways.

Legend: N rows of a split, V of them right in some cells and wrong in others, C classes, To and Tn
temperatures, cells = To * Tn in that order.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import IO

import numpy as np

from pipeline.cores import available_cores
from pipeline.ensemble import LogitBlock, Logits
from pipeline.metrics import Bools, Ints, count_per_class
from pipeline.plane.candidates import Candidates, Indices, find_candidates
from pipeline.plane.duels import Bits, Contenders, plane_size, won_cells
from pipeline.plane.members import Member
from pipeline.plane.partitions import MakeChunk, NumpyChunk

CHUNK = 2**20
"""Logits of one head in one piece of work (8 MiB in float64)."""

COUNTED_BYTES = 2**24
"""Hits unpacked or counted at a time (16 MiB)."""


@dataclass(frozen=True, eq=False)
class HitPlane:
    """Hits of N rows in every cell; rows that no temperature changes are kept as such."""

    shape: tuple[int, int]
    """To and Tn."""

    labels: Ints
    """(N,) class of each row."""

    n_classes: int
    """C."""

    always: Bools
    """(N,) rows that are right in every cell."""

    varying: Indices
    """(V,) rows that are right in some cells, ascending."""

    bits: Bits
    """(V, cells / 8) their hits, packed by `np.packbits`."""

    @property
    def n_cells(self) -> int:
        """To * Tn."""
        return self.shape[0] * self.shape[1]

    def rows(self, i: int, j: int) -> Bools:
        """(N,) which rows the cell (i, j) gets right."""
        byte, bit = divmod(i * self.shape[1] + j, 8)
        hits = self.always.copy()
        hits[self.varying] = (self.bits[:, byte] >> (7 - bit)) & 1
        return hits

    def counts(self, chosen: Bools | None = None) -> Iterator[tuple[slice, Ints]]:
        """Hits (n, C) of each class in the next n cells, over all rows or the chosen (N,)."""
        use = np.ones(len(self.labels), bool) if chosen is None else chosen
        constant = count_per_class(self.labels[self.always & use], self.n_classes)
        rows = np.flatnonzero(use[self.varying])
        labels = self.labels[self.varying[rows]]
        order = np.argsort(labels, kind="stable")
        rows, labels = rows[order], labels[order]
        starts = np.flatnonzero(np.diff(labels, prepend=-1))
        width = max(1, COUNTED_BYTES // (8 * max(len(rows), 8 * self.n_classes)))
        for first in range(0, self.bits.shape[1], width):
            cells = slice(8 * first, min(8 * (first + width), self.n_cells))
            counts = np.tile(constant, (cells.stop - cells.start, 1))
            if len(rows):
                hits = np.unpackbits(self.bits[rows, first : first + width], axis=1)
                sums = np.add.reduceat(hits, starts, axis=0, dtype=np.int32)
                counts[:, labels[starts]] += sums[:, : len(counts)].T
            yield cells, counts

    def of_class(self, label: int) -> tuple[Indices, int]:
        """Places of one class's rows in `bits`, and its rows always right."""
        rows = np.flatnonzero(self.labels[self.varying] == label)
        return rows, int(np.sum(self.always & (self.labels == label)))

    def unpacked(self, rows: Indices, cells: slice) -> Bits:
        """Hits (n, cells), 0 or 1, of some rows of `bits`; cells begin at a multiple of 8."""
        bits = self.bits[rows, cells.start // 8 : -(-cells.stop // 8)]
        return np.unpackbits(bits, axis=1, count=cells.stop - cells.start)


def collect_hits(
    blocks: Iterable[LogitBlock],
    members: Sequence[Member],
    n_classes: int,
    *,
    make_chunk: MakeChunk = NumpyChunk,
    threads: int | None = None,
    bit_bytes: int = 2**28,
    on_rows: Callable[[int], None] | None = None,
) -> HitPlane:
    """Find out where on the plane each row is right.

    Rows whose label is no candidate are wrong everywhere, and rows whose label is the only one are
    right everywhere: neither needs an exponential.

    Args:
        blocks: logits (B, C) of each head with labels, the old head first.
        members: of `plane_members`, in the order of the heads.
        n_classes: C.
        make_chunk: the arithmetic.
        threads: chunks worked on at a time; the machine's cores where not given.
        bit_bytes: memory for hits; more of them go to a temporary file.
        on_rows: called with the number of rows done, after each block.
    """
    workers = threads or available_cores()
    bits = _BitRows(-(-plane_size(members) // 8), bit_bytes)
    collected = _Collected(bits, on_rows)
    waiting: deque[tuple[Ints, list[Future[_Part]]]] = deque()
    with closing(bits), ThreadPoolExecutor(workers) as pool:
        for block in blocks:  # while the next one is read, the last one is worked on
            waiting.append((block.labels, _submit(pool, workers, block, members, make_chunk)))
            if len(waiting) > 1:
                collected.take(*waiting.popleft())
        while waiting:
            collected.take(*waiting.popleft())
        return collected.plane(members, n_classes)


@dataclass(frozen=True)
class _Part:
    """Hits of one chunk of B rows."""

    always: Bools
    """(B,) rows that are right in every cell."""

    varying: Indices
    """Rows that are right in some cells, ascending."""

    bits: Bits
    """Their hits, packed by `np.packbits`."""


class _Collected:
    """Hits of the rows so far.

    Args:
        bits: where the hits of rows go that are right in some cells; its caller closes it.
        on_rows: called with the number of rows so far, after each block.
    """

    def __init__(self, bits: _BitRows, on_rows: Callable[[int], None] | None) -> None:
        self._bits = bits
        self._on_rows = on_rows
        self._n_rows = 0
        self._labels: list[Ints] = []
        self._always: list[Bools] = []
        self._varying: list[Indices] = []

    def take(self, labels: Ints, parts: Sequence[Future[_Part]]) -> None:
        """Add the rows of one block: wait for the hits of its chunks, in order."""
        for part in (future.result() for future in parts):
            self._always.append(part.always)
            self._varying.append(self._n_rows + part.varying)
            self._bits.append(part.bits)
            self._n_rows += len(part.always)
        self._labels.append(labels)
        if self._on_rows is not None:
            self._on_rows(self._n_rows)

    def plane(self, members: Sequence[Member], n_classes: int) -> HitPlane:
        """All rows as one plane."""
        old, new = (len(next(m.temperatures for m in members if m.axis == axis)) for axis in (0, 1))
        return HitPlane(
            shape=(old, new),
            labels=np.concatenate(self._labels),
            n_classes=n_classes,
            always=np.concatenate(self._always),
            varying=np.concatenate(self._varying),
            bits=self._bits.array(),
        )


def _submit(
    pool: ThreadPoolExecutor,
    workers: int,
    block: LogitBlock,
    members: Sequence[Member],
    make_chunk: MakeChunk,
) -> list[Future[_Part]]:
    """Start the work on a block, in pieces that keep every thread busy."""
    n_rows, n_classes = block.logits[0].shape
    most = min(CHUNK // n_classes, 8 * COUNTED_BYTES // plane_size(members))
    size = max(1, min(most, -(-n_rows // (2 * workers))))
    return [
        pool.submit(
            _hits_of_chunk,
            block.labels[start : start + size],
            [values[start : start + size] for values in block.logits],
            members,
            make_chunk,
        )
        for start in range(0, n_rows, size)
    ]


def _hits_of_chunk(
    labels: Ints, logits: Sequence[Logits], members: Sequence[Member], make_chunk: MakeChunk
) -> _Part:
    """Hits of B rows."""
    chunk = make_chunk(logits)
    margins = [member.logit_margin for member in members]
    candidates = find_candidates(chunk.surviving(margins), logits, margins)
    contenders, always = _label_contenders(labels, candidates)
    bits = won_cells(chunk, logits, members, candidates, contenders)
    some = bits.any(axis=1)
    return _Part(always, contenders.rows[some], bits[some])


def _label_contenders(labels: Ints, candidates: Candidates) -> tuple[Contenders, Bools]:
    """Contenders of the labels that have rivals, and the rows (B,) whose label has none."""
    entries = np.flatnonzero(candidates.classes == labels[candidates.rows])
    rows = candidates.rows[entries]
    alone = candidates.counts[rows] == 1
    always = np.zeros(len(labels), bool)
    always[rows[alone]] = True
    entries = entries[~alone]
    return Contenders(candidates.rows[entries], candidates.classes[entries], entries), always


class _BitRows:
    """Rows of bits that grow in memory up to a limit, and in a temporary file beyond it."""

    def __init__(self, width: int, limit: int) -> None:
        self._width = width
        self._limit = limit
        self._parts: list[Bits] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def append(self, bits: Bits) -> None:
        """Add rows (n, width)."""
        self._bytes += bits.nbytes
        if self._file is not None:
            self._file.write(bits.tobytes())
            return
        self._parts.append(bits)
        if self._bytes > self._limit:
            self._file = tempfile.TemporaryFile(prefix="nolb-hits-")  # noqa: SIM115  # kept open
            for part in self._parts:
                self._file.write(part.tobytes())
            self._parts = []

    def array(self) -> Bits:
        """All rows."""
        if self._file is None:
            return np.concatenate([np.zeros((0, self._width), np.uint8), *self._parts])
        self._file.flush()
        shape = (self._bytes // self._width, self._width)
        # The map keeps the contents reachable when the file is closed.
        return np.memmap(self._file, np.uint8, "r", shape=shape)

    def close(self) -> None:
        """Let go of the file, which goes when no map of it is left."""
        if self._file is not None:
            self._file.close()
