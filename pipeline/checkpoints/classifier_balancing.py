"""classifier-balancing (Kang et al. 2020): cRT, LWS and tau-normalisation on ImageNet-LT & co.

cRT's logits are W x + b, LWS's scales * (W x + b). Tau-normalisation has no file of its own: it
divides the rows of a trained W by their lengths to the power of tau and drops the bias, which
`--model classifier-balancing:tau=T` does.
"""

from __future__ import annotations

import numpy as np

from cache import Classifier
from pipeline.checkpoints.building import SCALES, assemble, linear_head, scaled_or_linear_head
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import chosen_backbone, is_small, matching_backbone
from pipeline.checkpoints.two_networks import TwoNetworks, required, two_networks
from pipeline.checkpoints.variants import parse_number, parse_variant

NAME = "classifier-balancing"


def detect(payload: Payload) -> str | None:
    """A large network in `feat_model`, or the scales of LWS; no running mean `embed`."""
    found = two_networks(payload)
    if found is None or "weight" not in found.head or "embed" in payload.content:
        return None
    backbone = matching_backbone(found.body)
    if backbone is None or (is_small(backbone) and SCALES not in found.head):
        return None
    scales = " with scales" if SCALES in found.head else ""
    shape = tuple(found.head["weight"].shape)
    return f"feat_model of {backbone.name}, classifier fc {shape}{scales}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone, or tau=T.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    found = required(payload, NAME)
    wish = parse_variant(NAME, variant, settings=("tau",))
    backbone = chosen_backbone(payload.path, found.body, wish.backbone, len(found.head))
    classifier, head = scaled_or_linear_head(payload.path, found.head)
    if "tau" in wish.settings:
        meaning = "tau is a number, 0 to 2 in the paper"
        tau = parse_number(NAME, "tau", wish.settings["tau"], meaning=meaning)
        classifier = tau_normalized(linear_head(payload.path, found.head, known=(SCALES,)), tau)
        head = f"tau-normalised with tau {tau:g}: W / |W|^tau without bias"
    return assemble(
        payload,
        found.body,
        classifier,
        backbone,
        family=NAME,
        head=head,
        notes=_notes(found),
        variant=f"tau={wish.settings['tau']}" if "tau" in wish.settings else "",
    )


def tau_normalized(classifier: Classifier, tau: float) -> Classifier:
    """The head with each row of W divided by its length to the power of tau, and no bias.

    Kang et al. 2020, eq. (3).
    """
    lengths = np.linalg.norm(classifier.weight, axis=1, keepdims=True)
    return Classifier(classifier.weight / np.maximum(lengths, 1e-12) ** np.float32(tau))


def _notes(found: TwoNetworks) -> tuple[str, ...]:
    if SCALES in found.head:
        return ("LWS moved BatchNorm's statistics: backbone and head are both from this file.",)
    return (
        "Stage 1, cRT, and BALMS on large images save the same keys; their rule is the same too.",
    )
