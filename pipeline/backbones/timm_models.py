"""timm's models as backbones: `timm/NAME[.TAG]`, as timm itself writes them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import nn

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.finding import find_classifier, without_memory
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import ConfigError, first_line

PREFIX = "timm/"

IMAGENET_CLASSES = 1000


def backbone(name: str) -> Backbone:
    """The model of that name; its preprocessing is timm's for the tag, the default one if none.

    Raises:
        ConfigError: if timm is not installed or has no such model; if the model does not end in
            one linear layer, or takes images that are not square RGB.
    """
    model = _known(name)
    build = partial(_build, model)
    network = without_memory(partial(build, IMAGENET_CLASSES))
    preprocessing = preprocessing_of(network, name)
    found = find_classifier(network, preprocessing.crop)
    return Backbone(
        name=name,
        build=build,
        classifier=found.name,
        feature_width=found.feature_width,
        preprocessing=preprocessing,
    )


def pretrained(name: str) -> tuple[nn.Module, Backbone]:
    """The model with the weights that timm has for it.

    Raises:
        ConfigError: as `backbone`, or if there are no weights or they cannot be fetched.
    """
    described = backbone(name)  # says so where timm is missing

    import timm

    try:
        network: nn.Module = timm.create_model(_known(name), pretrained=True)
    except Exception as error:  # the hub's errors are many, and not of one family
        raise ConfigError(
            f"timm's weights of {name} cannot be fetched ({first_line(error)}): give a file of "
            f"them with --checkpoint FILE --model {name}."
        ) from None
    return network, described


def preprocessing_of(network: nn.Module, name: str) -> Preprocessing:
    """Timm's data configuration of a model, for evaluation.

    Raises:
        ConfigError: if it asks for images that are not square RGB.
    """
    from timm.data.config import resolve_data_config

    data: dict[str, Any] = resolve_data_config(  # type: ignore[no-untyped-call]  # timm has none there
        model=network, verbose=False
    )
    channels, height, width = data["input_size"]
    if channels != 3 or height != width:  # noqa: PLR2004  red, green, blue
        raise ConfigError(f"{name} takes {data['input_size']} images; square RGB ones are needed.")
    mode, interpolation = data["crop_mode"], data["interpolation"]
    if mode not in {"center", "squash"} or interpolation not in {"bilinear", "bicubic"}:
        raise ConfigError(
            f"{name} wants {interpolation} resizing and {mode} cropping, which are not supported."
        )
    # timm squashes the whole image and crops that; the longer side's floor is timm's too.
    return Preprocessing(
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        resize=math.floor(height / data["crop_pct"]),
        crop=height,
        interpolation=interpolation,
        squash=mode == "squash",
    )


def _known(name: str) -> str:
    """Timm's name of the model.

    Raises:
        ConfigError: if timm is missing, or lacks the model.
    """
    try:
        import timm
    except ImportError:
        raise ConfigError(f"{name} needs timm: pip install 'nolb[timm]'.") from None
    model = name.removeprefix(PREFIX)
    if not timm.is_model(model):
        from difflib import get_close_matches

        near = get_close_matches(model, timm.list_models(), n=5, cutoff=0.4)
        hint = f"near to it are {', '.join(near)}" if near else "see timm.list_models()"
        raise ConfigError(f"timm has no model {model!r}; {hint}.")
    return model


def _build(model: str, n_classes: int) -> nn.Module:
    """The model with random weights.

    Raises:
        ConfigError: if timm cannot build it.
    """
    import timm

    try:
        network: nn.Module = timm.create_model(model, pretrained=False, num_classes=n_classes)
    except RuntimeError as error:  # an unknown tag, among others
        raise ConfigError(f"timm cannot build {model}: {first_line(error)}.") from None
    return network
