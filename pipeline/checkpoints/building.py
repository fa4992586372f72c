"""What families share: find the backbone that weights belong to, and build it around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache import Classifier
from pipeline.backbones import BACKBONES, Backbone, CosineLinear, find_backbone
from pipeline.checkpoints.mapping import StateDict, load_strictly, mismatches
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import CheckpointError, ConfigError

HEAD_NAMES = ("fc", "linear", "classifier", "head")
"""What networks call their last layer."""

MATRIX = 2


@dataclass(frozen=True, eq=False)
class Weights:
    """A state dict whose classifier is known."""

    body: StateDict
    """All but the classifier, by names without `module.`."""

    head: StateDict
    """The classifier: `weight`, and `bias` where it has one."""

    head_name: str
    """What the file calls the classifier."""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the classifier's matrix."""
        return tuple(self.head["weight"].shape)


def split_head(state: StateDict, *names: str) -> Weights | None:
    """Separate the classifier, the first of `names` that has a matrix, from the rest."""
    for name in names:
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.ndim == MATRIX:
            prefix = f"{name}."
            head = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            body = {k: v for k, v in state.items() if not k.startswith(prefix)}
            return Weights(body, head, name)
    return None


def matching_backbone(weights: Weights) -> Backbone | None:
    """The registered backbone whose keys and shapes before the classifier are exactly these."""
    for backbone in BACKBONES.values():
        with torch.device("meta"):  # shapes without memory
            network = backbone.build(1)
        _replace(network, backbone.classifier, nn.Identity())
        if not mismatches(network, weights.body):
            return backbone
    return None


def chosen_backbone(payload: Payload, weights: Weights, name: str | None) -> Backbone:
    """The backbone that the user named, or else the one that matches.

    Raises:
        CheckpointError: if none matches, or none has that name.
    """
    if name is not None:
        try:
            return find_backbone(name)
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
    found = matching_backbone(weights)
    if found is None:
        raise CheckpointError(
            f"{payload.path}: the keys and shapes of its {len(weights.body)} weights beside "
            f"{weights.head_name!r} are those of no known backbone ({', '.join(BACKBONES)}). "
            f"Name one with --model FAMILY:BACKBONE to see which keys differ."
        )
    return found


def assemble(
    payload: Payload,
    weights: Weights,
    backbone: Backbone,
    *,
    family: str,
    preprocessing: Preprocessing,
    cosine: bool = False,
    notes: tuple[str, ...] = (),
) -> TrainedModel:
    """The backbone with these weights, frozen and in evaluation mode.

    Args:
        payload: the file.
        weights: its weights; the classifier's matrix is (C, D).
        backbone: the network.
        family: name of the checkpoint family.
        preprocessing: of test images.
        cosine: the logits are bare cosines of features and class weights.
        notes: what a user should know.

    Raises:
        CheckpointError: if a weight is missing, left over or of a wrong shape.
    """
    n_classes, bias = weights.weight_shape[0], weights.head.get("bias")
    network = backbone.build(n_classes)
    if cosine:
        _replace(network, backbone.classifier, CosineLinear(backbone.feature_width, n_classes))
    elif bias is None:
        plain = nn.Linear(backbone.feature_width, n_classes, bias=False)
        _replace(network, backbone.classifier, plain)
    head = {f"{backbone.classifier}.{name}": tensor for name, tensor in weights.head.items()}
    load_strictly(network, {**weights.body, **head}, payload.path)
    return TrainedModel(
        family=family,
        backbone=backbone.name,
        module=network.eval().requires_grad_(False),
        classifier_name=backbone.classifier,
        classifier=Classifier(
            weight=_array(weights.head["weight"]),
            bias=None if bias is None else _array(bias),
            normalized=cosine,
        ),
        preprocessing=preprocessing,
        source=payload.path,
        sha256=payload.sha256,
        notes=notes,
    )


def _replace(network: nn.Module, name: str, part: nn.Module) -> None:
    """Put `part` in the place of the submodule of that dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, part)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", tensor.detach().float().numpy().copy())
