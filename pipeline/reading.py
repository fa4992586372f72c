"""Batches of decoded images and their views, read by worker processes ahead of the model."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pipeline.cores import available_cores
from pipeline.datasets import ImageSource, Preprocessing, Views
from pipeline.errors import (
    DatasetError,
    ExtractionError,
    NolbError,
    UnreadableImageError,
    first_line,
)

Batch = TypeVar("Batch")

MOST_WORKERS = 8
"""More readers than this rarely help one model; ask for them explicitly where they do."""

BATCHES_AHEAD = 2
"""Batches that each reading process keeps ready: (1 + V) B H W 3 bytes each, so no more."""

PROBES = 16
"""Images that show whether a split can be read at all."""


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows of one split that go through the model together."""

    split: str
    """Name of the split."""

    start: int
    """First row."""

    stop: int
    """One past the last row."""


@dataclass(frozen=True)
class ImageBatch:
    """The decoded images of some rows."""

    rows: RowRange
    """Which rows these are."""

    images: torch.Tensor
    """(1 + V, B, H, W, 3) uint8: the clean images, then each view of them."""

    failures: dict[int, str]
    """Why a row's image could not be read, by row; its pixels are zeros."""

    def pin_memory(self) -> ImageBatch:
        """Page-lock the images; the `DataLoader` calls this where it was asked to pin."""
        return replace(self, images=self.images.pin_memory())


class BatchReader(Dataset[ImageBatch | NolbError]):
    """Reads one batch for each item: whole batches cross process borders with little overhead.

    An error of ours is an item too: raised in a worker process, it would reach the user as that
    process's traceback. `read_ahead` raises it.

    Args:
        sources: the images of each split.
        preprocessing: geometry of the clean image; normalisation happens on the device.
        views: the views of each split that has any.
        work: the batches, in order.
    """

    def __init__(
        self,
        sources: dict[str, ImageSource],
        preprocessing: Preprocessing,
        views: Mapping[str, Views],
        work: Sequence[RowRange],
    ) -> None:
        self._sources = sources
        self._preprocessing = preprocessing
        self._views = dict(views)
        self._work = work

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._work)

    def __getitem__(self, item: int) -> ImageBatch | NolbError:
        """Decode the rows of one batch, or give what prevents it.

        That is a DatasetError where the images differ in size although the preprocessing fixes
        none, or where the machine refuses to read them.
        """
        try:
            return self._read(self._work[item])
        except NolbError as error:
            return error

    def _read(self, rows: RowRange) -> ImageBatch:
        """Decode the rows of one batch."""
        source = self._sources[rows.split]
        views = self._views.get(rows.split)
        n_views = 0 if views is None else views.count
        decoded: dict[int, NDArray[np.uint8]] = {}
        failures: dict[int, str] = {}
        for row in range(rows.start, rows.stop):
            try:
                decoded[row] = self._decode(source, row, views)
            except UnreadableImageError as error:
                failures[row] = str(error)
        # One image and its views are (1 + V, H, W, 3).
        size = common_size(source, {row: a.shape[1:3] for row, a in decoded.items()})
        images = np.zeros((rows.stop - rows.start, 1 + n_views, *size, 3), np.uint8)
        for row, pixels in decoded.items():
            images[row - rows.start] = pixels
        # Views come first, so that each is one contiguous batch for the model.
        by_view = np.ascontiguousarray(images.swapaxes(0, 1))
        return ImageBatch(rows, torch.from_numpy(by_view), failures)

    def _decode(self, source: ImageSource, row: int, views: Views | None) -> NDArray[np.uint8]:
        """(1 + V, H, W, 3): one image and its views."""
        image = source.read(row)
        if views is None:
            return self._preprocessing.to_uint8(image)[None]
        return views.make_all(image, source.ids[row], self._preprocessing)


def read_ahead(
    reader: Dataset[Batch | NolbError], workers: int, *, pin_memory: bool
) -> Iterator[Batch]:
    """The reader's batches in order, read ahead of their use.

    Args:
        reader: what to read; it has a length, and errors of ours may be items of it.
        workers: number of processes; 0 reads in this one.
        pin_memory: page-lock the images, for quick asynchronous copies to a GPU.

    Raises:
        NolbError: what the reader gave instead of a batch.
        ExtractionError: if a reading process dies.
    """
    loader = DataLoader(
        reader,
        batch_size=None,  # an item is a batch already
        shuffle=False,
        num_workers=workers,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=leave_interrupts_to_the_parent,
    )
    yield from batches_of(loader, ExtractionError)


def batches_of(
    loader: Iterable[Batch | NolbError], reader_died: type[NolbError]
) -> Iterator[Batch]:
    """The batches that a loader's processes read, in order.

    Args:
        loader: what gives them; errors of ours may be items of it.
        reader_died: what to raise where torch says that a reading process is gone.

    Raises:
        NolbError: what the loader gave instead of a batch, or an error of the class `reader_died`.
    """
    batches = iter(loader)
    while True:
        try:
            batch = next(batches, None)
        except (RuntimeError, EOFError, ConnectionError) as error:
            # The last two are of a process that is gone before what it made could be fetched.
            raise reader_died(
                f"A process that reads images has died ({first_line(error)}): go on with --resume, "
                "and with --workers 0 or a smaller --batch-size if that happens again."
            ) from None
        if batch is None:
            return
        if isinstance(batch, NolbError):
            raise batch
        yield batch


def require_readable(name: str, source: ImageSource) -> None:
    """Refuse a split of which no image can be read, before hours are spent on the others.

    Args:
        name: the split.
        source: its images; some, spread over all of them, are tried.

    Raises:
        DatasetError: if not one of those can be read.
    """
    rows = sorted({round(i * (len(source) - 1) / (PROBES - 1)) for i in range(PROBES)})
    reason = ""
    for row in rows:
        try:
            source.read(row)
        except UnreadableImageError as error:
            reason = reason or f"{source.ids[row]}: {error}"
        else:
            return
    raise DatasetError(
        f"None of {len(rows)} images tried of {name!r} can be read ({reason}): is its path, or "
        "--root, the right folder?"
    )


def default_workers(device: str, local_size: int = 1) -> int:
    """Number of reading processes that suits the machine.

    A CPU that runs the model is busy already, and a reader takes cores from it: on two cores and
    small images, reading in between costs 6 % of the forward pass, one reading process 17 %
    (`benchmarks/extract.py`).

    Args:
        device: kind of device that runs the model.
        local_size: processes that share the machine's cores.
    """
    own = available_cores() // local_size
    wanted = own // 4 if device == "cpu" else max(1, own - 1)
    return min(MOST_WORKERS, wanted)


def common_size(source: ImageSource, sizes: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    """(H, W), which all the images of a batch must have.

    Args:
        source: the images.
        sizes: (H, W) of those that could be read, by row.

    Raises:
        DatasetError: if two differ.
    """
    if not sizes:
        return (1, 1)  # every image failed: nothing will look at the pixels
    (first, expected), *others = sizes.items()
    for row, size in others:
        if size != expected:
            raise DatasetError(
                f"Images differ in size: {source.ids[first]} is {expected[1]} x {expected[0]} and "
                f"{source.ids[row]} is {size[1]} x {size[0]}; bring them to one with --resize and "
                "--crop."
            )
    return expected


def leave_interrupts_to_the_parent(_worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the parent alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
