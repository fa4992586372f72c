"""Several experts on one stem: RIDE (Wang et al. 2021).

The first stages are shared; from there on every expert has stages and a head of its own, and the
logits are the mean of the experts' logits. That mean is one linear head on the concatenation of the
experts' features (normalised ones where the heads are cosines), which is how it is built here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  the name the field uses
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from pipeline.backbones import cifar_resnet

CLASSIFIER = "linear"


@dataclass(frozen=True)
class ExpertPlan:
    """What the weights of such a network say about its form."""

    small_images: bool
    """A 3x3 stem and option-A shortcuts, as on CIFAR; else a 7x7 stem with pooling."""

    blocks: tuple[int, ...]
    """Blocks of each stage."""

    planes: tuple[int, ...]
    """Planes of each stage; a bottleneck gives four times as many channels."""

    n_shared: int
    """Stages that all experts share."""

    n_experts: int
    """E."""

    bottleneck: bool = False
    """Blocks of three convolutions instead of two."""

    groups: int = 1
    """Groups of a bottleneck's 3x3 convolution."""

    group_width: int = 64
    """Channels of one group for 64 planes."""

    cosine: bool = False
    """The experts' heads are cosines: their features are normalised."""

    @property
    def expert_width(self) -> int:
        """Width of one expert's feature."""
        return self.planes[-1] * (Bottleneck.expansion if self.bottleneck else 1)

    @property
    def name(self) -> str:
        """How identities call the network, such as `ride-resnet32-3x48`."""
        convolutions = sum(self.blocks) * (3 if self.bottleneck else 2)
        kind = "resnext" if self.groups > 1 else "resnet"
        return f"ride-{kind}{convolutions + 2}-{self.n_experts}x{self.expert_width}"


class ExpertNetwork(nn.Module):
    """Shared stages, E experts, and one linear classifier on all their features.

    Args:
        plan: its form.
        n_classes: C.
    """

    def __init__(self, plan: ExpertPlan, n_classes: int) -> None:
        super().__init__()
        stages = _Stages(plan)
        self.cosine = plan.cosine
        self.shared = nn.Sequential()
        for name, part in stages.stem():
            self.shared.add_module(name, part)
        for index in range(plan.n_shared):
            self.shared.add_module(f"layer{index + 1}", stages.stage(index))
        self.experts = nn.ModuleList()
        for _ in range(plan.n_experts):
            expert = nn.Sequential()
            for index in range(plan.n_shared, len(plan.blocks)):
                expert.add_module(f"layer{index + 1}", stages.stage(index))
            self.experts.append(expert)
        self.linear = nn.Linear(plan.n_experts * plan.expert_width, n_classes)

    def expert_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> pooled features (B, E, D) as they enter the experts' own heads."""
        x = self.shared(x)
        return torch.stack([expert(x).mean(dim=(2, 3)) for expert in self.experts], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C) of all experts together."""
        features = self.expert_features(x)
        if self.cosine:
            features = F.normalize(features, dim=2)
        logits: Tensor = self.linear(features.flatten(1))
        return logits


class _Stages:
    """Makes the parts of a plan."""

    def __init__(self, plan: ExpertPlan) -> None:
        self._plan = plan
        self._expansion = Bottleneck.expansion if plan.bottleneck else 1
        self._stem_planes = cifar_resnet.STEM_PLANES if plan.small_images else 64

    def stem(self) -> Sequence[tuple[str, nn.Module]]:
        """What comes before the first stage, by name."""
        planes = self._stem_planes
        if self._plan.small_images:
            convolution = nn.Conv2d(3, planes, 3, padding=1, bias=False)
            pooling: list[tuple[str, nn.Module]] = []
        else:
            convolution = nn.Conv2d(3, planes, 7, stride=2, padding=3, bias=False)
            pooling = [("maxpool", nn.MaxPool2d(3, stride=2, padding=1))]
        norm, relu = nn.BatchNorm2d(planes), nn.ReLU(inplace=True)
        return [("conv1", convolution), ("bn1", norm), ("relu", relu), *pooling]

    def stage(self, index: int) -> nn.Sequential:
        """Stage `index`, from 0; all but the first subsample."""
        plan = self._plan
        planes, blocks = plan.planes[index], plan.blocks[index]
        before = self._stem_planes if index == 0 else plan.planes[index - 1] * self._expansion
        stride = 1 if index == 0 else 2
        if plan.small_images:
            return nn.Sequential(*cifar_resnet.stage(before, planes, blocks, stride=stride))
        first = self._block(before, planes, stride)
        rest = (self._block(planes * self._expansion, planes, 1) for _ in range(blocks - 1))
        return nn.Sequential(first, *rest)

    def _block(self, before: int, planes: int, stride: int) -> nn.Module:
        """One of torchvision's blocks."""
        plan, after = self._plan, planes * self._expansion
        downsample = None
        if stride != 1 or before != after:
            downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )
        block: nn.Module
        if plan.bottleneck:
            form = (plan.groups, plan.group_width)
            block = Bottleneck(before, planes, stride, downsample, *form)
        else:
            block = BasicBlock(before, planes, stride, downsample)
        return block
