"""The residual networks for 32x32 images of He et al. 2016, sec. 4.2.

A 3x3 convolution, then three stages of n blocks with 16, 32 and 64 planes (6n + 2 layers), global
average pooling and a linear classifier. Shortcuts are the parameter-free option A: every second
pixel, and zeros for the new planes. Module names are those that long-tailed work has settled on.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F  # noqa: N812  the name the field uses
from torch import Tensor, nn

DEPTHS = (20, 32, 44, 56, 110)

STEM_PLANES = 16
STAGE_PLANES = (16, 32, 64)
FEATURE_WIDTH = STAGE_PLANES[-1]
LAYERS_PER_BLOCK = 2


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an option-A shortcut.

    Args:
        in_planes: planes of the input.
        planes: planes of the output.
        stride: of the first convolution.
    """

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride = stride
        # Half of the new planes before the old ones and half behind: papers leave the place
        # open, trained weights do not.
        self.new_planes = (planes - in_planes) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_planes, H, W) -> (B, planes, H / stride, W / stride), sizes rounded up."""
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual.add_(self.shortcut(x)), inplace=True)

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A: subsample the pixels, pad the planes with zeros."""
        if self.stride == 1 and self.new_planes == 0:
            return x
        subsampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(subsampled, (0, 0, 0, 0, self.new_planes, self.new_planes))


class CifarResNet(nn.Module):
    """ResNet-(6n + 2) for small images; any input size works, 32x32 is what it was made for.

    Args:
        depth: 6n + 2, such as 20, 32, 44, 56, 110.
        n_classes: C.
        widen: factor of all planes; 2 gives features of width 128.

    Raises:
        ValueError: if the depth has no such form.
    """

    def __init__(self, depth: int, n_classes: int, widen: int = 1) -> None:
        super().__init__()
        blocks, remainder = divmod(depth - 2, LAYERS_PER_BLOCK * len(STAGE_PLANES))
        if remainder or blocks < 1:
            raise ValueError(f"a CIFAR ResNet has 6n + 2 layers, not {depth}")
        stem = STEM_PLANES * widen
        first, second, third = (planes * widen for planes in STAGE_PLANES)
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = nn.Sequential(*stage(stem, first, blocks, stride=1))
        self.layer2 = nn.Sequential(*stage(first, second, blocks, stride=2))
        self.layer3 = nn.Sequential(*stage(second, third, blocks, stride=2))
        self.linear = nn.Linear(third, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def stage(in_planes: int, planes: int, blocks: int, *, stride: int) -> Iterator[BasicBlock]:
    """The blocks of one stage; the first one subsamples by `stride` and widens."""
    yield BasicBlock(in_planes, planes, stride)
    for _ in range(blocks - 1):
        yield BasicBlock(planes, planes, stride=1)
