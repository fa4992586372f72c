"""Images of a split as uint8 batches: decoded once into memory, or anew in each epoch.

N images, B of a batch, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from pipeline.datasets import ImageSource, Preprocessing
from pipeline.errors import DatasetError, NolbError, TrainingError, UnreadableImageError
from pipeline.reading import BATCHES_AHEAD, batches_of, leave_interrupts_to_the_parent
from pipeline.seeds import derived_seed

Cut = tuple[int, int, Sequence[int]]
"""Epoch, number of the batch and its rows."""


class Prepare(Protocol):
    """From a decoded image to the pixels of a batch."""

    def __call__(self, image: Image.Image, epoch: int, row: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Clean:
    """The test-time geometry, the same in each epoch."""

    preprocessing: Preprocessing
    """Resize and centre crop."""

    def __call__(self, image: Image.Image, epoch: int, row: int) -> NDArray[np.uint8]:  # noqa: ARG002  # a protocol's
        """(H, W, 3) uint8 RGB."""
        return self.preprocessing.to_uint8(image)


@dataclass(frozen=True)
class ResizedCrop:
    """A random part of the image, resized (Szegedy et al. 2015), and its mirror image."""

    side: int
    """In pixels, of the result."""

    smallest: float
    """Smallest share of the area that the part has."""

    flip: bool
    """Mirror left to right with probability one half."""

    seed: int
    """Of the training; a draw depends on it, the epoch and the row alone."""

    def __call__(self, image: Image.Image, epoch: int, row: int) -> NDArray[np.uint8]:
        """(side, side, 3) uint8 RGB."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, "crop", epoch, row))
            crop = v2.RandomResizedCrop(self.side, scale=(self.smallest, 1.0), antialias=True)
            image = crop(image)
            if self.flip:
                image = v2.RandomHorizontalFlip()(image)
        return np.asarray(image)


class Images(Protocol):
    """The images of one split, batch by batch."""

    def batches(self, epoch: int, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """(B, H, W, 3) uint8 for each (B,) of rows, on the device.

        Raises:
            DatasetError: if an image cannot be read, or images differ in size.
        """


class HeldImages:
    """All images, decoded once; on the device, where batches are cut out of them.

    Args:
        pixels: (N, H, W, 3) uint8.
    """

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels

    def batches(self, epoch: int, rows: Iterable[Tensor]) -> Iterator[Tensor]:  # noqa: ARG002  # a protocol's
        """(B, H, W, 3) uint8 for each (B,) of rows."""
        for batch in rows:
            yield self._pixels[batch.to(self._pixels.device, non_blocking=True)]


class ReadImages:
    """Images that are decoded whenever they are needed, by processes ahead of the network.

    Args:
        source: N images.
        prepare: what becomes of one.
        workers: reading processes; 0 reads in this one.
        device: where the batches go.
    """

    def __init__(
        self, source: ImageSource, prepare: Prepare, workers: int, device: torch.device
    ) -> None:
        self._device = device
        self._plan = _Plan()
        self._loader = DataLoader(
            _Batches(source, prepare),
            sampler=self._plan,
            batch_size=None,  # an item is a batch already
            num_workers=workers,
            prefetch_factor=BATCHES_AHEAD if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            worker_init_fn=leave_interrupts_to_the_parent,
        )

    def batches(self, epoch: int, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """(B, H, W, 3) uint8 for each (B,) of rows."""
        self._plan.cuts = [(epoch, i, batch.tolist()) for i, batch in enumerate(rows)]
        for batch in batches_of(self._loader, TrainingError):
            yield batch.to(self._device, non_blocking=True)


class _Plan(Sampler[Cut]):
    """The batches of the next epoch; the loader asks anew for each."""

    def __init__(self) -> None:
        self.cuts: list[Cut] = []

    def __iter__(self) -> Iterator[Cut]:
        return iter(self.cuts)

    def __len__(self) -> int:
        return len(self.cuts)


class _Batches(Dataset[Tensor | NolbError]):
    """Decodes one batch for each item; an error of ours is an item too, see `BatchReader`."""

    def __init__(self, source: ImageSource, prepare: Prepare) -> None:
        self._source = source
        self._prepare = prepare

    def __getitem__(self, cut: Cut) -> Tensor | NolbError:
        epoch, _, rows = cut
        try:
            return stacked(self._source, rows, self._prepare, epoch)
        except NolbError as error:
            return error


def stacked(source: ImageSource, rows: Sequence[int], prepare: Prepare, epoch: int = 0) -> Tensor:
    """The images of some rows, (B, H, W, 3) uint8.

    Raises:
        DatasetError: if one cannot be read, or they differ in size.
    """
    pixels: Tensor | None = None
    for i, row in enumerate(rows):
        try:
            image = prepare(source.read(row), epoch, row)
        except UnreadableImageError as error:
            raise DatasetError(
                f"The image {source.ids[row]} cannot be read ({error}): mend it, or take it out of "
                "the images."
            ) from None
        if pixels is None:
            pixels = torch.empty(len(rows), *image.shape, dtype=torch.uint8)
        if image.shape != tuple(pixels.shape[1:]):
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (pixels.shape[1:], image.shape)]
            raise DatasetError(
                f"Images differ in size: {source.ids[rows[0]]} is {sizes[0]} and "
                f"{source.ids[row]} is {sizes[1]}; bring them to one with --size."
            )
        pixels[i] = torch.from_numpy(image.copy())
    if pixels is None:
        raise ValueError("a batch has one row or more")
    return pixels
