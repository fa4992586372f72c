"""From a decoded image to what an exported classifier takes."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.views import ShiftedViews
from pipeline.errors import UnreadableImageError
from pipeline.exporting.description import Description


def as_input(image: Image.Image, description: Description) -> NDArray[np.float32]:
    """(3, S, S) float32: the image as the description asks for it.

    Raises:
        UnreadableImageError: if the image has another size than the program was made for.
    """
    (alone,) = as_inputs(image, description, ShiftedViews())
    return cast("NDArray[np.float32]", alone)


def as_inputs(
    image: Image.Image, description: Description, views: ShiftedViews
) -> NDArray[np.float32]:
    """(1 + V, 3, S, S) float32: the image and its test views, likewise.

    Raises:
        UnreadableImageError: if the image has another size than the program was made for.
    """
    pixels = views.make_all(image, "", description.preprocessing)
    side = description.side
    if side is not None and pixels.shape[1:3] != (side, side):
        height, width = pixels.shape[1:3]
        raise UnreadableImageError(f"is {width} x {height}, but the model takes {side} x {side}")
    if description.normalization == "inside":
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    normalized = description.preprocessing.normalize(torch.from_numpy(pixels))
    return cast("NDArray[np.float32]", normalized.numpy())
