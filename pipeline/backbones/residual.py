"""Residual networks for large images that long-tailed work uses and torchvision has no name for.

They are torchvision's own class at other depths: `resnet10` (Liu et al. 2019: one basic block a
stage) and ResNeXts of 32 groups of width 4 (Xie et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from pipeline.backbones.backbone import Backbone
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import ConfigError

IMAGENET_PREPROCESSING = Preprocessing(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    resize=256,
    crop=224,
)
"""What the long-tailed literature uses on ImageNet-LT, Places-LT and iNaturalist."""

LAST_PLANES = 512

NETWORKS: Mapping[str, dict[str, Any]] = {
    "resnet10": {"block": BasicBlock, "layers": [1, 1, 1, 1]},
    "resnext101_32x4d": {
        "block": Bottleneck, "layers": [3, 4, 23, 3], "groups": 32, "width_per_group": 4,
    },
    "resnext152_32x4d": {
        "block": Bottleneck, "layers": [3, 8, 36, 3], "groups": 32, "width_per_group": 4,
    },
}  # fmt: skip
"""torchvision's arguments by name."""


def backbone(name: str) -> Backbone:
    """The network of that name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in NETWORKS:
        raise ConfigError(
            f"No residual network is called {name!r}; there are {', '.join(NETWORKS)}."
        )
    return Backbone(
        name=name,
        build=partial(_build, name),
        classifier="fc",
        feature_width=LAST_PLANES * NETWORKS[name]["block"].expansion,
        preprocessing=IMAGENET_PREPROCESSING,
    )


def pretrained(name: str) -> tuple[nn.Module, Backbone]:
    """There are no weights for these.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"There are no published weights for {name}: give a file with --checkpoint.")


def _build(name: str, n_classes: int) -> nn.Module:
    network: nn.Module = ResNet(**NETWORKS[name], num_classes=n_classes)
    return network
