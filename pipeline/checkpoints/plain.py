"""Any bare state dict of a known network under an ordinary linear classifier.

The file is the state dict itself, or keeps it under one of the usual names. Networks of our own and
torchvision's are found by their keys and shapes; timm's by the file's `arch`, or by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.backbones import BACKBONES, Backbone
from pipeline.checkpoints.building import (
    HEAD_NAMES,
    Weights,
    assemble,
    linear_head,
    split_head,
)
from pipeline.checkpoints.library import hinted_backbone, load_library, torchvision_backbone
from pipeline.checkpoints.mapping import StateDict, inner
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import (
    chosen_backbone,
    matching_backbone,
    named_backbone,
    nearest_backbone,
)
from pipeline.checkpoints.variants import parse_variant
from pipeline.errors import CheckpointError

NAME = "plain"

PLACES: tuple[tuple[str, ...], ...] = ((), ("state_dict",), ("model",), ("model_state_dict",))
"""Where a state dict may lie: at the top level, or under a key."""


@dataclass(frozen=True, eq=False)
class Found:
    """A network, and the weights for it."""

    backbone: Backbone
    """The network."""

    weights: Weights | None
    """Its weights, the classifier set apart; None where a library's own names are kept."""


def detect(payload: Payload) -> str | None:
    """A state dict whose keys and shapes are those of a network that is known."""
    state = payload.state(*PLACES)
    found = None if state is None else _found(payload, state)
    if state is None or found is None:
        return None
    head = inner(state, found.backbone.classifier).get("weight")
    name = f"{found.backbone.classifier}.weight"
    if found.weights is not None:
        name, head = f"{found.weights.head_name}.weight", found.weights.head["weight"]
    shape = "" if head is None else f" {tuple(head.shape)}"
    return f"a state dict of {found.backbone.name} with {name}{shape}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone.

    Raises:
        CheckpointError: if there is no state dict, no linear classifier in it, or a weight does
            not fit.
    """
    state = payload.state(*PLACES)
    if state is None:
        raise CheckpointError(_nothing_plain(payload))
    name = parse_variant(NAME, variant).backbone
    if name is not None and name not in BACKBONES:
        backbone = named_backbone(payload.path, name)
        return load_library(payload, state, backbone, family=NAME, notes=_notes(backbone))
    found = _found(payload, state) if name is None else None
    if found is not None and found.weights is None:
        notes = _notes(found.backbone)
        return load_library(payload, state, found.backbone, family=NAME, notes=notes)
    weights = split_head(state, *HEAD_NAMES)
    if weights is None:
        raise CheckpointError(_nothing_plain(payload))
    return _assembled(payload, weights, chosen_backbone(payload.path, weights.body, name))


def _assembled(payload: Payload, weights: Weights, backbone: Backbone) -> TrainedModel:
    """One of our own networks, or torchvision's under another name for the classifier."""
    if "bias" not in weights.head and weights.weight_shape[1] != backbone.feature_width:
        raise CheckpointError(
            f"{payload.path}: {weights.head_name}.weight {weights.weight_shape} without a bias is "
            f"no linear layer on {backbone.feature_width} features; if it is LDAM's NormedLinear, "
            f"say --model ldam-drw."
        )
    return assemble(
        payload,
        weights.body,
        linear_head(payload.path, weights.head),
        backbone,
        family=NAME,
        preprocessing=backbone.preprocessing,
        notes=_notes(backbone),
    )


def _found(payload: Payload, state: StateDict) -> Found | None:
    """The network that the weights are of."""
    weights = split_head(state, *HEAD_NAMES)
    if weights is not None and (backbone := matching_backbone(weights.body)) is not None:
        return Found(backbone, weights)
    backbone = hinted_backbone(payload, state) or torchvision_backbone(state)
    return None if backbone is None else Found(backbone, None)


def nearest(payload: Payload) -> str:
    """Which network a file that nobody recognises comes nearest to, in a sentence or not at all."""
    state = payload.state(*PLACES)
    weights = None if state is None else split_head(state, *HEAD_NAMES)
    return "" if weights is None else nearest_backbone(weights.body)


def _notes(backbone: Backbone) -> tuple[str, ...]:
    return (
        f"The file does not say how test images were prepared: the way usual for {backbone.name} "
        f"is assumed. Set --mean, --std, --resize and --crop if the old accuracy looks wrong.",
    )


def _nothing_plain(payload: Payload) -> str:
    places = ", ".join(".".join(place) for place in PLACES if place)
    return (
        f"{payload.path}: a plain checkpoint is a state dict, alone or under {places}, with a "
        f"classifier called {', '.join(HEAD_NAMES)}; this file holds {payload.describe()}. "
        f"Name the network with --model {NAME}:torchvision/NAME or --model {NAME}:timm/NAME."
    )
