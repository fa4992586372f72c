"""Training rows that stay in their store: read in random pieces, mixed in a buffer.

The pieces are runs of consecutive rows that are read at full speed. In every epoch their order is
drawn anew; as many as the buffer holds are mixed row by row, and mini-batches are drawn from the
mixture. Class-balanced and class-aware sampling need rows of every class at any time, so part of
the buffer is a reserve: all rows of small classes, and a random choice of larger ones.
N training rows, C classes, D feature width, V views, B batch rows.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache import Split
from pipeline.config import FitConfig
from pipeline.errors import FitError
from pipeline.samplers import SAMPLERS
from pipeline.solvers import Batch, seeded_generator, with_settings

PIECES = 32
"""Pieces that a buffer mixes, at least: images of one class often stand together in a list."""

SPARE_BYTES = 192 << 20
"""Left for what is neither features nor known before: labels, a step, what torch and zarr load when
they are first used, and what allocators keep. Measured by `benchmarks/memory.py`."""

COPIES = 4
"""Times that a piece or a shard lies in memory while it is read: as stored, decoded, checked,
converted."""


@dataclass(frozen=True)
class Plan:
    """How the buffer is used."""

    buffer_rows: int
    """Rows that are mixed."""

    reserve_rows: int
    """Rows of the reserve, 0 where the sampler needs none."""

    piece_rows: int
    """Rows that are read at once."""


def plan_for(
    available: int, split: Split, width: int, n_classes: int, config: FitConfig, read_bytes: int
) -> Plan:
    """Share out memory.

    Args:
        available: bytes for all of it.
        split: the training split.
        width: D.
        n_classes: C.
        config: settings; the sampler decides on the reserve.
        read_bytes: bytes of the largest part of the store that is verified at once.

    Raises:
        FitError: if the memory does not suffice, saying how much would.
    """
    row_bytes = 4 * width
    needs_reserve = config.sampler != "instance"
    # A mini-batch is copied out of the buffer; a piece is read before it goes in.
    fixed = SPARE_BYTES + COPIES * read_bytes + 4 * config.batch_size * row_bytes
    least = 4 * PIECES * config.batch_size // 8 + (2 * n_classes if needs_reserve else 0)
    rows = (available - fixed) // row_bytes
    if rows < least:
        short = (fixed + least * row_bytes - available) / 2**20
        raise FitError(
            f"The memory does not suffice: --memory must be at least {short:,.0f} MiB larger for "
            "features of this width and shards of this size (smaller ones: nolb store convert "
            "--shard-rows)."
        )
    reserve = rows // 2 if needs_reserve else 0
    buffer = min(rows - reserve, split.n_samples)
    return Plan(buffer, reserve, max(1, min(buffer // PIECES, read_bytes // row_bytes)))


class StreamedRows:
    """Usable rows of a training split, of which a buffer's worth is in memory at any time.

    Args:
        split: the split.
        n_views: stored views that take part beside the clean features.
        n_classes: C.
        width: D.
        plan: how the buffer is used.
        config: settings of the fit.
        device: where mini-batches are wanted.
    """

    def __init__(
        self,
        split: Split,
        n_views: int,
        n_classes: int,
        width: int,
        plan: Plan,
        config: FitConfig,
        device: torch.device,
    ) -> None:
        self._split = split
        self._n_versions = 1 + n_views
        self._plan = plan
        self._config = config
        self._device = device
        self._labels = torch.from_numpy(np.array(split.labels))
        self.n_rows = int(split.usable.sum())
        self._batch_draws = seeded_generator(config.seed, "batches")
        self._version_draws = seeded_generator(config.seed, "versions")
        self._buffer = torch.empty(plan.buffer_rows, width)
        self._pieces = _pieces(split, plan.piece_rows)
        self._reserve = self._choose_reserve(n_classes, width) if plan.reserve_rows else None

    def epoch(self) -> Iterator[Batch]:
        """The mini-batches of the next epoch, ceil(N / batch_size) of them."""
        if self._reserve is None:
            return self._by_instance()
        return self._by_class()

    def _by_instance(self) -> Iterator[Batch]:
        """Every row once: the buffer is shuffled, and what is left of it goes into the next."""
        n_steps = -(-self.n_rows // self._config.batch_size)
        size, larger = divmod(self.n_rows, n_steps)
        left = self._buffer[:0].clone(), self._labels[:0]
        step = 0
        for rows, features in self._buffers():
            order = torch.randperm(len(rows), generator=self._batch_draws)
            labels = self._labels[rows]
            start = 0
            while step < n_steps:
                stop = start + size + (step < larger) - len(left[0])
                if stop > len(order):
                    break
                taken = order[start:stop]
                yield self._moved(
                    torch.cat([left[0], features[taken]]), torch.cat([left[1], labels[taken]])
                )
                left = left[0][:0], left[1][:0]
                start, step = stop, step + 1
            rest = order[start:]
            left = torch.cat([left[0], features[rest]]), torch.cat([left[1], labels[rest]])

    def _by_class(self) -> Iterator[Batch]:
        """Steps from the buffer and the reserve, in proportion to the rows that are read."""
        assert self._reserve is not None, "chosen where the sampler needs it"  # noqa: S101
        sampler = with_settings(SAMPLERS[self._config.sampler], self._config)
        n_steps = -(-self.n_rows // self._config.batch_size)
        step = seen = 0
        for rows, features in self._buffers():
            self._reserve.refresh(rows, features)
            fresh = torch.from_numpy(~self._reserve.holds(rows.numpy())).nonzero().squeeze(1)
            labels = torch.cat([self._reserve.labels, self._labels[rows[fresh]]])
            seen += len(rows)
            due = n_steps if seen == self.n_rows else seen * n_steps // self.n_rows
            while step < due:
                for batch in sampler(labels, self._config.batch_size, self._batch_draws):
                    if step == due:
                        break
                    kept = batch < len(self._reserve.labels)
                    chosen = self._buffer.new_empty(len(batch), self._buffer.shape[1])
                    chosen[kept] = self._reserve.features[batch[kept]]
                    chosen[~kept] = features[fresh[batch[~kept] - len(self._reserve.labels)]]
                    yield self._moved(chosen, labels[batch])
                    step += 1

    def _moved(self, features: Tensor, labels: Tensor) -> Batch:
        return features.to(self._device), labels.to(self._device)

    def _buffers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (n,) of the split and their features (n, D): all usable rows, a buffer at a time.

        The features are those of one version for each piece, drawn anew in every epoch: the views
        of different images have nothing to do with each other, so nothing is lost by drawing for
        all images of a piece at once, and only one version is read.
        """
        order = torch.randperm(len(self._pieces), generator=self._batch_draws)
        versions = torch.randint(
            self._n_versions, (len(self._pieces),), generator=self._version_draws
        )
        rows: list[NDArray[np.int64]] = []
        filled = 0
        for number in order.tolist():
            start, stop = self._pieces[number]
            usable = start + np.flatnonzero(self._split.usable[start:stop])
            if filled + len(usable) > len(self._buffer):
                yield torch.from_numpy(np.concatenate(rows)), self._buffer[:filled]
                rows, filled = [], 0
            features = self._split.version(int(versions[number]), start, stop)[usable - start]
            self._buffer[filled : filled + len(usable)] = torch.from_numpy(
                features.astype(np.float32, copy=False)
            )
            filled += len(usable)
            rows.append(usable)
        if filled:
            yield torch.from_numpy(np.concatenate(rows)), self._buffer[:filled]

    def _choose_reserve(self, n_classes: int, width: int) -> _Reserve:
        """Choose rows of every class, the same number where it has as many, and read them."""
        generator = seeded_generator(self._config.seed, "reserve")
        labels = self._labels.numpy()
        usable = np.flatnonzero(self._split.usable)
        counts = np.bincount(labels[usable], minlength=n_classes)
        each = _level(counts, self._plan.reserve_rows)
        shuffled = usable[torch.randperm(len(usable), generator=generator).numpy()]
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
        starts = np.cumsum(counts) - counts
        chosen = np.sort(
            np.concatenate(
                [by_class[s : s + min(n, each)] for s, n in zip(starts, counts, strict=True)]
            )
        )
        reserve = _Reserve(chosen, self._labels[chosen], torch.empty(len(chosen), width))
        for start, stop in self._pieces:
            inside = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, stop)]
            if len(inside):
                features = self._split.version(0, start, stop)[inside - start]
                reserve.refresh(torch.from_numpy(inside), torch.from_numpy(
                    features.astype(np.float32, copy=False)))  # fmt: skip
        return reserve


