"""The cosine classifier."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  the name the field uses
from torch import Tensor, nn


class CosineLinear(nn.Module):
    """scale * cosine of the angle between feature and class weight; no bias.

    LDAM's NormedLinear (Cao et al. 2019) with the weight as (C, D), the way of `torch.nn.Linear`.

    Args:
        width: D.
        n_classes: C.
        scale: factor of the logits; LDAM's models give the bare cosine.
    """

    def __init__(self, width: int, n_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_classes, width).uniform_(-1, 1))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> logits (B, C)."""
        cosine = F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
        return cosine * self.scale
