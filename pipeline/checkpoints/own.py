"""Files of `nolb pretrain`: they say themselves which network they hold and how to feed it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.backbones import CosineLinear
from pipeline.backbones.named import FACTORY
from pipeline.checkpoints.library import model_of
from pipeline.checkpoints.mapping import load_strictly, tensors_of
from pipeline.checkpoints.model import TrainedModel, put_module
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import named_backbone
from pipeline.checkpoints.variants import parse_variant
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import CheckpointError, ConfigError

NAME = "nolb"

FORMAT = "nolb classifier"
"""What such a file says that it is."""

VERSION = 1


def detect(payload: Payload) -> str | None:
    """The file's own word for it."""
    if payload.content.get("format") != FORMAT:
        return None
    return f"format {FORMAT!r}, {payload.content.get('backbone')}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; the file names its network, and `variant` is asked for only to allow a factory.

    Raises:
        CheckpointError: if the file is of another version, lacks something, or names a factory of
            the user's that the user has not named.
    """
    content = _checked(payload)
    name = str(content["backbone"])
    wish = parse_variant(NAME, variant).backbone
    if wish not in {None, name}:
        raise CheckpointError(f"{payload.path}: holds {name}, not {wish}.")
    if wish is None and FACTORY.fullmatch(name):
        raise CheckpointError(
            f"{payload.path}: its network is built by {name}, and a file alone has no code run. If "
            f"that is yours, allow it with --model {NAME}:{name}."
        )
    backbone = named_backbone(payload.path, name)
    state = tensors_of(payload.mapping("state_dict"))
    names = content["class_names"]
    if state is None or not isinstance(names, list):
        raise CheckpointError(f"{payload.path}: lacks its weights or class names; train it again.")
    network = backbone.build(len(names))
    if content["classifier"] == "cosine":
        cosine = CosineLinear(backbone.feature_width, len(names), _scale(payload))
        put_module(network, backbone.classifier, cosine)
    load_strictly(network, state, payload.path)
    model = model_of(network, backbone, family=NAME, source=payload.path, sha256=payload.sha256)
    scale = model.classifier.scale
    return replace(
        model,
        preprocessing=_preprocessing(payload),
        class_names=tuple(map(str, names)),
        head="linear" if scale == 1 else f"cosine, times {scale:g}",
    )


def _checked(payload: Payload) -> Mapping[str, object]:
    """The content, of a version that is known and with all its parts."""
    content = payload.content
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise CheckpointError(
            f"{payload.path}: a file of the family {NAME} has the format {FORMAT!r} of version "
            f"{VERSION}; this one holds {payload.describe()}."
        )
    needed = ("backbone", "classifier", "scale", "preprocessing", "class_names", "state_dict")
    lacking = [name for name in needed if name not in content]
    if lacking:
        raise CheckpointError(f"{payload.path}: lacks {', '.join(lacking)}; train it again.")
    return content


def _scale(payload: Payload) -> float:
    """Factor of the cosines."""
    scale = payload.content["scale"]
    if not isinstance(scale, float) or not 0 < scale < math.inf:
        raise CheckpointError(f"{payload.path}: its scale must be above 0, not {scale!r}.")
    return scale


def _preprocessing(payload: Payload) -> Preprocessing:
    """How the network's images are prepared, as the file says."""
    values: Any = dict(payload.mapping("preprocessing") or {})
    try:
        return Preprocessing(**values)
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{payload.path}: its preprocessing is unusable ({error}).") from None
