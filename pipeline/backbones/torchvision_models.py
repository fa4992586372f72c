"""torchvision's classification models as backbones: `torchvision/resnet50[.IMAGENET1K_V2]`.

The part after the dot names one of torchvision's sets of weights; it decides preprocessing and
what `pretrained` loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

import torchvision.models as library
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.transforms import InterpolationMode

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.finding import OwnOutput, find_classifier, without_memory
from pipeline.datasets.preprocessing import Interpolation, Preprocessing
from pipeline.errors import ConfigError

PREFIX = "torchvision/"

IMAGENET_CLASSES = 1000

AUXILIARY: Mapping[str, tuple[str, ...]] = {
    "googlenet": ("aux1.", "aux2."),
    "inception_v3": ("AuxLogits.",),
}
"""Models with classifiers that only training uses, and how those weights begin.

Their published weights came from TensorFlow, so torchvision normalises again inside the network
(`transform_input`) where such weights are named."""

INTERPOLATION: Mapping[InterpolationMode, Interpolation] = {
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
}


def backbone(name: str) -> Backbone:
    """The model of that name, `torchvision/NAME` or `torchvision/NAME.WEIGHTS`.

    Without named weights its preprocessing is that of torchvision's first set, with which most
    models of the literature were trained: resize 256, crop 224.

    Raises:
        ConfigError: if torchvision has no such classification model or weights.
    """
    model, weights = _parts(name)
    return _backbone(name, model, weights or next(iter(library.get_model_weights(model))))


def pretrained(name: str) -> tuple[nn.Module, Backbone]:
    """The model with torchvision's weights, the best set where the name gives none.

    Raises:
        ConfigError: if the weights are not on this machine and cannot be fetched.
    """
    model, weights = _parts(name)
    weights = weights or library.get_model_weights(model).DEFAULT
    try:
        network: nn.Module = library.get_model(model, weights=weights)
    except (OSError, RuntimeError) as error:  # no network, or a damaged file
        raise ConfigError(
            f"torchvision's weights {weights.name} of {model} cannot be fetched ({error}): fetch "
            f"{weights.url} yourself and give it with --checkpoint FILE --model "
            f"{PREFIX}{model}.{weights.name}."
        ) from None
    resolved = f"{PREFIX}{model}.{weights.name}"
    return _with_linear_end(network), _backbone(resolved, model, weights)


def _parts(name: str) -> tuple[str, WeightsEnum | None]:
    """Model and weights of `torchvision/NAME[.WEIGHTS]`.

    Raises:
        ConfigError: if torchvision has no such classification model or weights.
    """
    model, _, chosen = name.removeprefix(PREFIX).partition(".")
    known = library.list_models(module=library)
    if model not in known:
        near = get_close_matches(model, known, n=5, cutoff=0.4) or known
        raise ConfigError(
            f"torchvision has no classification model {model!r}; near to it are {', '.join(near)}."
        )
    if not chosen:
        return model, None
    sets = library.get_model_weights(model)
    if chosen not in sets.__members__ or chosen == "DEFAULT":
        raise ConfigError(
            f"torchvision has no weights {chosen!r} of {model}; it has "
            f"{', '.join(weights.name for weights in sets)}."
        )
    return model, sets[chosen]


def _backbone(name: str, model: str, weights: WeightsEnum) -> Backbone:
    """The model's description, with the preprocessing that belongs to these weights.

    Raises:
        ConfigError: if the model does not end in one linear layer.
    """
    preprocessing = _preprocessing(weights)
    special: dict[str, Any] = {}
    if model in AUXILIARY:
        # Their own initialisation takes a minute; every weight comes from a file anyway.
        special = {"aux_logits": False, "init_weights": False}
        special["transform_input"] = "." in name
    if model.startswith("vit_"):
        special = {"image_size": preprocessing.crop}
    build = partial(_build, model, special)
    found = find_classifier(without_memory(partial(build, IMAGENET_CLASSES)), preprocessing.crop)
    return Backbone(
        name=name,
        build=build,
        classifier=found.name,
        feature_width=found.feature_width,
        preprocessing=preprocessing,
        unused=AUXILIARY.get(model, ()),
    )


def _build(model: str, special: Mapping[str, Any], n_classes: int) -> nn.Module:
    return _with_linear_end(library.get_model(model, num_classes=n_classes, **special))


def _with_linear_end(network: nn.Module) -> nn.Module:
    """SqueezeNet with `OwnOutput` behind its pooling; any other network as it is."""
    if isinstance(network, library.SqueezeNet):
        network.classifier.append(nn.Flatten()).append(OwnOutput(network.num_classes))
    return network


def _preprocessing(weights: WeightsEnum) -> Preprocessing:
    """The transform that belongs to a set of weights."""
    preset: Any = weights.transforms()
    return Preprocessing(
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=INTERPOLATION[preset.interpolation],
    )
