"""Which network weights belong to, from their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import NamedTuple

from torch import nn

from pipeline.backbones import BACKBONES, Backbone, find_backbone
from pipeline.backbones.finding import without_memory
from pipeline.checkpoints.mapping import OPTIONAL_SUFFIX, StateDict, differences
from pipeline.errors import CheckpointError, ConfigError

Shapes = Mapping[str, tuple[int, ...]]

_BLOCK = re.compile(r"layer(\d)\.(\d+)\.")

_CONVOLUTION = 4  # dimensions of its weight


class ResidualForm(NamedTuple):
    """What tells residual networks apart whose weights have the same names."""

    blocks: tuple[int, ...]
    """Of each stage."""

    bottleneck: bool
    """Whether a block narrows its input first, so that it has three convolutions."""

    groups: int
    """Of a bottleneck's middle convolution."""

    group_width: int
    """Channels of a group in the first stage."""


RESIDUAL: Mapping[tuple[tuple[int, ...], bool, int, int], str] = {
    ((1, 1, 1, 1), False, 1, 64): "resnet10",
    ((2, 2, 2, 2), False, 1, 64): "torchvision/resnet18",
    ((3, 4, 6, 3), False, 1, 64): "torchvision/resnet34",
    ((3, 4, 6, 3), True, 1, 64): "torchvision/resnet50",
    ((3, 4, 23, 3), True, 1, 64): "torchvision/resnet101",
    ((3, 8, 36, 3), True, 1, 64): "torchvision/resnet152",
    ((3, 4, 6, 3), True, 32, 4): "torchvision/resnext50_32x4d",
    ((3, 4, 23, 3), True, 32, 4): "resnext101_32x4d",
    ((3, 4, 23, 3), True, 32, 8): "torchvision/resnext101_32x8d",
    ((3, 4, 23, 3), True, 64, 4): "torchvision/resnext101_64x4d",
    ((3, 8, 36, 3), True, 32, 4): "resnext152_32x4d",
    ((3, 4, 6, 3), True, 1, 128): "torchvision/wide_resnet50_2",
    ((3, 4, 23, 3), True, 1, 128): "torchvision/wide_resnet101_2",
}
"""Residual networks by their `ResidualForm`, whose first stage has 64 planes."""


def matching_backbone(body: StateDict) -> Backbone | None:
    """The network whose names and shapes before its classifier are exactly these.

    Small networks and torchvision's residual family are tried, under torchvision's own names.

    Args:
        body: weights without those of the classifier.
    """
    shapes = shapes_of(body)
    residual = _residual_name(shapes)
    for name in (*BACKBONES, *([] if residual is None else [residual])):
        if backbone_shapes(name) == shapes:
            return find_backbone(name)
    return None


def named_backbone(source: str, name: str) -> Backbone:
    """The network that the user named.

    Raises:
        CheckpointError: if none has that name.
    """
    try:
        return find_backbone(name)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from None


def chosen_backbone(source: str, body: StateDict, name: str | None, left_out: int = 0) -> Backbone:
    """The network that the user named, or else the one that matches.

    Args:
        source: path for messages.
        body: weights without those of the classifier.
        name: what the user named; None for nothing.
        left_out: weights of the file that are not among `body`, for the message.

    Raises:
        CheckpointError: if none matches, or none has that name.
    """
    if name is not None:
        return named_backbone(source, name)
    found = matching_backbone(body)
    if found is None:
        beside = f" ({left_out} others are the classifier or for training alone)" * (left_out > 0)
        raise CheckpointError(
            f"{source}: the names and shapes of its {len(body)} weights before the classifier"
            f"{beside} are those of no known backbone ({', '.join(BACKBONES)} or torchvision's "
            f"residual networks). Name one with --model FAMILY:BACKBONE to see which differ."
        )
    return found


def nearest_backbone(body: StateDict) -> str:
    """Which network of our own the weights come nearest to, and what keeps them from being it.

    A sentence for a message; empty where fewer than half of any network's weights are there.
    """
    shapes = shapes_of(body)
    shared = {
        name: sum(shapes.get(key) == shape for key, shape in backbone_shapes(name).items())
        for name in BACKBONES
    }
    name = max(shared, key=lambda key: shared[key] / len(backbone_shapes(key)))
    if 2 * shared[name] < len(backbone_shapes(name)):
        return ""
    return f"Nearest is {name}: {'; '.join(differences(backbone_shapes(name), shapes))}. "


def shapes_of(state: StateDict) -> Shapes:
    """Shape of every weight by name; the counters that old files lack are left out."""
    return {
        name: tuple(weight.shape)
        for name, weight in state.items()
        if not name.endswith(OPTIONAL_SUFFIX)
    }


@cache
def backbone_shapes(name: str) -> Shapes:
    """Shapes of a network's weights before its classifier."""
    backbone = find_backbone(name)
    network: nn.Module = without_memory(partial(backbone.build, 1))
    head = f"{backbone.classifier}."
    shapes = shapes_of(network.state_dict())
    return {key: shape for key, shape in shapes.items() if not key.startswith(head)}


def is_small(backbone: Backbone) -> bool:
    """Whether the network is made for small images such as CIFAR's, which nobody resizes."""
    return backbone.preprocessing.resize is None


def residual_form(shapes: Shapes, places: Iterable[tuple[int, int]], first: str) -> ResidualForm:
    """The form of a residual network, from its weights.

    Args:
        shapes: of the weights, by name.
        places: stage, from 1, and block, from 0, that weights are of.
        first: what the names of the first block begin with, such as `layer1.0`.

    Raises:
        KeyError, ValueError, ZeroDivisionError: if weights are missing, or the network is another.
    """
    blocks: dict[int, int] = {}
    for stage, block in places:
        blocks[stage] = max(blocks.get(stage, 0), block + 1)
    order = sorted(blocks)
    if not order or order != list(range(1, len(order) + 1)):
        raise ValueError(f"stages {order}")
    bottleneck = f"{first}.conv3.weight" in shapes
    middle = shapes[f"{first}.conv2.weight"]
    if len(middle) != _CONVOLUTION:
        raise ValueError(f"{first}.conv2.weight of shape {middle}")
    # Of a grouped convolution the weight has the input channels of one group.
    groups = middle[0] // middle[1] if bottleneck else 1
    depths = tuple(blocks[stage] for stage in order)
    return ResidualForm(depths, bottleneck, groups, middle[0] // groups)


def _residual_name(shapes: Shapes) -> str | None:
    """The residual network that has these stages, if the weights are of one."""
    found = [match for key in shapes if (match := _BLOCK.match(key)) is not None]
    places = [(int(match[1]), int(match[2])) for match in found]
    try:
        return RESIDUAL.get(residual_form(shapes, places, "layer1.0"))
    except (KeyError, ValueError, ZeroDivisionError):
        return None
