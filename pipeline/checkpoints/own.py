"""Files of nolb itself: they say themselves which network they hold and how to feed it.

`nolb pretrain` writes them, and `nolb extract --save-model`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.backbones import CosineLinear
from pipeline.backbones.named import is_factory
from pipeline.checkpoints.library import model_of
from pipeline.checkpoints.mapping import load_strictly, tensors_of
from pipeline.checkpoints.model import TrainedModel, put_module
from pipeline.checkpoints.payload import Payload, read_payload
from pipeline.checkpoints.recognition import named_backbone
from pipeline.checkpoints.variants import parse_variant
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import CheckpointError, ConfigError
from pipeline.files import write_whole
from pipeline.versions import versions

NAME = "nolb"

FORMAT = "nolb classifier"
"""What such a file says that it is."""

VERSION = 1

HISTORY = "history"
"""What only a training's file has: its epochs."""

TRAINING_IMAGES = "training images"
"""Where a training's identity holds the digest of its images."""


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
    if wish is None and is_factory(name):
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
    elif {f"{backbone.classifier}.weight"} == _weights_of(backbone.classifier, state):
        linear = nn.Linear(backbone.feature_width, len(names), bias=False)
        put_module(network, backbone.classifier, linear)
    load_strictly(network, state, payload.path)
    model = model_of(network, backbone, family=NAME, source=payload.path, sha256=payload.sha256)
    scale = model.classifier.scale
    return replace(
        model,
        preprocessing=_preprocessing(payload),
        class_names=tuple(map(str, names)),
        training_images=_training_images(content),
        head="linear" if scale == 1 else f"cosine, times {scale:g}",
    )


def write_file(path: Path, content: Mapping[str, Any]) -> None:
    """Put a file in place at once, and in that of an earlier one.

    Raises:
        OutputError: if it cannot be written; what was there before is untouched.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_whole(path, buffer.getvalue(), overwrite=True)


def is_of_extract(path: Path) -> bool:
    """Whether a file is a model that `extract --save-model` wrote, and no training."""
    try:
        content = read_payload(path).content
    except CheckpointError:
        return False
    return content.get("format") == FORMAT and HISTORY not in content


def content_of(model: TrainedModel, class_names: Sequence[str]) -> dict[str, Any]:
    """The file's content from which `load` makes the same model, weight by weight.

    Args:
        model: a complete one, of any family.
        class_names: C names in the order of its logits; numbers, where there are none.

    Raises:
        CheckpointError: if the network cannot be built again from its name alone.
    """
    is_cosine = model.classifier.normalized
    content = {
        "format": FORMAT,
        "version": VERSION,
        "backbone": model.backbone,
        "classifier": "cosine" if is_cosine else "linear",
        "scale": float(model.classifier.scale) if is_cosine else 1.0,
        "preprocessing": asdict(model.preprocessing),
        "class_names": list(class_names) or [str(c) for c in range(model.n_classes)],
        "state_dict": {
            name: tensor.cpu().contiguous() for name, tensor in model.module.state_dict().items()
        },
        "versions": versions(),
    }
    if model.training_images:
        content["identity"] = {TRAINING_IMAGES: model.training_images}
    variant = model.backbone if is_factory(model.backbone) else None  # it ran already
    try:
        again = load(Payload(model.source, model.sha256, content), variant)
        is_same = again.backbone_digest() == model.backbone_digest()
        is_same &= again.classifier.digest() == model.classifier.digest()
    except CheckpointError:
        is_same = False
    if not is_same:
        raise CheckpointError(
            f"{model.source}: nolb cannot build {model.name} again from its name alone, so it "
            "cannot be saved: leave --save-model out."
        )
    return content


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


def _weights_of(module: str, state: Mapping[str, object]) -> set[str]:
    """Names of the weights that a module has of its own, none where it learns nothing."""
    return {f"{module}.{name}" for name in ("weight", "bias")} & state.keys()


def _training_images(content: Mapping[str, object]) -> str:
    """Digest of the images that the network was trained on; empty where the file holds none."""
    identity = content.get("identity")
    return str(identity.get(TRAINING_IMAGES, "")) if isinstance(identity, Mapping) else ""


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
