"""From a decoded image to a model's input, in two steps: geometry on uint8, then normalisation.

Images travel as uint8, a quarter of the bytes of float32; the device that runs the model
normalises them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.records import Record
from pipeline.config.extract import Channels
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]

N_CHANNELS = 3

RESAMPLING: Mapping[str, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Preprocessing(Record):
    """A model's test-time transform.

    The same as torchvision's Resize, CenterCrop, ToTensor and Normalize to float rounding. What
    has no effect takes its default, so that equal transforms are equal values.

    Raises:
        ConfigError: if a value is out of range.
    """

    mean: Channels
    """Subtracted from x/255, in the order R, G, B."""

    std: Channels
    """Divides x/255 after that, in the order R, G, B."""

    resize: int | None = None
    """Shorter side in pixels after an antialiased resize."""

    crop: int | None = None
    """Side in pixels of the centre crop."""

    channels: Literal["RGB", "BGR"] = "RGB"
    """Order in which the model takes the channels."""

    interpolation: Interpolation = "bilinear"
    """How the resize weighs pixels."""

    squash: bool = False
    """Resize both sides to `resize`, whatever the image's proportions: nothing is cropped away."""

    def __post_init__(self) -> None:
        """Refuse values that no model could mean."""
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            object.__setattr__(self, name, values)  # a list from JSON becomes a tuple
            if len(values) != N_CHANNELS or not np.isfinite(values).all():
                raise ConfigError(f"{name} needs three finite numbers, R, G, B; got {values}.")
        if min(self.std) <= 0:
            raise ConfigError(f"std divides the image and must be above 0; got {self.std}.")
        for name in ("resize", "crop"):
            pixels = getattr(self, name)
            if pixels is not None and pixels < 1:
                raise ConfigError(
                    f"{name} is a side in pixels and must be 1 or more; got {pixels}."
                )
        if self.channels not in {"RGB", "BGR"}:
            raise ConfigError(f"channels must be RGB or BGR; got {self.channels!r}.")
        if self.interpolation not in RESAMPLING:
            raise ConfigError(
                f"interpolation must be {' or '.join(RESAMPLING)}; got {self.interpolation!r}."
            )
        if self.squash and self.resize is None:
            raise ConfigError("squash brings both sides to `resize` pixels: set resize too.")
        if self.resize is None:
            object.__setattr__(self, "interpolation", Preprocessing.interpolation)

    def to_uint8(self, image: Image.Image) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB: resized and centre-cropped.

        An image smaller than the crop is padded with zeros, as torchvision does.
        """
        return self.centre(self.resized(image))

    def resized(self, image: Image.Image) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB: resized alone, from which views and centre are cut."""
        height, width = self.resized_size(image.height, image.width)
        if (width, height) != image.size:
            image = image.resize((width, height), RESAMPLING[self.interpolation])
        return np.asarray(image)

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what `resized` makes of an image of that height and width."""
        if self.resize is None:
            return height, width
        if self.squash:
            return self.resize, self.resize
        shorter = min(width, height)
        # The longer side is truncated, not rounded, as in torchvision.
        return int(self.resize * height / shorter), int(self.resize * width / shorter)

    def final_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what `to_uint8` makes of an image of that height and width."""
        if self.crop is not None:
            return self.crop, self.crop
        return self.resized_size(height, width)

    def centre(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3): the centre crop of resized pixels."""
        if self.crop is None or pixels.shape[:2] == (self.crop, self.crop):
            return pixels
        pixels = padded(pixels, 0, (self.crop, self.crop))
        height, width = pixels.shape[:2]
        # round() goes to the even neighbour at one half; torchvision's crop does the same.
        top, left = round((height - self.crop) / 2), round((width - self.crop) / 2)
        return pixels[top : top + self.crop, left : left + self.crop]

    def normalize(self, images: Tensor) -> Tensor:
        """(x/255 - mean) / std, as the model takes it.

        Args:
            images: (B, H, W, 3) uint8 RGB on any device.

        Returns:
            (B, 3, H, W) float32 on the same device, contiguous.
        """
        # Listing sources, and `--help`, must not wait for torch.
        import torch

        mean = images.new_tensor(self.mean, dtype=torch.float64)
        std = images.new_tensor(self.std, dtype=torch.float64)
        # One multiplication and one addition a pixel: x * 1/(255 std) + (-mean/std).
        factor = (1 / (255 * std)).float().view(1, N_CHANNELS, 1, 1)
        offset = (-mean / std).float().view(1, N_CHANNELS, 1, 1)
        planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        planes = planes.mul_(factor).add_(offset)
        return planes.flip(1) if self.channels == "BGR" else planes

    def mean_colour(self) -> NDArray[np.uint8]:
        """(3,) uint8 RGB: the colour that normalisation turns into zeros, but for rounding."""
        return np.array([round(255 * mean) for mean in self.mean], np.uint8)

    def describe(self) -> str:
        """One line that names every value."""
        sides = f"{self.resize}x{self.resize}" if self.squash else f"{self.resize}"
        resize = f"resize {sides} {self.interpolation} antialias"
        if self.resize is None:
            resize = "no resize"
        crop = "no crop" if self.crop is None else f"centre crop {self.crop}"
        return f"{resize}, {crop}, {self.channels}, x/255, mean {self.mean}, std {self.std}"


def padded(
    pixels: NDArray[np.uint8],
    padding: int,
    smallest: tuple[int, int],
    colour: NDArray[np.uint8] | int = 0,
) -> NDArray[np.uint8]:
    """The (H, W, 3) pixels with a border of `padding` pixels, and more where a side stays short.

    Args:
        pixels: (H, W, 3).
        padding: pixels on each of the four sides.
        smallest: (height, width) that the result has at least; what is missing is added evenly,
            the odd pixel at the bottom or right.
        colour: of the border, (3,) or one number for all channels.
    """
    height, width = pixels.shape[:2]
    rows = max(height + 2 * padding, smallest[0])
    columns = max(width + 2 * padding, smallest[1])
    if (rows, columns) == (height, width):
        return pixels
    canvas = np.empty((rows, columns, N_CHANNELS), np.uint8)
    canvas[:] = colour
    top, left = (rows - height) // 2, (columns - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas
