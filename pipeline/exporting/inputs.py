"""From a decoded image to what an exported classifier takes."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import UnreadableImageError
from pipeline.exporting.description import Description


def as_input(image: Image.Image, description: Description) -> NDArray[np.float32]:
    """(3, S, S) float32: the image as the description asks for it.

    Raises:
        UnreadableImageError: if the image has another size than the program was made for.
    """
    pixels = description.preprocessing.to_uint8(image)
    side = description.side
    if side is not None and pixels.shape[:2] != (side, side):
        height, width = pixels.shape[:2]
        raise UnreadableImageError(f"is {width} x {height}, but the model takes {side} x {side}")
    if description.normalization == "inside":
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)
    batch = torch.from_numpy(np.array(pixels)[None])
    normalized = description.preprocessing.normalize(batch)[0]
    return cast("NDArray[np.float32]", normalized.numpy())
