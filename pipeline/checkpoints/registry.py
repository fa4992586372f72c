"""The checkpoint families, and how a file finds its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pipeline.backbones import BACKBONES
from pipeline.backbones.named import library_of
from pipeline.checkpoints import (
    bagoftricks,
    balms,
    classifier_balancing,
    gpaco,
    lade,
    ldam_drw,
    ldiffnc,
    ldmlr,
    mislas,
    own,
    paco,
    plain,
    ride,
)
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload, read_payload
from pipeline.errors import CheckpointError


class Family(Protocol):
    """One way of saving a trained classifier: a module with these three names."""

    NAME: str
    """What users write after `--model`."""

    def detect(self, payload: Payload) -> str | None:
        """Evidence that the file is of this family, from keys and shapes; None without."""

    def load(self, payload: Payload, variant: str | None) -> TrainedModel:
        """The model; `variant` is what users write after `--model NAME:`, usually a backbone.

        Raises:
            CheckpointError: if a part is missing, left over or of a wrong shape.
        """


SPECIFIC: tuple[Family, ...] = (
    own,
    ldmlr,
    ldam_drw,
    balms,
    classifier_balancing,
    lade,
    bagoftricks,
    mislas,
    ride,
    paco,
    gpaco,
    ldiffnc,
)
"""Families that leave marks of their own in a file; add one here."""

FAMILIES: tuple[Family, ...] = (*SPECIFIC, plain)
"""All families; the plain one is asked only when no specific one recognises the file."""


ALIASES: Mapping[str, str] = {
    "dive": bagoftricks.NAME,
    "bsce": balms.NAME,
    "crt": classifier_balancing.NAME,
    "lws": classifier_balancing.NAME,
    "tau-norm": classifier_balancing.NAME,
    "fldm": ldmlr.NAME,
    "inc": ldiffnc.NAME,
}
"""Methods whose files are those of a family, under the names that users know."""


def load_checkpoint(path: Path | str, *, model: str = "auto") -> TrainedModel:
    """The trained classifier in a file, on the CPU; nothing in the file is executed.

    Args:
        path: a file of `torch.save` or safetensors.
        model: `auto` finds the family by keys and shapes; FAMILY, FAMILY:BACKBONE, or the name of
            a library's network (torchvision/NAME, timm/NAME) for a plain state dict.

    Raises:
        UndecidedError: if the logits depend on something that the file does not tell.
        CheckpointError: if the file is missing, unreadable or unsafe; if its family is unknown or
            could be two; if keys are missing, left over or of a wrong shape, with the keys.
    """
    chosen = None if model == "auto" else named(model)
    payload = read_payload(path)
    family, variant = (detected(payload)[0], None) if chosen is None else chosen
    return family.load(payload, variant)


def find_family(name: str) -> Family | None:
    """The family of that name or alias."""
    name = ALIASES.get(name, name)
    return next((family for family in FAMILIES if name == family.NAME), None)


def detected(payload: Payload) -> tuple[Family, str]:
    """The one family that recognises the file, and its evidence.

    Raises:
        CheckpointError: if none does or two do, with what they found.
    """
    for candidates in (SPECIFIC, (plain,)):
        evidence = [(family, found) for family in candidates if (found := family.detect(payload))]
        if len(evidence) == 1:
            return evidence[0]
        if evidence:
            listed = "; ".join(f"{family.NAME} ({found})" for family, found in evidence)
            raise CheckpointError(
                f"{payload.path}: could be of {len(evidence)} families: {listed}. "
                f"Choose with --model {' or --model '.join(f.NAME for f, _ in evidence)}."
            )
    raise CheckpointError(
        f"{payload.path}: no family recognises it. {plain.nearest(payload)}"
        f"It holds {payload.describe()}. "
        f"If you know what it is, {_choices()}."
    )


def named(model: str) -> tuple[Family, str | None]:
    """Family and variant of FAMILY[:VARIANT], or the plain family for a library's network.

    Raises:
        CheckpointError: if there is neither of that name.
    """
    name, _, variant = model.partition(":")
    family = find_family(name)
    if family is not None:
        return family, variant or None
    if library_of(model) is not None:
        return plain, model
    raise CheckpointError(f"No checkpoint family is called {name!r}; {_choices()}.")


def _choices() -> str:
    families = ", ".join(family.NAME for family in FAMILIES)
    return (
        f"name it with --model FAMILY[:BACKBONE], FAMILY one of {families} and BACKBONE one of "
        f"{', '.join(BACKBONES)}, torchvision/NAME or timm/NAME"
    )
