"""The two-branch CIFAR ResNet of BBN (Zhou et al. 2020), as LADE (Hong et al. 2021) trains it.

A ResNet-32 whose last block exists twice, side by side on the same input; their outputs are
concatenated, so the feature is 128 wide.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  the name the field uses
from torch import Tensor, nn

from pipeline.backbones.cifar_resnet import STAGE_PLANES, STEM_PLANES, BasicBlock, stage

BLOCKS = 5
N_BRANCHES = 2
FEATURE_WIDTH = N_BRANCHES * STAGE_PLANES[-1]


class BbnResNet(nn.Module):
    """ResNet-32 for small images with two last blocks.

    Args:
        n_classes: C.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        first, second, third = STAGE_PLANES
        self.conv1 = nn.Conv2d(3, STEM_PLANES, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_PLANES)
        self.layer1 = nn.Sequential(*stage(STEM_PLANES, first, BLOCKS, stride=1))
        self.layer2 = nn.Sequential(*stage(first, second, BLOCKS, stride=2))
        self.layer3 = nn.Sequential(*stage(second, third, BLOCKS - 1, stride=2))
        self.cb_block = BasicBlock(third, third, stride=1)
        self.rb_block = BasicBlock(third, third, stride=1)
        self.linear = nn.Linear(FEATURE_WIDTH, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        both = torch.cat([self.cb_block(x), self.rb_block(x)], dim=1)
        logits: Tensor = self.linear(both.mean(dim=(2, 3)))
        return logits
