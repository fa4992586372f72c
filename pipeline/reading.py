"""Batches of decoded images and their views, read by worker processes ahead of the model."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pipeline.config.checks import require
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

RESUME = "go on with --resume, and with --workers 0 or a smaller --batch-size if that happens again"
"""What to do where a process that reads for an extraction or a training has died."""

AGAIN = "try again, with --workers 0 or fewer test views if that happens again"
"""What to do where there is nothing to resume."""

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


@dataclass(frozen=True)
class MixedBatch:
    """The decoded images of some rows, which may differ in size."""

    rows: RowRange
    """Which rows these are."""

    alike: tuple[tuple[tuple[int, ...], torch.Tensor], ...]
    """For each size, the rows of that size and their (1 + V, B, H, W, 3) uint8."""

    failures: dict[int, str]
    """Why a row's image could not be read, by row; it is in none of `alike`."""

    def pin_memory(self) -> MixedBatch:
        """Page-lock the images, as `ImageBatch.pin_memory`."""
        return replace(self, alike=tuple((rows, each.pin_memory()) for rows, each in self.alike))


class Images(Protocol):
    """What reading needs of images; every `ImageSource` is such."""

    @property
    def ids(self) -> Sequence[str]:
        """(N,) names."""

    def read(self, row: int) -> Image.Image:
        """The image of a row in RGB.

        Raises:
            UnreadableImageError: with the reason, if the image cannot be decoded.
        """


class _Reader(Dataset[Batch | NolbError], Generic[Batch]):
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
        sources: Mapping[str, Images],
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

    def __getitem__(self, item: int) -> Batch | NolbError:
        """Decode the rows of one batch, or give what prevents it.

        That is a DatasetError where the machine refuses to read images, or another error of ours.
        """
        try:
            return self._read(self._work[item])
        except NolbError as error:
            return error

    def _read(self, rows: RowRange) -> Batch:
        """Decode the rows of one batch."""
        source = self._sources[rows.split]
        views = self._views.get(rows.split)
        decoded: dict[int, NDArray[np.uint8]] = {}
        failures: dict[int, str] = {}
        for row in range(rows.start, rows.stop):
            try:
                decoded[row] = self._decode(source, row, views)
            except UnreadableImageError as error:
                failures[row] = str(error)
        return self._batch(rows, decoded, failures)

    def _decode(self, source: Images, row: int, views: Views | None) -> NDArray[np.uint8]:
        """(1 + V, H, W, 3): one image and its views."""
        image = source.read(row)
        if views is None:
            return self._preprocessing.to_uint8(image)[None]
        return views.make_all(image, source.ids[row], self._preprocessing)

    def _batch(
        self, rows: RowRange, decoded: dict[int, NDArray[np.uint8]], failures: dict[int, str]
    ) -> Batch:
        """The batch of rows that were decoded, (1 + V, H, W, 3) each, and of those that failed."""
        raise NotImplementedError


class BatchReader(_Reader[ImageBatch]):
    """Reads images that all have one size.

    An item is a DatasetError where they differ in size although the preprocessing fixes none.
    """

    def _batch(
        self, rows: RowRange, decoded: dict[int, NDArray[np.uint8]], failures: dict[int, str]
    ) -> ImageBatch:
        """One array for all rows, zeros for those that failed."""
        source, views = self._sources[rows.split], self._views.get(rows.split)
        size = common_size(source, {row: a.shape[1:3] for row, a in decoded.items()})
        n_views = 0 if views is None else views.count
        images = np.zeros((rows.stop - rows.start, 1 + n_views, *size, 3), np.uint8)
        for row, pixels in decoded.items():
            images[row - rows.start] = pixels
        return ImageBatch(rows, _by_view(images), failures)


class MixedReader(_Reader[MixedBatch]):
    """Reads images that may differ in size."""

    def _batch(
        self, rows: RowRange, decoded: dict[int, NDArray[np.uint8]], failures: dict[int, str]
    ) -> MixedBatch:
        """One array for the rows of each size."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for row, pixels in decoded.items():
            by_size.setdefault(pixels.shape, []).append(row)
        alike = (
            (tuple(same), _by_view(np.stack([decoded[row] for row in same])))
            for same in by_size.values()
        )
        return MixedBatch(rows, tuple(alike), failures)


def _by_view(images: NDArray[np.uint8]) -> torch.Tensor:
    """(1 + V, B, H, W, 3) of (B, 1 + V, H, W, 3): each view is one contiguous batch."""
    return torch.from_numpy(np.ascontiguousarray(images.swapaxes(0, 1)))


def read_mixed(
    images: Images,
    preprocessing: Preprocessing,
    views: Views,
    batch_size: int,
    device: torch.device,
    workers: int = -1,
) -> Iterator[MixedBatch]:
    """Images that may differ in size, with their views, in order, read ahead of their use.

    Args:
        images: N images.
        preprocessing: geometry of the clean image.
        views: the views of each image.
        batch_size: images in a batch, at most.
        device: where they are used.
        workers: as `ExtractConfig.workers`.

    Raises:
        ConfigError: if there cannot be so many workers.
        NolbError: as `read_ahead`.
    """
    require("workers", workers, workers >= -1, "0 or more, or -1 to choose")
    n, name = len(images.ids), "images"
    work = [RowRange(name, start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
    reader = MixedReader({name: images}, preprocessing, {name: views}, work)
    workers = workers if workers >= 0 else default_workers(device.type)
    # One batch is read sooner than a process is started.
    workers = min(workers, len(work)) if len(work) > 1 else 0
    return read_ahead(reader, workers, pin_memory=device.type == "cuda", remedy=AGAIN)


def read_ahead(
    reader: Dataset[Batch | NolbError], workers: int, *, pin_memory: bool, remedy: str = RESUME
) -> Iterator[Batch]:
    """The reader's batches in order, read ahead of their use.

    Args:
        reader: what to read; it has a length, and errors of ours may be items of it.
        workers: number of processes; 0 reads in this one.
        pin_memory: page-lock the images, for quick asynchronous copies to a GPU.
        remedy: as in `batches_of`.

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
    yield from batches_of(loader, ExtractionError, remedy)


def batches_of(
    loader: Iterable[Batch | NolbError], reader_died: type[NolbError], remedy: str = RESUME
) -> Iterator[Batch]:
    """The batches that a loader's processes read, in order.

    Args:
        loader: what gives them; errors of ours may be items of it.
        reader_died: what to raise where torch says that a reading process is gone.
        remedy: what to do then.

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
                f"A process that reads images has died ({first_line(error)}): {remedy}."
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


def common_size(source: Images, sizes: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
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
