"""A network small enough to train in seconds on one core: the demo's classifier."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812  the name the field uses
from torch import Tensor, nn

PLANES = (16, 32)
POOLED = 2
"""Side of the pooled map: 2x2 keeps a little of where things are, for any input size."""

FEATURE_WIDTH = PLANES[-1] * POOLED**2


class SmallCNN(nn.Module):
    """Two 3x3 convolutions and a linear classifier for RGB images of about 8x8 to 64x64.

    5,136 parameters without the classifier, which adds 129 for each class.

    Args:
        n_classes: C.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, PLANES[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(PLANES[0])
        self.conv2 = nn.Conv2d(PLANES[0], PLANES[1], 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(PLANES[1])
        self.linear = nn.Linear(FEATURE_WIDTH, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 2)
        x = F.relu(self.bn2(self.conv2(x)))
        features = F.adaptive_avg_pool2d(x, POOLED).flatten(1)
        logits: Tensor = self.linear(features)
        return logits
