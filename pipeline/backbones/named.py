"""Backbones found by a rule instead of a list.

`torchvision/NAME`, `timm/NAME`, `efficientnet-lite0` and `package.module:factory`: what these
libraries hold is not listed here; a name is asked for when a user writes it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn

    from pipeline.backbones.backbone import Backbone


class Library(Protocol):
    """Where backbones come from: a module with these two functions."""

    def backbone(self, name: str) -> Backbone:
        """The network of that full name, with random weights when built.

        Raises:
            ConfigError: if the library lacks it, or it does not end in a linear classifier.
        """

    def pretrained(self, name: str) -> tuple[nn.Module, Backbone]:
        """The network with the weights that the library has for it, and its full description.

        Raises:
            ConfigError: if it has none, or they cannot be fetched.
        """


FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""PACKAGE.MODULE:FACTORY or MODULE:FACTORY."""


def is_factory(name: str) -> bool:
    """Whether the name is of a function, whose code runs only where the user writes the name."""
    return FACTORY.fullmatch(name) is not None


def library_of(name: str) -> Library | None:
    """The library that a backbone's name points to; None for a name of no such form."""
    if name.startswith("torchvision/"):
        from pipeline.backbones import torchvision_models

        return torchvision_models
    if name.startswith("timm/"):
        from pipeline.backbones import timm_models

        return timm_models
    if name in {"resnet10", "resnext101_32x4d", "resnext152_32x4d"}:
        from pipeline.backbones import residual

        return residual
    if name.startswith("efficientnet-lite"):
        from pipeline.backbones import efficientnet_lite

        return efficientnet_lite
    if is_factory(name):
        from pipeline.backbones import importable

        return importable
    return None
