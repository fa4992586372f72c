"""Training rows that do not fit the memory: in a scratch file, read as they are drawn.

The store is read once, shard by shard, and its usable rows go uncompressed into a file without a
name in the temporary folder. A row in there is one read away, which in a chunked store costs a
whole chunk; so the mini-batches can be exactly those of a fit in memory. The alternative, mixing a
buffer of consecutive runs of rows, reads less and fits worse: image folders list class by class,
and a buffer a hundredth of the store never holds most classes (62 % accuracy became 36 %).
N training rows, C classes, D feature width, V views, B batch rows.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache import Split
from cache.closable import Closable
from pipeline.errors import FitError
from pipeline.fitting.rows import LinearMap
from pipeline.fitting.shares import ALONE, Batch, IndexBatch, Share

SPARE_BYTES = 192 << 20
"""Left for what is neither features nor known before: labels, a step, what torch and zarr load when
they are first used, and what allocators keep. Measured by `benchmarks/memory.py`."""

COPIES = 4
"""Times that a shard lies in memory while it is read: as stored, decoded, checked, converted."""

READERS = 8
"""Rows that are asked of the disk at the same time: a solid-state disk answers many at once."""


def buffer_rows(
    available: int, width: int, batch_size: int, read_bytes: int, head_bytes: int = 0
) -> int:
    """Rows that may be read ahead of the steps.

    Args:
        available: bytes for all that is not in memory yet.
        width: D.
        batch_size: B.
        read_bytes: bytes of the largest part of the store that is verified at once.
        head_bytes: bytes of the heads, of what their optimiser keeps and of a step's logits.

    Raises:
        FitError: if the memory does not suffice, saying how much more would.
    """
    row_bytes = 4 * width
    fixed = SPARE_BYTES + COPIES * read_bytes + head_bytes
    rows = (available - fixed) // (2 * row_bytes)  # as read, and as its mini-batch
    if rows < batch_size:
        short = (fixed + 2 * batch_size * row_bytes - available) / 2**20
        raise FitError(
            f"The memory does not suffice: --memory must be {short:,.0f} MiB larger or more for "
            "features of this width, as many heads and shards of this size (smaller ones: nolb "
            "store convert --shard-rows)."
        )
    return int(rows)


class ScratchRows(Closable):
    """Usable rows of a training split in a file of their own; a context manager.

    The file has no name, so that it is gone with the process, however that ends.

    Args:
        split: the split.
        part: rows of the split that take part, whole shards.
        n_views: stored views that take part beside the clean features.
        class_counts: (C,) int64.
        width: D.
        device: where mini-batches are wanted.
        buffer: rows that are read ahead of the steps.
        teacher: the old head, where there is one.

    Raises:
        FitError: if the temporary folder has no room for (1 + V) * N * D float32.
        CorruptStoreError: if a shard is not what was written.
    """

    def __init__(
        self,
        split: Split,
        part: range,
        n_views: int,
        class_counts: Tensor,
        *,
        width: int,
        device: torch.device,
        buffer: int,
        teacher: LinearMap | None = None,
    ) -> None:
        rows = slice(part.start, part.stop)
        self.labels = torch.from_numpy(split.labels[rows][split.usable[rows]])
        self.n_versions = 1 + n_views
        self.class_counts = class_counts.to(device)
        self.like = torch.empty(0, width, device=device)
        self.teacher = teacher
        self._buffer = buffer
        self._width = width
        self._file = tempfile.TemporaryFile(prefix="nolb-", buffering=0)  # noqa: SIM115  # see close
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="nolb-scratch")
        try:
            self._fill(split, part)
        except OSError as error:
            self.close()
            size = 4 * width * len(self.labels) * self.n_versions / 2**30
            raise FitError(
                f"The features need {size:,.1f} GiB of scratch space in {tempfile.gettempdir()} "
                f"({error.strerror}): make room, or set TMPDIR to a folder on another disk."
            ) from None
        except BaseException:
            self.close()
            raise

    def _fill(self, split: Split, part: range) -> None:
        """Write version after version of each shard's usable rows to their places."""
        filled = 0
        for record in (record for record in split.records if record.start in part):
            usable = split.usable[record.start : record.stop]
            for version in range(self.n_versions):
                rows = split.version(version, record.start, record.stop)[usable]
                data = np.ascontiguousarray(rows, np.float32).reshape(-1).view(np.uint8).data
                offset = self._offset(version * len(self.labels) + filled)
                while data:
                    written = os.pwrite(self._file.fileno(), data, offset)
                    data, offset = data[written:], offset + written
            filled += int(usable.sum())

    def _offset(self, row: int) -> int:
        return row * self._width * 4

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features (n, D) of rows (n,): row n of version v has the number v * N + n.

        Raises:
            FitError: if the file ends too early.
        """
        values = np.empty((len(rows), self._width), np.float32)
        descriptor = self._file.fileno()

        def read(some: NDArray[np.int64]) -> None:
            for i in some.tolist():
                if (
                    os.preadv(descriptor, [values[i]], self._offset(int(rows[i])))
                    != values[i].nbytes
                ):
                    raise FitError("The scratch file ends too early: is its disk sound?")

        # In the order of the file, which spares a disk some of its way.
        parts = np.array_split(np.argsort(rows, kind="stable"), READERS)
        list(self._readers.map(read, parts))
        return values

    @property
    def share(self) -> Share:
        """All rows are here."""
        return ALONE

    def stream(self, batches: Iterator[IndexBatch]) -> Iterator[Batch]:
        """Features (G, B, D) and labels (G, B) of one step after the other, read ahead."""
        waiting: list[IndexBatch] = []
        for batch in batches:
            if waiting and sum(map(Tensor.numel, waiting)) + batch.numel() > self._buffer:
                yield from self._read(waiting)
                waiting = []
            waiting.append(batch)
        if waiting:
            yield from self._read(waiting)

    def _read(self, batches: list[IndexBatch]) -> Iterator[Batch]:
        rows = torch.cat([batch.flatten() for batch in batches])
        features = torch.from_numpy(self.gather(rows.numpy()))
        device = self.like.device
        parts = features.split([batch.numel() for batch in batches])
        for batch, x in zip(batches, parts, strict=True):
            labels = self.labels[batch.remainder(max(1, len(self.labels)))]
            own = x.view(*batch.shape, self._width)
            yield Batch(own.to(device), labels.to(device))

    def close(self) -> None:
        """Give the room back."""
        self._readers.shutdown()
        self._file.close()


def resident_bytes() -> int:
    """Memory that this process has now, or where the system does not tell, has had at most."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
