"""From decoded images to what an exported classifier takes.

Legend: B images, H and W pixels.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.exporting.description import Description


def as_inputs(pixels: Tensor, description: Description) -> NDArray[np.float32]:
    """(B, 3, H, W) float32: images (B, H, W, 3) uint8 RGB as the file takes them."""
    if description.normalization == "outside":
        return cast("NDArray[np.float32]", description.preprocessing.normalize(pixels).numpy())
    planes = np.ascontiguousarray(pixels.numpy().transpose(0, 3, 1, 2), np.float32)
    return planes / np.float32(255)


def misfit(pixels: Tensor, description: Description) -> str | None:
    """Why a program takes no images of this size (B, H, W, 3); None where it does."""
    height, width = pixels.shape[1:3]
    side = description.side
    if side is None or (height, width) == (side, side):
        return None
    return f"is {width} x {height}, but the model takes {side} x {side}"
