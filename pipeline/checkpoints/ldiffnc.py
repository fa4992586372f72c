"""LDiffNC and the inducing-neural-collapse code under it: CIFAR ResNets, the head beside them.

`state_dict` is the backbone alone; `classifier` holds the head, and `classifier_etf` the fixed
simplex that training pulls the features to. With the LDAM loss the head is a NormedLinear.
"""

from __future__ import annotations

from pipeline.checkpoints.building import assemble, normed_or_linear_head
from pipeline.checkpoints.mapping import StateDict, inner
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import chosen_backbone
from pipeline.checkpoints.variants import parse_variant

NAME = "ldiffnc"

SIMPLEX = "classifier_etf"


def detect(payload: Payload) -> str | None:
    """`classifier` with `fc` beside a `state_dict` that has none."""
    body, head = _body(payload), _head(payload)
    if not body or "weight" not in head or any(key.startswith("fc.") for key in body):
        return None
    simplex = f" and {SIMPLEX}" if SIMPLEX in payload.content else ""
    return f"classifier.fc.weight {tuple(head['weight'].shape)}{simplex} beside state_dict"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    body, head = _body(payload), _head(payload)
    if not body or "weight" not in head:
        keeps = "the backbone in state_dict and the head in classifier, under fc"
        raise payload.foreign_to(NAME, keeps)
    wish = parse_variant(NAME, variant)
    backbone = chosen_backbone(payload.path, body, wish.backbone, len(head))
    left_out = (SIMPLEX,) if SIMPLEX in payload.content else ()
    classifier, words = normed_or_linear_head(payload.path, head, backbone.feature_width)
    return assemble(payload, body, classifier, backbone, family=NAME, head=words, left_out=left_out)


def _body(payload: Payload) -> StateDict:
    return payload.state(("state_dict",)) or {}


def _head(payload: Payload) -> StateDict:
    return inner(payload.state(("classifier",)) or {}, "fc")
