"""What a head belongs to, found again from its identity: the trained model and the test views."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache import Identity
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.datasets.views import ShiftedViews
from pipeline.errors import CheckpointError, ConfigError, ExportError

_PRINTED = re.compile(
    r"(?:no resize|resize (?P<resize>\d+)(?P<squash>x\d+)? (?P<interpolation>\w+) antialias), "
    r"(?:no crop|centre crop (?P<crop>\d+)), (?P<channels>RGB|BGR), x/255, "
    r"mean (?P<mean>\([^)]*\)), std (?P<std>\([^)]*\))"
)
"""The line of `Preprocessing.describe`."""

_PRINTED_VIEWS = re.compile(
    r"(?P<count>\d+) test views(?P<flip>, mirror images)?"
    r"(?:, moves by (?P<shift>\d+), (?P<fill>mean|black) padding)?"
)
"""The line of `ShiftedViews.describe`."""


def model_of_identity(
    checkpoint: Path | str,
    identity: Identity,
    class_counts: Sequence[int],
    *,
    model: str = "auto",
) -> TrainedModel:
    """The checkpoint's model, as the extraction of that identity ran it.

    Its preprocessing is that of the extraction, which a user may have set by hand.

    Args:
        checkpoint: the file that was extracted.
        identity: of the store or the head.
        class_counts: (C,) training images of each class, which some old heads need.
        model: checkpoint family, as in `load_checkpoint`; `auto` also takes the identity's word.

    Raises:
        CheckpointError: if the file holds no model that is known and complete.
        ExportError: if it is another model than that of the identity, with what differs.
    """
    loaded = _load(checkpoint, identity, model)
    loaded = loaded.for_training_counts(np.asarray(class_counts, np.int64))
    differing = [
        f"{what} {found[:12]}... instead of {wanted[:12]}..."
        for what, found, wanted in (
            ("file", loaded.sha256, identity.checkpoint),
            ("backbone", loaded.backbone_digest(), identity.backbone),
            ("classifier", loaded.classifier.digest(), identity.classifier),
        )
        if found != wanted
    ]
    # A file that was saved again is another file with the same weights: that does no harm.
    if [words for words in differing if not words.startswith("file")]:
        raise ExportError(
            f"{checkpoint} is not the model whose features the head was fitted on "
            f"({', '.join(differing)}): give the checkpoint that was extracted."
        )
    if loaded.preprocessing.describe() == identity.preprocessing:
        return loaded
    return replace(loaded, preprocessing=printed_preprocessing(identity.preprocessing))


def views_of_identity(identity: Identity) -> ShiftedViews:
    """The test views that the extraction of that identity made; none where it made none.

    Raises:
        ExportError: if it made some that cannot be told from its words.
    """
    # Those of `train` come first, and are no test views.
    lines = [line for line in identity.views.split("; ") if " test views" in line]
    return printed_views(lines[-1]) if lines else ShiftedViews()


def printed_views(line: str) -> ShiftedViews:
    """The test views that print themselves as this line; what it leaves out changes no pixel.

    Raises:
        ExportError: if no test views print themselves so.
    """
    found = _PRINTED_VIEWS.fullmatch(line)
    if found is not None:
        values: dict[str, Any] = {n: int(found[n]) for n in ("count", "shift") if found[n]}
        values |= {"fill": found["fill"]} if found["fill"] else {}
        with suppress(ConfigError):  # there are not so many: told below
            views = ShiftedViews(**values, flip=found["flip"] is not None)
            if views.describe() == line:
                return views
    raise ExportError(
        f"The test views {line!r} cannot be made again: extract the store again with this nolb, "
        "and fit the head on it."
    )


def printed_preprocessing(line: str) -> Preprocessing:
    """The preprocessing that prints itself as this line.

    Raises:
        ExportError: if no preprocessing prints itself so.
    """
    found = _PRINTED.fullmatch(line)
    if found is not None:
        values: dict[str, Any] = {n: ast.literal_eval(found[n]) for n in ("mean", "std")}
        values |= {n: int(found[n]) for n in ("resize", "crop") if found[n]}
        values |= {n: found[n] for n in ("channels", "interpolation") if found[n]}
        preprocessing = Preprocessing(**values, squash=found["squash"] is not None)
        if preprocessing.describe() == line:
            return preprocessing
    raise ExportError(
        f"The preprocessing {line!r} cannot be rebuilt: extract the store again with this nolb."
    )


def _load(checkpoint: Path | str, identity: Identity, model: str) -> TrainedModel:
    """By detection, or where that leaves a doubt, as the extraction was told."""
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
    """As `FAMILY:BACKBONE`, then as `FAMILY`; None if neither loads."""
    for name in (identity.model, identity.model.partition(":")[0]):
        try:
            return load_checkpoint(checkpoint, model=name)
        except CheckpointError:
            continue
    return None
