"""LDAM-DRW (Cao et al. 2019): CIFAR ResNets under `linear`, trained with LDAM or cross entropy.

LDAM's classifier is a NormedLinear: a matrix (D, C) without bias whose logits are bare cosines;
its scale of 30 exists only in the loss. The other losses train an ordinary linear layer.
"""

from __future__ import annotations

from pipeline.checkpoints.building import (
    Weights,
    assemble,
    cosine_head,
    linear_head,
    split_head,
)
from pipeline.checkpoints.mapping import tensors_of, without_module_prefix
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import chosen_backbone, matching_backbone
from pipeline.checkpoints.variants import parse_variant
from pipeline.errors import CheckpointError

NAME = "ldam-drw"

TOP_LEVEL = ("epoch", "arch", "state_dict", "best_acc1")
"""What its script saves; it took the form from torch's ImageNet example, as many others did."""


def detect(payload: Payload) -> str | None:
    """The script's top level, and a known CIFAR network under `linear`."""
    if not all(key in payload.content for key in TOP_LEVEL):
        return None
    weights = _weights(payload)
    backbone = None if weights is None else matching_backbone(weights.body)
    if weights is None or backbone is None or not backbone.name.startswith("cifar-resnet"):
        return None
    return f"{', '.join(TOP_LEVEL)}; linear.weight {weights.weight_shape} on {backbone.name}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    weights = _weights(payload)
    if weights is None:
        raise CheckpointError(
            f"{payload.path}: a file of the family {NAME} keeps its weights in state_dict, the "
            f"classifier under linear; this one holds {payload.describe()}. "
            f"Name another family with --model."
        )
    wish = parse_variant(NAME, variant)
    backbone = chosen_backbone(payload.path, weights.body, wish.backbone)
    if "bias" in weights.head:
        classifier = linear_head(payload.path, weights.head)
        return assemble(payload, weights.body, classifier, backbone, family=NAME)
    width = backbone.feature_width
    classifier = cosine_head(payload.path, weights.head, width, transposed=True)
    return assemble(
        payload,
        weights.body,
        classifier,
        backbone,
        family=NAME,
        head="NormedLinear (D, C): cosine without a scale",
        notes=(
            f"linear.weight {weights.weight_shape} has no bias, so it is LDAM's NormedLinear: the "
            f"old logits are cosines without a scale, within -1..1.",
        ),
    )


def _weights(payload: Payload) -> Weights | None:
    # A bare state dict counts too where the user names the family: people re-save such files.
    state = tensors_of(payload.mapping("state_dict")) or tensors_of(payload.content)
    return None if state is None else split_head(without_module_prefix(state), "linear")
