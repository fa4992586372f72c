"""LDMLR and FLDM: CIFAR ResNets under `fc`, with a normalisation of their own.

The training script keeps its whole configuration in the file: `train_info`, `dataset`, `model`
..., and the weights in `state_dict.model` beside the optimizer's state.
"""

from __future__ import annotations

from pipeline.checkpoints.building import Weights, assemble, linear_head, split_head
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import chosen_backbone, is_small
from pipeline.checkpoints.variants import parse_variant
from pipeline.datasets.preprocessing import Preprocessing

NAME = "ldmlr"

PREPROCESSING = Preprocessing(
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
)
"""Not the usual CIFAR constants, which cost the published model 2.5 points of accuracy."""


def detect(payload: Payload) -> str | None:
    """Weights in `state_dict.model`, class counts in `train_info`, classifier `fc`."""
    weights = _weights(payload)
    if weights is None or _class_counts(payload) is None:
        return None
    return f"state_dict.model with fc.weight {weights.weight_shape} and train_info.class_num_list"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    weights = _weights(payload)
    if weights is None:
        raise payload.foreign_to(NAME, "its weights in state_dict.model, the classifier under fc")
    wish = parse_variant(NAME, variant)
    backbone = chosen_backbone(payload.path, weights.body, wish.backbone)
    counts = _class_counts(payload)
    return assemble(
        payload,
        weights.body,
        linear_head(payload.path, weights.head),
        backbone,
        family=NAME,
        preprocessing=PREPROCESSING if is_small(backbone) else None,
        notes=() if counts is None else (_training_data(counts),),
    )


def _weights(payload: Payload) -> Weights | None:
    state = payload.state(("state_dict", "model"))
    return None if state is None else split_head(state, "fc")


def _class_counts(payload: Payload) -> list[int] | None:
    """Training images of each class, as the file records them."""
    counts = (payload.mapping("train_info") or {}).get("class_num_list")
    if not isinstance(counts, list) or not all(isinstance(count, int) for count in counts):
        return None
    return counts


def _training_data(counts: list[int]) -> str:
    return (
        f"The file says that it was trained on {sum(counts):,} images of {len(counts)} classes, "
        f"{max(counts, default=0)} to {min(counts, default=0)} a class."
    )
