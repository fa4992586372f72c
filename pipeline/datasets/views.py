"""Views of images: random ones for training, fixed ones for tests.

A training view depends on the seed, the sample's id and the view's number alone, so it is the same
in any batch, worker and order, and in a store that is extended later. Test views are the same for
every image: its mirror image, and both of them moved by a few pixels. Few fixed views cover mirror
and position evenly, which as many random ones do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from cache.records import Record
from cache.strict_json import JSON
from pipeline.config import ExtractConfig
from pipeline.datasets.preprocessing import Preprocessing, padded
from pipeline.errors import ConfigError

Fill = Literal["mean", "black"]

DIRECTIONS = ((0, 0), (0, -1), (-1, 0), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, 1), (1, -1))
"""Where an image moves to, (down, right): nowhere, left, up, right, down, then into the corners."""


class Views(Protocol):
    """What the reading of images needs to know of their views."""

    @property
    def count(self) -> int:
        """Views of each image, V."""

    def make_all(
        self, image: Image.Image, sample_id: str, preprocessing: Preprocessing
    ) -> NDArray[np.uint8]:
        """(1 + V, H, W, 3) uint8: the clean image, then its views."""

    def to_json(self) -> dict[str, JSON]:
        """Every value, for the identity of a store."""


@dataclass(frozen=True)
class ViewSpec(Record):
    """The training views of an image: V random crops, each mirrored with probability one half.

    A backbone knows its training images by heart, and views like those of its training hardly less
    so; other colours and a hidden part bring features nearer to those of images it has not seen
    (docs/recipe.md). Where both are asked for, views take turns, as both at once are too much.

    Raises:
        ConfigError: if a number is out of range.
    """

    count: int = 0
    """Views of each image, V."""

    seed: int = 0
    """Seed of all views."""

    padding: int = 4
    """Pixels added on each side of the resized image before the crop."""

    fill: Fill = "mean"
    """Colour of the padding: the preprocessing's mean, which normalisation turns into the zeros
    that convolutions pad with; or black, as torchvision's RandomCrop before ToTensor."""

    flip: bool = True
    """Mirror left to right with probability one half."""

    colour: float = 0.0
    """Brightness, contrast and saturation change by a factor from 1 - colour to 1 + colour."""

    erase: int = 0
    """Side in pixels of a square around a random pixel that is filled like the padding."""

    @classmethod
    def of(cls, config: ExtractConfig) -> ViewSpec:
        """The training views that an extraction's settings ask for."""
        return cls(
            config.views, config.view_seed, config.view_padding, config.view_fill, config.view_flip,
            config.view_colour, config.view_erase,
        )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        for name in ("count", "padding", "erase"):
            if getattr(self, name) < 0:
                raise ConfigError(f"views: {name} must be 0 or more; got {getattr(self, name)}.")
        if not 0 <= self.colour <= 1:
            raise ConfigError(f"views: colour must be from 0 to 1; got {self.colour}.")

    def make(
        self, image: Image.Image, sample_id: str, view: int, preprocessing: Preprocessing
    ) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: view number `view` (from 0) of one image.

        The size is that of the clean image, `preprocessing.to_uint8`.
        """
        size, canvas = self._canvas(preprocessing.resized(image), preprocessing)
        return self._view(canvas, size, sample_id, view, _colour(self.fill, preprocessing))

    def make_all(
        self, image: Image.Image, sample_id: str, preprocessing: Preprocessing
    ) -> NDArray[np.uint8]:
        """(1 + V, H, W, 3) uint8: the clean image, then its views, from one resize and padding."""
        resized = preprocessing.resized(image)
        size, canvas = self._canvas(resized, preprocessing)
        images = np.empty((1 + self.count, *size, 3), np.uint8)
        images[0] = preprocessing.centre(resized)
        fill = _colour(self.fill, preprocessing)
        for view in range(self.count):
            images[1 + view] = self._view(canvas, size, sample_id, view, fill)
        return images

    def describe(self) -> str:
        """One line that names every value; empty where no views are made."""
        if self.count == 0:
            return ""
        flip = "horizontal flip 1/2" if self.flip else "no flip"
        crop = f"{self.fill} padding {self.padding}, random crop"
        more = [f"colour {self.colour:g}"] if self.colour else []
        more += [f"erased {self.erase}"] if self.erase else []
        words = [f"{self.count} views", f"seed {self.seed}", crop, flip, " or ".join(more)]
        return ", ".join(filter(None, words))

    def _view(
        self,
        canvas: NDArray[np.uint8],
        size: tuple[int, int],
        sample_id: str,
        view: int,
        fill: NDArray[np.uint8] | int,
    ) -> NDArray[np.uint8]:
        """(H, W, 3): a crop, with other colours or a part of it hidden."""
        crop = self._cut(canvas, size, sample_id, view)
        if not (self.colour or self.erase):
            return crop
        draws = np.random.default_rng(_draw(f"{self.seed}/{view}/{sample_id}/altered"))
        if self.colour and not (self.erase and view % 2):
            return _recoloured(crop, draws.uniform(1 - self.colour, 1 + self.colour, size=3))
        return _erased(crop, draws.integers(0, size), self.erase, fill)

    def _canvas(
        self, resized: NDArray[np.uint8], preprocessing: Preprocessing
    ) -> tuple[tuple[int, int], NDArray[np.uint8]]:
        """Size (H, W) of a view, and the padded image that views are cut from."""
        crop = preprocessing.crop
        size = (resized.shape[0], resized.shape[1]) if crop is None else (crop, crop)
        return size, padded(resized, self.padding, size, _colour(self.fill, preprocessing))

    def _cut(
        self, canvas: NDArray[np.uint8], size: tuple[int, int], sample_id: str, view: int
    ) -> NDArray[np.uint8]:
        """(H, W, 3): where, and whether mirrored, is drawn by a hash."""
        drawn = _draw(f"{self.seed}/{view}/{sample_id}")
        # Three independent draws from 128 bits; the remainders' bias is below 2^-40.
        drawn, top = divmod(drawn, canvas.shape[0] - size[0] + 1)
        drawn, left = divmod(drawn, canvas.shape[1] - size[1] + 1)
        crop = canvas[top : top + size[0], left : left + size[1]]
        return crop[:, ::-1] if self.flip and drawn % 2 else crop


@dataclass(frozen=True)
class ShiftedViews(Record):
    """The test views of an image: its mirror image, and both moved by a few pixels.

    The first view is the mirror image. Then the image moves and the mirror image moves the other
    way, in turns: left and right, up and down, right and left, down and up, and into the corners.
    So in every even number of images, the clean one among them, half are mirrored and the moves
    cancel out. Without mirror images the image alone moves to the same places.

    What changes no view takes its default, so that equal views are equal values.

    Raises:
        ConfigError: if there are not so many such views, or the shift is no whole pixel.
    """

    count: int = 0
    """Views of each image, V."""

    shift: int = 2
    """Pixels by which a view moves."""

    fill: Fill = "mean"
    """Colour of what a move leaves free, as for the training views; resized images that are larger
    than the crop leave nothing free."""

    flip: bool = True
    """Mirror images are among the views."""

    @classmethod
    def of(cls, config: ExtractConfig) -> ShiftedViews:
        """The test views that an extraction's settings ask for."""
        return cls(config.test_views, config.test_view_shift, config.view_fill, config.view_flip)

    def __post_init__(self) -> None:
        """Refuse views that there are not."""
        most = len(_moves(self.flip))
        if not 0 <= self.count <= most:
            mirrored = "" if self.flip else " without mirror images"
            raise ConfigError(f"There are 0 to {most} test views{mirrored}, not {self.count}.")
        if self.shift < 1:
            raise ConfigError(f"Test views move by 1 pixel or more, not {self.shift}.")
        idle = [] if self._moved() else ["shift", "fill"]
        for name in [*idle, "flip"] if self.count == 0 else idle:
            object.__setattr__(self, name, getattr(ShiftedViews, name))

    def make_all(
        self,
        image: Image.Image,
        sample_id: str,  # noqa: ARG002  # the same views for every sample
        preprocessing: Preprocessing,
    ) -> NDArray[np.uint8]:
        """(1 + V, H, W, 3) uint8: the clean image, then its views.

        A view is what the centre crop shows after the resized image has moved.

        Raises:
            ConfigError: if an image would move out of sight.
        """
        resized = preprocessing.resized(image)
        clean = preprocessing.centre(resized)
        images = np.empty((1 + self.count, *clean.shape), np.uint8)
        images[0] = clean
        whole = padded(resized, 0, clean.shape[:2])
        canvas = padded(whole, self.shift, (0, 0), _colour(self.fill, preprocessing))
        height, width = whole.shape[:2]
        if self.count > 1 and self.shift >= min(height, width):
            raise ConfigError(
                f"Moved by {self.shift} pixels, an image of {width} x {height} is out of sight: "
                "choose a smaller --test-view-shift."
            )
        for view, ((down, right), mirrored) in enumerate(_moves(self.flip)[: self.count], start=1):
            # Seen in the mirror, what moves to the left moves to the right.
            top = self.shift * (1 - down)
            left = self.shift * (1 + right if mirrored else 1 - right)
            moved = preprocessing.centre(canvas[top : top + height, left : left + width])
            images[view] = moved[:, ::-1] if mirrored else moved
        return images

    def describe(self) -> str:
        """One line that names every value; empty where no views are made."""
        if self.count == 0:
            return ""
        words = [f"{self.count} test views"]
        if self.flip:  # the first view is the mirror image
            words.append("mirror images")
        if self._moved():
            words.append(f"moves by {self.shift}, {self.fill} padding")
        return ", ".join(words)

    def _moved(self) -> bool:
        """Whether any view is moved, and not mirrored alone."""
        return any(direction != (0, 0) for direction, _ in _moves(self.flip)[: self.count])


