"""The checkpoint families, and how a file finds its own."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pipeline.backbones import BACKBONES
from pipeline.checkpoints import ldam_drw, ldmlr, plain
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


SPECIFIC: tuple[Family, ...] = (ldmlr, ldam_drw)
"""Families that leave marks of their own in a file; add one here."""

FAMILIES: tuple[Family, ...] = (*SPECIFIC, plain)
"""All families; the plain one is asked only when no specific one recognises the file."""


def load_checkpoint(path: Path | str, *, model: str = "auto") -> TrainedModel:
    """The trained classifier in a file, on the CPU; nothing in the file is executed.

    Args:
        path: a file of `torch.save` or safetensors.
        model: `auto` finds the family by keys and shapes; FAMILY or FAMILY:BACKBONE names it.

    Raises:
        CheckpointError: if the file is missing, unreadable or unsafe; if its family is unknown or
            could be two; if keys are missing, left over or of a wrong shape, with the keys.
    """
    named = None if model == "auto" else _named(model)
    payload = read_payload(path)
    if named is None:
        return _detected(payload).load(payload, None)
    family, variant = named
    return family.load(payload, variant)


def _named(model: str) -> tuple[Family, str | None]:
    """Family and variant of FAMILY[:VARIANT]."""
    name, _, variant = model.partition(":")
    for family in FAMILIES:
        if name == family.NAME:
            return family, variant or None
    raise CheckpointError(f"No checkpoint family is called {name!r}; {_choices()}.")


def _detected(payload: Payload) -> Family:
    """The one family that recognises the file."""
    for candidates in (SPECIFIC, (plain,)):
        evidence = [(family, found) for family in candidates if (found := family.detect(payload))]
        if len(evidence) == 1:
            return evidence[0][0]
        if evidence:
            listed = "; ".join(f"{family.NAME} ({found})" for family, found in evidence)
            raise CheckpointError(
                f"{payload.path}: could be of {len(evidence)} families: {listed}. "
                f"Choose with --model {' or --model '.join(f.NAME for f, _ in evidence)}."
            )
    raise CheckpointError(
        f"{payload.path}: no family recognises it. It holds {payload.describe()}. "
        f"If you know what it is, {_choices()}."
    )


def _choices() -> str:
    families = ", ".join(family.NAME for family in FAMILIES)
    return (
        f"name it with --model FAMILY[:BACKBONE], FAMILY one of {families} and BACKBONE one of "
        f"{', '.join(BACKBONES)}"
    )
