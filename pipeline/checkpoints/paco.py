"""PaCo (Cui et al. 2021): the query encoder of a momentum-contrast pair, and `linear`.

The encoder's own `fc` is the projection for the contrastive loss, not the classifier; the key
encoder and the queue serve training alone. The logits are W x + b on the plain pooled feature.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.checkpoints.building import assemble, linear_head
from pipeline.checkpoints.mapping import StateDict, inner
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import SAVED_OR_BARE, Payload
from pipeline.checkpoints.recognition import chosen_backbone
from pipeline.checkpoints.variants import parse_variant

NAME = "paco"

QUERY, KEY = "encoder_q.", "encoder_k."

TRAINING_ONLY = (KEY, "linear_k.", "queue", f"{QUERY}fc.")
"""How the names of the weights begin that no test image meets."""


@dataclass(frozen=True, eq=False)
class QueryEncoder:
    """The parts of such a file."""

    body: StateDict
    """The query encoder without its projection."""

    head: StateDict
    """The classifier."""

    left_out: tuple[str, ...]
    """Names of what serves training alone."""

    momentum: bool
    """There is a key encoder."""


def detect(payload: Payload) -> str | None:
    """`encoder_q`, `encoder_k` and `linear`."""
    found = query_encoder(payload)
    if found is None or not found.momentum:
        return None
    return f"encoder_q, encoder_k and linear.weight {tuple(found.head['weight'].shape)}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    return load_query_encoder(payload, variant, NAME)


def query_encoder(payload: Payload) -> QueryEncoder | None:
    """The query encoder and classifier that the file holds, if it is built so."""
    state = payload.state(*SAVED_OR_BARE)
    if state is None:
        return None
    head = inner(state, "linear")
    if "weight" not in head or not any(key.startswith(QUERY) for key in state):
        return None
    left_out = tuple(key for key in state if key.startswith(TRAINING_ONLY))
    used = {k: v for k, v in state.items() if k not in left_out and not k.startswith("linear.")}
    body = {key.removeprefix(QUERY): tensor for key, tensor in used.items()}
    return QueryEncoder(body, head, left_out, any(key.startswith(KEY) for key in state))


def load_query_encoder(payload: Payload, variant: str | None, family: str) -> TrainedModel:
    """The model of either family.

    Raises:
        CheckpointError: if the file lacks the families' parts, or a weight does not fit.
    """
    found = query_encoder(payload)
    if found is None:
        raise payload.foreign_to(family, "encoder_q and linear in state_dict")
    wish = parse_variant(family, variant)
    backbone = chosen_backbone(payload.path, found.body, wish.backbone, len(found.left_out))
    classifier = linear_head(payload.path, found.head)
    return assemble(
        payload,
        found.body,
        classifier,
        backbone,
        family=family,
        left_out=found.left_out,
    )
