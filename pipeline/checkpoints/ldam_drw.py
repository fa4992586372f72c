"""LDAM-DRW (Cao et al. 2019): CIFAR ResNets under `linear`, trained with LDAM or cross entropy.

LDAM's classifier is a NormedLinear: a matrix (D, C) without bias whose logits are bare cosines;
its scale of 30 exists only in the loss. The other losses train an ordinary linear layer.
"""

from __future__ import annotations

from pipeline.checkpoints.building import Weights, assemble, normed_or_linear_head, split_head
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import SAVED_OR_BARE, Payload
from pipeline.checkpoints.recognition import chosen_backbone, matching_backbone
from pipeline.checkpoints.variants import parse_variant

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
        raise payload.foreign_to(NAME, "its weights in state_dict, the classifier under linear")
    wish = parse_variant(NAME, variant)
    backbone = chosen_backbone(payload.path, weights.body, wish.backbone)
    width = backbone.feature_width
    classifier, words = normed_or_linear_head(payload.path, weights.head, width)
    cosines = (
        f"linear.weight {weights.weight_shape} has no bias, so it is LDAM's NormedLinear: the "
        f"old logits are cosines without a scale, within -1..1."
    )
    return assemble(
        payload,
        weights.body,
        classifier,
        backbone,
        family=NAME,
        head=words,
        notes=(cosines,) if classifier.normalized else (),
    )


def _weights(payload: Payload) -> Weights | None:
    state = payload.state(*SAVED_OR_BARE)
    return None if state is None else split_head(state, "linear")
