"""BagofTricks-LT (Zhang et al. 2021), the code in which DiVE (He et al. 2021) is written.

One network of `backbone` and `classifier`. The classifier is an ordinary layer; FCNorm, whose
logits are bare cosines of a weight (C, D); cRT's, under `classifier.fc`; or LWS's, with scales.
"""

from __future__ import annotations

from cache import Classifier
from pipeline.backbones import Backbone
from pipeline.checkpoints.building import (
    assemble,
    cosine_head,
    linear_head,
    scaled_or_linear_head,
)
from pipeline.checkpoints.mapping import StateDict, inner
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import SAVED_OR_BARE, Payload
from pipeline.checkpoints.recognition import chosen_backbone
from pipeline.checkpoints.variants import parse_variant
from pipeline.errors import CheckpointError

NAME = "bagoftricks"

PARTS = ("backbone.", "classifier.")

UNNORMALIZED = "fc"
"""Rule of a layer without bias that is no FCNorm; the two have the same key."""


def detect(payload: Payload) -> str | None:
    """A state dict of `backbone.*` and `classifier.*` alone."""
    state = payload.state(*SAVED_OR_BARE)
    if state is None or not all(any(key.startswith(part) for key in state) for part in PARTS):
        return None
    if any(not key.startswith(PARTS) for key in state):
        return None
    head = inner(state, "classifier")
    return f"state_dict of backbone.* and classifier.* ({', '.join(head)})"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone, or `fc` for a layer without bias that is no cosine.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    state = payload.state(*SAVED_OR_BARE)
    if state is None or detect(payload) is None:
        raise payload.foreign_to(NAME, "backbone.* and classifier.* in state_dict")
    wish = parse_variant(NAME, variant, rules=(UNNORMALIZED,))
    body, head = inner(state, "backbone"), inner(state, "classifier")
    backbone = chosen_backbone(payload.path, body, wish.backbone, len(head))
    classifier, words, notes = _classifier(payload.path, head, backbone, wish.rule)
    return assemble(
        payload,
        body,
        classifier,
        backbone,
        family=NAME,
        head=words,
        notes=notes,
        variant=wish.rule or "",
    )


def _classifier(
    source: str, head: StateDict, backbone: Backbone, rule: str | None
) -> tuple[Classifier, str, tuple[str, ...]]:
    """The linear head, what it is, and what to know about it."""
    if "fc.weight" in head:
        plain = {key.removeprefix("fc."): tensor for key, tensor in head.items()}
        return *scaled_or_linear_head(source, plain), ()
    if "weight" not in head:
        raise CheckpointError(
            f"{source}: its classifier holds {', '.join(head)}, so it is no linear layer."
        )
    if "bias" in head or rule == UNNORMALIZED:
        return linear_head(source, head), "linear", ()
    classifier = cosine_head(source, head, backbone.feature_width, transposed=False)
    note = (
        f"classifier.weight {tuple(head['weight'].shape)} has no bias, so it is taken for FCNorm: "
        f"the old logits are cosines without a scale, within -1..1. If it is a layer without "
        f"bias, say --model {NAME}:{UNNORMALIZED}."
    )
    return classifier, "FCNorm (C, D): cosine without a scale", (note,)
