"""Likelihood and calibration error of the ensemble in every cell.

Legend: B rows of a chunk, E entries (a row and one of its candidates), M bins of confidence, To and
Tn temperatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.calibration import N_BINS, confidence_bins
from pipeline.cores import available_cores
from pipeline.ensemble import LogitBlock, Logits
from pipeline.metrics import Bools, Floats, Ints
from pipeline.plane.candidates import Indices, find_candidates
from pipeline.plane.hits import HitPlane
from pipeline.plane.members import Member
from pipeline.plane.partitions import MakeChunk, NumpyChunk

CHUNK = 2**18
"""Logits of one head, and probabilities of one t_old, in one piece of work."""


@dataclass(frozen=True)
class ConfidencePlanes:
    """Both planes (To, Tn); their sums come from float32, so that five digits hold."""

    nll: Floats
    """Mean negative log-likelihood of the labels, in nats."""

    ece: Floats
    """Expected calibration error over `calibration.N_BINS` bins, in percent."""


def measure_confidence(
    blocks: Iterable[LogitBlock],
    members: Sequence[Member],
    hits: HitPlane,
    *,
    make_chunk: MakeChunk = NumpyChunk,
    threads: int | None = None,
) -> ConfidencePlanes:
    """Likelihood and calibration error of every cell.

    The highest probability of a cell is that of a candidate, so that a few classes a row do.

    Args:
        blocks: the logits on which the hits were collected.
        members: of `plane_members`, in the order of the heads.
        hits: which rows every cell gets right.
        make_chunk: the arithmetic.
        threads: chunks worked on at a time; the machine's cores where not given.
    """
    nll, gaps = np.zeros(hits.shape), np.zeros((*hits.shape, N_BINS))
    with ThreadPoolExecutor(threads or available_cores()) as pool:
        for batch in _batches(blocks, hits, 2 * (threads or available_cores())):
            work = [pool.submit(_sums, *piece, members, make_chunk) for piece in batch]
            for future in work:
                own_nll, own_gaps = future.result()
                nll += own_nll
                gaps += own_gaps
    n = len(hits.labels)
    return ConfidencePlanes(nll / n, 100 * np.abs(gaps).sum(axis=-1) / n)


_Piece = tuple[Ints, list[Logits], Bools]


def _batches(blocks: Iterable[LogitBlock], hits: HitPlane, size: int) -> Iterator[list[_Piece]]:
    """Labels, logits and hits (B, To, Tn) of chunks, a few chunks at a time."""
    done = 0
    batch: list[_Piece] = []
    for block in blocks:
        width = max(block.logits[0].shape[1], hits.n_cells)
        step = max(1, CHUNK // width)
        for start in range(0, len(block.labels), step):
            rows = slice(start, min(start + step, len(block.labels)))
            taken = _hits_of_rows(hits, done + rows.start, done + rows.stop)
            batch.append((block.labels[rows], [v[rows] for v in block.logits], taken))
            if len(batch) == size:
                yield batch
                batch = []
        done += len(block.labels)
    if batch:
        yield batch


def _hits_of_rows(hits: HitPlane, start: int, stop: int) -> Bools:
    """Hits (B, To, Tn) of the rows from start to stop."""
    found = np.repeat(hits.always[start:stop, None], hits.n_cells, axis=1)
    first, last = np.searchsorted(hits.varying, [start, stop])
    bits = np.unpackbits(hits.bits[first:last], axis=1, count=hits.n_cells)
    found[hits.varying[first:last] - start] = bits.view(bool)
    return found.reshape(-1, *hits.shape)


def _sums(
    labels: Ints,
    logits: Sequence[Logits],
    right: Bools,
    members: Sequence[Member],
    make_chunk: MakeChunk,
) -> tuple[Floats, Floats]:
    """Summed likelihoods (To, Tn), and confidence less hits by bin (To, Tn, M), of B rows."""
    chunk = make_chunk(logits)
    margins = [member.logit_margin for member in members]
    candidates = find_candidates(chunk.surviving(margins), logits, margins)
    rows = np.arange(len(labels))
    partitions = [chunk.partitions(h, rows, m.temperatures) for h, m in enumerate(members)]
    logs = _log_shares(logits, members, partitions, rows, labels)
    tops = [
        np.exp(side)
        for side in _log_shares(logits, members, partitions, candidates.rows, candidates.classes)
    ]
    n_old, n_new = right.shape[1:]
    nll, gaps = np.empty((n_old, n_new)), np.empty((n_old, n_new, N_BINS))
    for i in range(n_old):
        nll[i] = -np.logaddexp(logs[0][:, i, None], logs[1]).sum(axis=0)
        both = tops[0][:, i, None] + tops[1]
        confidence = np.maximum.reduceat(both, candidates.starts, axis=0)
        gaps[i] = _binned(confidence, right[:, i])
    return nll, gaps


def _log_shares(
    logits: Sequence[Logits],
    members: Sequence[Member],
    partitions: Sequence[Floats],
    rows: Indices,
    classes: Ints | Indices,
) -> tuple[Floats, Floats]:
    """Log of what either axis adds to the probability of a row's class: (E, To) and (E, Tn)."""
    total = sum(member.weight for member in members)
    sides: list[Floats | None] = [None, None]
    for values, member, sums in zip(logits, members, partitions, strict=True):
        own = values[rows, classes].astype(np.float64) - values.max(axis=1)[rows]
        with np.errstate(over="ignore"):
            logs = own[:, None] / member.temperatures - np.log(sums)[rows]
        logs += np.log(member.weight / total)
        before = sides[member.axis]
        sides[member.axis] = logs if before is None else np.logaddexp(before, logs)
    old, new = sides
    if old is None or new is None:
        raise ValueError("a plane has a head on either axis")
    return old, new


def _binned(confidence: Floats, right: Bools) -> Floats:
    """Confidence less hits (B, Tn), summed by cell and bin (Tn, M)."""
    n_cells = confidence.shape[1]
    bins = confidence_bins(confidence) + N_BINS * np.arange(n_cells)
    sums: Floats = np.bincount(bins.ravel(), (confidence - right).ravel(), n_cells * N_BINS).astype(
        np.float64
    )
    return sums.reshape(n_cells, N_BINS)