def _draw(key: str) -> int:
    """A number of 128 bits that the key alone decides."""
    return int.from_bytes(blake2b(key.encode(), digest_size=16).digest(), "little")


def _recoloured(image: NDArray[np.uint8], factors: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(H, W, 3) with brightness, contrast and saturation times their factors, in this order."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind, factor in zip(kinds, factors.tolist(), strict=True):
        picture = kind(picture).enhance(factor)
    return np.asarray(picture)


def _erased(
    image: NDArray[np.uint8], centre: NDArray[np.int64], side: int, fill: NDArray[np.uint8] | int
) -> NDArray[np.uint8]:
    """(H, W, 3) without the square around a pixel, as far as it lies within the image."""
    top, left = np.maximum(centre - side // 2, 0)
    bottom, right = centre - side // 2 + side
    erased = image.copy()
    erased[top:bottom, left:right] = fill
    return erased


def _moves(flip: bool) -> tuple[tuple[tuple[int, int], bool], ...]:
    """Direction (down, right) and mirrored or not of every test view; the clean image is none."""
    pairs = ((((down, right), False), ((-down, -right), True)) for down, right in DIRECTIONS)
    everything = tuple(view for pair in pairs for view in pair)
    return tuple(view for view in everything[1:] if flip or not view[1])


def _colour(fill: Fill, preprocessing: Preprocessing) -> NDArray[np.uint8] | int:
    """Colour of padding."""
    return preprocessing.mean_colour() if fill == "mean" else 0
