"""The backbones by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from pipeline.backbones import bbn_resnet, cifar_resnet, small_cnn
from pipeline.backbones.backbone import Backbone
from pipeline.backbones.named import library_of
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import ConfigError

CIFAR_PREPROCESSING = Preprocessing(
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)
"""CIFAR-10's constants, which nearly all long-tailed work uses on CIFAR-100 too."""

HALF_PREPROCESSING = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Pixels in -1..1."""


def _cifar_resnet(depth: int, widen: int = 1) -> Backbone:
    return Backbone(
        name=f"cifar-resnet{depth}" + (f"x{widen}" if widen > 1 else ""),
        build=partial(cifar_resnet.CifarResNet, depth, widen=widen),
        classifier="linear",
        feature_width=cifar_resnet.FEATURE_WIDTH * widen,
        preprocessing=CIFAR_PREPROCESSING,
    )


_BBN_RESNET = Backbone(
    name="bbn-resnet32",
    build=bbn_resnet.BbnResNet,
    classifier="linear",
    feature_width=bbn_resnet.FEATURE_WIDTH,
    preprocessing=CIFAR_PREPROCESSING,
)

_SMALL_CNN = Backbone(
    name="small-cnn",
    build=small_cnn.SmallCNN,
    classifier="linear",
    feature_width=small_cnn.FEATURE_WIDTH,
    preprocessing=HALF_PREPROCESSING,
)

BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        backbone.name: backbone
        for backbone in (
            *map(_cifar_resnet, cifar_resnet.DEPTHS),
            _cifar_resnet(32, widen=2),
            _BBN_RESNET,
            _SMALL_CNN,
        )
    }
)
"""Every backbone that checkpoints are matched against; add one here and nowhere else."""


def find_backbone(name: str) -> Backbone:
    """The backbone of that name: a listed one, or one of a library (`pipeline.backbones.named`).

    Raises:
        ConfigError: if there is none, with the names that there are.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    library = library_of(name)
    if library is None:
        raise ConfigError(
            f"No backbone is called {name!r}; choose one of {', '.join(BACKBONES)}, "
            f"torchvision/NAME, timm/NAME, efficientnet-lite0 or PACKAGE.MODULE:FACTORY."
        )
    return library.backbone(name)
