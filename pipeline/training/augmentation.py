"""Augmentation of whole batches of uint8 images, and mixup.

B images of H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Shift:
    """Random crop after padding, and a mirror image half the time."""

    padding: int
    """Pixels added on each side."""

    colour: tuple[int, int, int]
    """Of the padding, R, G, B in 0..255."""

    flip: bool
    """Mirror left to right with probability one half."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """A shifted, perhaps mirrored copy of each image.

        Args:
            images: (B, H, W, 3) uint8 on any device.
            generator: on the CPU, so that the draws are the same on every device.
        """
        n, height, width, _ = images.shape
        top, left = (
            torch.randint(2 * self.padding + 1, (n, 1), generator=generator) for _ in range(2)
        )
        rows = top + torch.arange(height)
        columns = left + torch.arange(width)
        if self.flip:
            mirrored = torch.rand(n, 1, generator=generator) < 0.5  # noqa: PLR2004  one half
            columns = torch.where(mirrored, columns.flip(1), columns)
        device = images.device
        batch = torch.arange(n, device=device).view(n, 1, 1)
        rows = rows.to(device, non_blocking=True).view(n, height, 1)
        columns = columns.to(device, non_blocking=True).view(n, 1, width)
        return self._padded(images)[batch, rows, columns]

    def _padded(self, images: Tensor) -> Tensor:
        """(B, H + 2 padding, W + 2 padding, 3): the images in a frame of one colour."""
        if self.padding == 0:
            return images
        n, height, width, channels = images.shape
        border = 2 * self.padding
        canvas = images.new_empty(n, height + border, width + border, channels)
        canvas[:] = images.new_tensor(self.colour)
        inner = slice(self.padding, -self.padding)
        canvas[:, inner, inner] = images
        return canvas


@dataclass(frozen=True, eq=False)
class Mix:
    """Which images are mixed, and how much of each (Zhang et al. 2018)."""

    share: float
    """Of an image itself; its partner has the rest."""

    partner: Tensor
    """(B,) the row whose image and label are mixed in."""

    def images(self, x: Tensor) -> Tensor:
        """Mixed images (B, ...), floating point."""
        return x[self.partner].lerp(x, self.share)


def draw_mix(
    n: int, alpha: float, shares: np.random.Generator, generator: Generator, device: torch.device
) -> Mix | None:
    """How a batch of n images is mixed, one share for all; None where alpha is 0."""
    if alpha == 0:
        return None
    share = float(shares.beta(alpha, alpha))
    return Mix(share, torch.randperm(n, generator=generator).to(device, non_blocking=True))