@dataclass(frozen=True)
class _Reserve:
    """Rows that stay in memory."""

    rows: NDArray[np.int64]
    """(R,) sorted rows of the split."""

    labels: Tensor
    """(R,)."""

    features: Tensor
    """(R, D), of the version that was read last."""

    def holds(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) whether the reserve has these rows."""
        at = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        held: NDArray[np.bool_] = self.rows[at] == rows
        return held

    def refresh(self, rows: Tensor, features: Tensor) -> None:
        """Take over the version of its own rows that has just been read."""
        held = torch.from_numpy(self.holds(rows.numpy()))
        at = np.searchsorted(self.rows, rows[held].numpy())
        self.features[torch.from_numpy(at)] = features[held]


def _level(counts: NDArray[np.int64], total: int) -> int:
    """Largest number n for which the classes' first n rows together are no more than `total`."""
    low, high = 1, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        if int(np.minimum(counts, middle).sum()) <= total:
            low = middle
        else:
            high = middle - 1
    return low


def _pieces(split: Split, piece_rows: int) -> list[tuple[int, int]]:
    """Runs of rows, none of which crosses from one shard into the next."""
    return [
        (start, min(start + piece_rows, record.stop))
        for record in split.records
        for start in range(record.start, record.stop, piece_rows)
    ]


def resident_bytes() -> int:
    """Memory that this process has now, or where the system does not tell, has had at most."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
