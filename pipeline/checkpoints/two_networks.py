"""Files that keep a feature network and a classifier side by side.

The code of OLTR (Liu et al. 2019) saves them so, and with it all that grew from it:
classifier-balancing, BALMS and LADE. `final_model_checkpoint.pth` holds the best epoch's weights
in `state_dict_best`, `latest_model_checkpoint.pth` the last one's in `state_dict`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.checkpoints.building import SCALES
from pipeline.checkpoints.mapping import StateDict, inner
from pipeline.checkpoints.payload import Payload
from pipeline.errors import CheckpointError

PLACES = ("state_dict_best", "state_dict")


@dataclass(frozen=True, eq=False)
class TwoNetworks:
    """The two state dicts, by names without `module.`."""

    body: StateDict
    """The feature network."""

    head: StateDict
    """The classifier: `weight` and `bias` of its `fc`, `scales`, and whatever else under its
    full name: a `weight` outside of `fc` belongs to a classifier that is not linear."""


def two_networks(payload: Payload) -> TwoNetworks | None:
    """The feature network and classifier that the file holds, if it is built so."""
    for place in PLACES:
        body = payload.state((place, "feat_model"))
        head = payload.state((place, "classifier"))
        if body is not None and head is not None:
            named = {
                key if key == SCALES else f"classifier.{key}": tensor
                for key, tensor in head.items()
                if not key.startswith("fc.")
            }
            return TwoNetworks(body, inner(head, "fc") | named)
    return None


def required(payload: Payload, family: str) -> TwoNetworks:
    """The same.

    Raises:
        CheckpointError: if the file is not built so, or its classifier is of a kind without `fc`.
    """
    found = two_networks(payload)
    if found is None:
        raise payload.foreign_to(family, f"feat_model and classifier in {' or '.join(PLACES)}")
    if "weight" not in found.head:
        raise CheckpointError(
            f"{payload.path}: its classifier holds {', '.join(found.head)} and no fc.weight, so it "
            f"is no linear layer on the features; only linear classifiers can be re-trained."
        )
    return found
