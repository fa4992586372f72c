"""Any bare state dict of a known network under an ordinary linear classifier.

The file is the state dict itself, or keeps it under one of the usual names.
"""

from __future__ import annotations

from pipeline.checkpoints.building import (
    HEAD_NAMES,
    Weights,
    assemble,
    chosen_backbone,
    matching_backbone,
    split_head,
)
from pipeline.checkpoints.mapping import tensors_of, without_module_prefix
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.errors import CheckpointError

NAME = "plain"

PLACES: tuple[tuple[str, ...], ...] = ((), ("state_dict",), ("model",), ("model_state_dict",))
"""Where a state dict may lie: at the top level, or under a key."""


def detect(payload: Payload) -> str | None:
    """A state dict whose keys and shapes are those of a registered backbone."""
    weights = _weights(payload)
    backbone = None if weights is None else matching_backbone(weights)
    if weights is None or backbone is None:
        return None
    return f"a state dict of {backbone.name} with {weights.head_name}.weight {weights.weight_shape}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone.

    Raises:
        CheckpointError: if there is no state dict, no linear classifier in it, or a weight does
            not fit.
    """
    weights = _weights(payload)
    if weights is None:
        places = ", ".join(".".join(place) for place in PLACES if place)
        raise CheckpointError(
            f"{payload.path}: a plain checkpoint is a state dict, alone or under {places}, with a "
            f"classifier called {', '.join(HEAD_NAMES)}; this file holds {payload.describe()}."
        )
    backbone = chosen_backbone(payload, weights, variant)
    if "bias" not in weights.head and weights.weight_shape[1] != backbone.feature_width:
        raise CheckpointError(
            f"{payload.path}: {weights.head_name}.weight {weights.weight_shape} without a bias is "
            f"no linear layer on {backbone.feature_width} features; if it is LDAM's NormedLinear, "
            f"say --model ldam-drw."
        )
    return assemble(
        payload,
        weights,
        backbone,
        family=NAME,
        preprocessing=backbone.preprocessing,
        notes=(
            "The file does not say how test images were normalised: the constants usual for "
            f"{backbone.name} are assumed. Set --mean and --std if the old accuracy looks wrong.",
        ),
    )


def _weights(payload: Payload) -> Weights | None:
    for place in PLACES:
        state = tensors_of(payload.mapping(*place))
        if state is not None:
            return split_head(without_module_prefix(state), *HEAD_NAMES)
    return None
