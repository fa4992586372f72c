"""The trained model that a head belongs to, found again from its identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import Classifier, Identity
from pipeline.backbones.named import is_factory
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.errors import CheckpointError, ConfigError, ExportError
from pipeline.extracting.identities import preprocessing_of_identity, record_of_identity
from pipeline.extracting.noted import factory_of
from pipeline.old_head import no_classifier
from pipeline.pretrained import load_pretrained


def model_of_identity(
    checkpoint: Path | str | None,
    identity: Identity,
    class_counts: Sequence[int],
    *,
    model: str = "auto",
    old: Classifier | None = None,
) -> TrainedModel:
    """The model of a checkpoint or of a library, as the extraction of that identity ran it.

    Its preprocessing is that of the extraction, which a user may have set by hand. Its classifier
    is the old one of the identity. The model lacks that where the backbone was trained on other
    classes (`extract --features-only`, `adopt-head`): then it is what `old` says, or the stand-in
    of `no_classifier`, with which the new head can be used alone.

    Args:
        checkpoint: the file that was extracted; None for a model with weights of its own
            (`pipeline.pretrained`), which is built again from its name.
        identity: of the store or the head.
        class_counts: (C,) training images of each class, which some old heads need.
        model: checkpoint family, as in `load_checkpoint`, or without a file the model's name;
            `auto` also takes the identity's word, but for PACKAGE.MODULE:FACTORY.
        old: the old classifier (C, D) of the identity, where the store that holds it is at hand.

    Raises:
        CheckpointError: if the file holds no model that is known and complete.
        ConfigError: if there is no file and the identity's model needs one; or the named model
            cannot be built here, or is a factory that the user has not named.
        ExportError: if it is another model than that of the identity, with what differs; or `old`
            has a bias beside its cosines, for which networks have no layer.
        StoreFormatError: if another version of nolb wrote the identity.
    """
    if checkpoint is None:
        loaded = load_pretrained(_own_name(identity) if model == "auto" else model)
    else:
        loaded = _load(checkpoint, identity, model)
    # A file that was saved again is another file with the same weights: that does no harm.
    if loaded.backbone_digest() != identity.backbone:
        raise ExportError(_another_model(loaded, identity, from_file=checkpoint is not None))
    loaded = _with_old_head(loaded, identity, np.asarray(class_counts, np.int64), old)
    return replace(loaded, preprocessing=preprocessing_of_identity(identity))


def _own_name(identity: Identity) -> str:
    """The name of the identity's model, whose weights are in no file of the user.

    Raises:
        ConfigError: if they are in one; or the name is of a function, which nolb does not run
            because a file says so.
    """
    said = record_of_identity(identity)
    name = said.own_weights
    if name is None:
        raise ConfigError(
            f"The head's features are of {said.describe()}, whose weights are in a file: give the "
            "one that was extracted with --checkpoint FILE."
        )
    if is_factory(name):
        raise _unnamed(name)
    return name


def _unnamed(factory: str) -> ConfigError:
    return ConfigError(
        f"The head's features are of {factory}, a function that runs only where you name it: "
        f"give --model {factory}."
    )


def _another_model(loaded: TrainedModel, identity: Identity, *, from_file: bool) -> str:
    """What differs from the model of the identity, and what to do."""
    said = record_of_identity(identity)
    name = said.own_weights
    if said.recalibrated is not None:
        return (
            "The head's features were extracted with --recalibrate-bn, which gave "
            f"{loaded.source} other statistics: give the file of extract --save-model FILE, which "
            "--resume writes afterwards too."
        )
    backbone = _differing("backbone", loaded.backbone_digest(), identity.backbone)
    if not from_file and loaded.backbone == name:
        return (
            f"{name} has other weights here than those whose features the head was fitted on "
            f"({backbone}): install the version that was extracted, or extract again with this "
            "one and fit the head anew."
        )
    words = [backbone]
    if from_file and name is None and loaded.sha256 != identity.checkpoint:
        words.insert(0, _differing("file", loaded.sha256, identity.checkpoint))
    remedy = "give the checkpoint that was extracted"
    if name is not None:
        remedy = f"that is {name} with weights of its own, " + (
            f"give --model {name} and no --checkpoint"
            if is_factory(name)
            else "leave --checkpoint and --model out"
        )
    return (
        f"{loaded.source} is not the model whose features the head was fitted on "
        f"({', '.join(words)}): {remedy}."
    )


def _differing(what: str, found: str, wanted: str) -> str:
    """Two digests that differ, in short."""
    return f"{what} {found[:12]}... instead of {wanted[:12]}..."


def _with_old_head(
    loaded: TrainedModel,
    identity: Identity,
    class_counts: NDArray[np.int64],
    old: Classifier | None,
) -> TrainedModel:
    """The model with the old classifier of the identity, or with the stand-in."""
    stand_in = no_classifier(len(class_counts), loaded.feature_width)
    # A head for other classes has nothing to learn from the counts of these.
    if identity.classifier != stand_in.digest() and len(class_counts) == loaded.n_classes:
        loaded = loaded.for_training_counts(class_counts)
    if loaded.classifier.digest() == identity.classifier:
        return loaded
    if old is not None and old.normalized and old.bias is not None and old.bias.any():
        raise ExportError(
            "The store's old head was adopted and gives cosines with a bias, for which networks "
            "have no layer: export the new head alone, without --t-old and --t-new."
        )
    return loaded.with_classifier(old or stand_in)


def _load(checkpoint: Path | str, identity: Identity, model: str) -> TrainedModel:
    """By detection, or where that is ambiguous, by the names in the identity."""
    if model != "auto":
        return load_checkpoint(checkpoint, model=model)
    try:
        loaded = load_checkpoint(checkpoint)
    except CheckpointError:
        return _load_named(checkpoint, identity) or load_checkpoint(checkpoint)
    if loaded.backbone_digest() == identity.backbone:
        return loaded
    return _load_named(checkpoint, identity) or loaded


def _load_named(checkpoint: Path | str, identity: Identity) -> TrainedModel | None:
    """As `FAMILY:BACKBONE`, then as `FAMILY`; None if neither loads.

    Weights of a library's model may have been saved to a file since: those load by its name.

    Raises:
        ConfigError: if the name is of a function, as `_own_name`.
    """
    said = record_of_identity(identity)
    names = (said.name, said.family) if said.own_weights is None else (said.own_weights,)
    for factory in filter(None, map(factory_of, names)):
        raise _unnamed(factory)
    for name in names:
        try:
            return load_checkpoint(checkpoint, model=name)
        except CheckpointError:
            continue
    return None
