"""BALMS, also known as BSCE (Ren et al. 2020), on CIFAR.

The logits are W x + b: the class counts are in the training loss alone. On ImageNet-LT and
Places-LT its files are those of classifier-balancing, whose code it grew from.
"""

from __future__ import annotations

from pipeline.checkpoints.building import assemble, linear_head
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import chosen_backbone, matching_backbone
from pipeline.checkpoints.two_networks import required, two_networks
from pipeline.checkpoints.variants import parse_variant

NAME = "balms"


def detect(payload: Payload) -> str | None:
    """A CIFAR ResNet in `feat_model`, a linear `classifier`, and no running mean `embed`."""
    found = two_networks(payload)
    if found is None or "embed" in payload.content or set(found.head) != {"weight", "bias"}:
        return None
    backbone = matching_backbone(found.body)
    if backbone is None or not backbone.name.startswith("cifar-resnet"):
        return None
    return f"feat_model of {backbone.name}, classifier fc {tuple(found.head['weight'].shape)}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    found = required(payload, NAME)
    wish = parse_variant(NAME, variant)
    backbone = chosen_backbone(payload.path, found.body, wish.backbone, len(found.head))
    classifier = linear_head(payload.path, found.head)
    return assemble(payload, found.body, classifier, backbone, family=NAME)
