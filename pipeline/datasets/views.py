"""Seeded training views: random crop with padding and horizontal flip.

A view depends on the seed, the sample's id and the view's number alone, so it is the same in any
batch, worker and order, and in a store that is extended later.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.preprocessing import Preprocessing, padded
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class ViewSpec:
    """Which views of an image are made: V random crops, each mirrored with probability one half.

    Raises:
        ConfigError: if count or padding is negative.
    """

    count: int = 0
    """Views of each image, V."""

    seed: int = 0
    """Seed of all views."""

    padding: int = 4
    """Pixels added on each side of the resized image before the crop."""

    fill: Literal["mean", "black"] = "mean"
    """Colour of the padding: the preprocessing's mean, which normalisation turns into the zeros
    that convolutions pad with; or black, as torchvision's RandomCrop before ToTensor."""

    flip: bool = True
    """Mirror left to right with probability one half."""

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        for name in ("count", "padding"):
            if getattr(self, name) < 0:
                raise ConfigError(f"views: {name} must be 0 or more; got {getattr(self, name)}.")

    def make(
        self, image: Image.Image, sample_id: str, view: int, preprocessing: Preprocessing
    ) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: view number `view` (from 0) of one image.

        The size is that of the clean image, `preprocessing.to_uint8`.
        """
        size, canvas = self._canvas(preprocessing.resized(image), preprocessing)
        return self._cut(canvas, size, sample_id, view)

    def make_all(
        self, image: Image.Image, sample_id: str, preprocessing: Preprocessing
    ) -> NDArray[np.uint8]:
        """(1 + V, H, W, 3) uint8: the clean image, then its views, from one resize and padding."""
        resized = preprocessing.resized(image)
        size, canvas = self._canvas(resized, preprocessing)
        images = np.empty((1 + self.count, *size, 3), np.uint8)
        images[0] = preprocessing.centre(resized)
        for view in range(self.count):
            images[1 + view] = self._cut(canvas, size, sample_id, view)
        return images

    def describe(self) -> str:
        """One line that names every value; empty where no views are made."""
        if self.count == 0:
            return ""
        flip = "horizontal flip 1/2" if self.flip else "no flip"
        crop = f"{self.fill} padding {self.padding}, random crop"
        return f"{self.count} views, seed {self.seed}, {crop}, {flip}"

    def _canvas(
        self, resized: NDArray[np.uint8], preprocessing: Preprocessing
    ) -> tuple[tuple[int, int], NDArray[np.uint8]]:
        """Size (H, W) of a view, and the padded image that views are cut from."""
        crop = preprocessing.crop
        size = (resized.shape[0], resized.shape[1]) if crop is None else (crop, crop)
        colour = preprocessing.mean_colour() if self.fill == "mean" else 0
        return size, padded(resized, self.padding, size, colour)

    def _cut(
        self, canvas: NDArray[np.uint8], size: tuple[int, int], sample_id: str, view: int
    ) -> NDArray[np.uint8]:
        """(H, W, 3): where, and whether mirrored, is drawn by a hash."""
        key = f"{self.seed}/{view}/{sample_id}".encode()
        drawn = int.from_bytes(blake2b(key, digest_size=16).digest(), "little")
        # Three independent draws from 128 bits; the remainders' bias is below 2^-40.
        drawn, top = divmod(drawn, canvas.shape[0] - size[0] + 1)
        drawn, left = divmod(drawn, canvas.shape[1] - size[1] + 1)
        crop = canvas[top : top + size[0], left : left + size[1]]
        return crop[:, ::-1] if self.flip and drawn % 2 else crop
