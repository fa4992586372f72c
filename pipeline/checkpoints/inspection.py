"""What a checkpoint file holds, and what would be loaded from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import read_payload
from pipeline.checkpoints.registry import detected, named
from pipeline.errors import CheckpointError, UndecidedError


@dataclass(frozen=True)
class Inspection:
    """A checkpoint file in words and numbers."""

    path: str
    """The file."""

    sha256: str
    """Of its bytes."""

    holds: str
    """The names at its top level."""

    foreign: tuple[str, ...]
    """Classes of objects in it that are not loaded."""

    family: str | None = None
    """Whose code saved it; None where no one family recognises it."""

    evidence: str = ""
    """Why."""

    problem: str = ""
    """Why nothing would be loaded, and what to do; empty where all is well."""

    choices: Mapping[str, str] = field(default_factory=dict)
    """What the user has to choose from, after `--model`, with the meanings."""

    model: str | None = None
    """What loads the same again, after `--model`."""

    backbone: str | None = None
    """The network."""

    feature_width: int | None = None
    """D."""

    n_classes: int | None = None
    """C."""

    classifier: str | None = None
    """What the file's classifier is."""

    stored_as: str | None = None
    """The linear head that it becomes."""

    preprocessing: str | None = None
    """How test images are prepared."""

    n_weights: int = 0
    """Weights that would be loaded, tensors."""

    n_parameters: int = 0
    """Numbers in them."""

    left_out: tuple[str, ...] = ()
    """Weights that neither features nor logits need."""

    needs: str | None = None
    """What the head still needs of the training data."""

    notes: tuple[str, ...] = ()
    """What to know about how the file is read."""

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return asdict(self) | {"choices": dict(self.choices)}


def inspect_checkpoint(path: Path | str, *, model: str = "auto") -> Inspection:
    """Say what a file holds and what `load_checkpoint` would make of it.

    Args:
        path: a file of `torch.save` or safetensors.
        model: as for `load_checkpoint`.

    Raises:
        CheckpointError: if the file is missing, unreadable or unsafe, or there is no such family.
    """
    chosen = None if model == "auto" else named(model)
    payload = read_payload(path)
    facts: dict[str, Any] = {
        "path": payload.path,
        "sha256": payload.sha256,
        "holds": payload.describe(),
        "foreign": payload.foreign,
    }
    try:
        if chosen is None:
            family, facts["evidence"] = detected(payload)
            variant = None
        else:
            family, variant = chosen
            facts["evidence"] = family.detect(payload) or "named by the user"
    except CheckpointError as error:
        return Inspection(**facts, problem=str(error))
    facts["family"] = family.NAME
    try:
        loaded = family.load(payload, variant)
    except UndecidedError as error:
        facts |= {"problem": str(error), "choices": error.choices}
        # Only the head depends on the choice; all else is the same for each of them.
        first = next(iter(error.choices)).partition(":")[2]
        loaded = family.load(payload, first)
        open_facts = {"model": None, "needs": None, "classifier": "linear, its rule open"}
        return Inspection(**facts, **(_described(loaded) | open_facts))
    except CheckpointError as error:
        return Inspection(**facts, problem=str(error))
    return Inspection(**facts, **_described(loaded))


def _described(model: TrainedModel) -> dict[str, Any]:
    """What is known of a loaded model."""
    weights = model.module.state_dict()
    return {
        "model": model.name,
        "backbone": model.backbone,
        "feature_width": model.feature_width,
        "n_classes": model.n_classes,
        "classifier": model.head,
        "stored_as": stored_form(model),
        "preprocessing": model.preprocessing.describe(),
        "n_weights": len(weights),
        "n_parameters": sum(weight.numel() for weight in model.module.parameters()),
        "left_out": model.left_out,
        "needs": None if model.rule is None else model.rule.need,
        "notes": model.notes,
    }


def stored_form(model: TrainedModel) -> str:
    """The linear head of the store, in words."""
    head = model.classifier
    features = "normalised features, normalised rows" if head.normalized else "features"
    bias = "without bias" if head.bias is None else "with bias"
    scale = "" if head.scale == 1 else f", scale {head.scale:g}"
    return f"weight ({model.n_classes}, {model.feature_width}) on {features}, {bias}{scale}"
