"""Labelled images in a fixed order: the base of all kinds, and those in files and in memory.

A source knows its samples' ids and labels at once and decodes an image only when asked. Sources
pickle, so that worker processes can read them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pipeline.datasets.decoding import read_rgb
from pipeline.errors import DatasetError

CHANNELS = 3


class ImageSource:
    """N labelled images in a fixed order.

    Args:
        name: what messages call the source.
        ids: N distinct names; a sample keeps its id wherever the data lie.
        labels: (N,) class of each sample, 0..C-1.
        class_names: C distinct names.

    Raises:
        DatasetError: if there is no sample, or ids, labels and class names contradict each other.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __init__(
        self, name: str, ids: Sequence[str], labels: ArrayLike, class_names: Sequence[str]
    ) -> None:
        self.ids = tuple(ids)
        self.labels = np.array(labels, dtype=np.int64)
        self.labels.setflags(write=False)
        self.class_names = tuple(class_names)
        self._check(name)

    def __len__(self) -> int:
        """Number of samples N."""
        return len(self.ids)

    def read(self, row: int) -> Image.Image:
        """The image of a row in RGB: what `file` gives, decoded, unless a source says otherwise.

        Raises:
            UnreadableImageError: with the reason, if the image cannot be decoded.
        """
        file = self.file(row)
        if file is None:
            raise NotImplementedError(f"{type(self).__name__} has neither `read` nor `file`.")
        return read_rgb(file)

    def file(self, row: int) -> str | BytesIO | None:  # noqa: ARG002  # sources of files need it
        """The file that `read` decodes, by path or content; `None` for a source without files.

        Raises:
            UnreadableImageError: if the file cannot be had.
        """
        return None

    def _check(self, name: str) -> None:
        if not self.ids:
            raise DatasetError(f"{name}: holds no images; at least one is needed.")
        if self.labels.shape != (len(self),):
            raise DatasetError(
                f"{name}: {len(self)} images need as many labels; got {self.labels.shape}."
            )
        if (odd := next((each for each in self.ids if not _is_text(each)), None)) is not None:
            raise DatasetError(f"{name}: the file name {odd!a} is not UTF-8; rename it.")
        if (twice := _first_repeated(self.ids)) is not None:
            raise DatasetError(f"{name}: the sample {twice!r} stands there twice; remove one.")
        if (twice := _first_repeated(self.class_names)) is not None:
            raise DatasetError(f"{name}: two classes are called {twice!r}; rename one.")
        n_classes = len(self.class_names)
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= n_classes))
        if len(outside):
            raise DatasetError(
                f"{name}: the label {self.labels[outside[0]]} of {self.ids[outside[0]]!r} is "
                f"outside 0..{n_classes - 1}, the labels of {n_classes} classes."
            )


class FileSource(ImageSource):
    """Image files below one folder; a sample's id is its path there.

    Args:
        name: what messages call the source.
        root: the folder.
        paths: N distinct POSIX paths, relative to it.
        labels: (N,) 0..C-1.
        class_names: C names.

    Raises:
        DatasetError: as `ImageSource`.
    """

    def __init__(
        self,
        name: str,
        root: Path | str,
        paths: Sequence[str],
        labels: ArrayLike,
        class_names: Sequence[str],
    ) -> None:
        self._root = str(root)
        super().__init__(name, paths, labels, class_names)

    def file(self, row: int) -> str:
        """Path of the image of a row."""
        return f"{self._root}/{self.ids[row]}"


class ArraySource(ImageSource):
    """Images in memory.

    Args:
        images: (N, H, W) grey or (N, H, W, 3) RGB, uint8.
        labels: (N,) 0..C-1.
        class_names: C names.
        ids: N distinct names; not given: the row numbers.

    Raises:
        DatasetError: if shapes, type, labels or names do not fit.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: ArrayLike,
        class_names: Sequence[str],
        ids: Sequence[str] | None = None,
    ) -> None:
        colour = images.ndim == CHANNELS + 1 and images.shape[-1] == CHANNELS
        if images.dtype != np.uint8 or not (colour or images.ndim == CHANNELS):
            raise DatasetError(
                f"Images in memory must be uint8 of shape (N, H, W) or (N, H, W, 3); "
                f"got {images.dtype} {images.shape}{_remedy(images)}."
            )
        self._images = images
        if ids is None:
            ids = [f"{row:06d}" for row in range(len(images))]
        if len(ids) != len(images):
            raise DatasetError(f"{len(images)} images in memory need as many ids; got {len(ids)}.")
        super().__init__("images in memory", ids, labels, class_names)

    def read(self, row: int) -> Image.Image:
        """The image of a row, grey ones with three equal channels."""
        return Image.fromarray(self._images[row]).convert("RGB")


def _remedy(images: NDArray[np.generic]) -> str:
    """What makes images of arrays that are nearly such; empty where nothing does for certain."""
    steps = []
    if images.ndim == CHANNELS + 1 and images.shape[-1] != CHANNELS == images.shape[1]:
        steps.append(".transpose(0, 2, 3, 1) puts their channels last")
    if images.dtype.kind == "f":
        steps.append('(images * 255).round().astype("uint8") suits values from 0 to 1')
    return f": {' and '.join(steps)}" if steps else ""


class RelabelledSource(ImageSource):
    """Another source's images under other labels.

    Args:
        source: N samples.
        labels: (N,) 0..C-1.
        class_names: C names.

    Raises:
        DatasetError: if labels or names do not fit.
    """

    def __init__(self, source: ImageSource, labels: ArrayLike, class_names: Sequence[str]) -> None:
        self._source = source
        super().__init__("relabelled images", source.ids, labels, class_names)

    def read(self, row: int) -> Image.Image:
        """The image of a row of the other source."""
        return self._source.read(row)

    def file(self, row: int) -> str | BytesIO | None:
        """File of a row of the other source."""
        return self._source.file(row)


def _is_text(name: str) -> bool:
    """Whether the name can be stored: names of undecodable bytes hold lone surrogates."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def _first_repeated(names: Sequence[str]) -> str | None:
    if len(set(names)) == len(names):
        return None
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # add returns None, which is the point
