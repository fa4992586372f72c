"""GPaCo (Cui et al. 2023): PaCo without the key encoder."""

from __future__ import annotations

from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.paco import load_query_encoder, query_encoder
from pipeline.checkpoints.payload import Payload

NAME = "gpaco"


def detect(payload: Payload) -> str | None:
    """`encoder_q` and `linear`, no `encoder_k`."""
    found = query_encoder(payload)
    if found is None or found.momentum:
        return None
    return f"encoder_q without encoder_k, linear.weight {tuple(found.head['weight'].shape)}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    return load_query_encoder(payload, variant, NAME)
