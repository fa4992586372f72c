"""Trained classifiers whose weights a library holds: no checkpoint file is needed.

`torchvision/NAME`, `timm/NAME`, `efficientnet-lite0` and `package.module:factory`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from pipeline.backbones.named import library_of
from pipeline.checkpoints import TrainedModel
from pipeline.checkpoints.library import model_of
from pipeline.checkpoints.registry import find_family
from pipeline.errors import ConfigError

FAMILY = "pretrained"
"""What stands for the checkpoint family in identities."""


def load_pretrained(name: str) -> TrainedModel:
    """The trained classifier of that name, on the CPU, with the weights that its library has.

    Raises:
        ConfigError: if there is no such model, or the library cannot give its weights.
    """
    library = None if find_family(name.partition(":")[0]) else library_of(name)
    if library is None:
        raise ConfigError(
            f"{name!r} names no model that has weights of its own: give its file with "
            f"--checkpoint, or one of torchvision/NAME, timm/NAME, efficientnet-lite0 and "
            f"PACKAGE.MODULE:FACTORY as --model."
        )
    network, backbone = library.pretrained(name)
    model = model_of(network, backbone, family=FAMILY, source=backbone.name, sha256="")
    # Without a file, the weights themselves stand for it.
    weights = f"{model.backbone_digest()} {model.classifier.digest()}"
    return replace(model, sha256=hashlib.sha256(weights.encode("ascii")).hexdigest())
