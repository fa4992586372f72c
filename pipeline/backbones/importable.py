"""A network of one's own: `package.module:factory`.

The factory is called with `num_classes=C` where it takes that, else without arguments, and gives a
`torch.nn.Module`: images (B, 3, H, W) -> logits (B, C). How its images are prepared it may say in
an attribute `preprocessing` of the network, a mapping of the fields of `Preprocessing`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from pipeline.backbones.backbone import Backbone
from pipeline.backbones.finding import FoundClassifier, find_classifier
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import ConfigError, first_line

DEFAULT_PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""ImageNet's constants and no resizing, where the network says nothing."""

TRIAL_CLASSES = 2
"""Classes of the network that is looked at, where the factory must be told a number."""

TRIAL_SIDES = (224, 32, 64, 299, 384)
"""Sides in pixels that a trial pass tries where the network names none."""


def backbone(name: str) -> Backbone:
    """The network that the factory builds, looked at once.

    Raises:
        ConfigError: if module or factory is missing or fails, or its network does not end in one
            linear layer.
    """
    trial = TRIAL_CLASSES if _must_be_told(name) else None
    return _described(name, _call(name, trial))


def pretrained(name: str) -> tuple[nn.Module, Backbone]:
    """The network as the factory gives it, with whatever weights it loads itself.

    Raises:
        ConfigError: as `backbone`, and if the factory has to be told how many classes its own
            weights are for.
    """
    if _must_be_told(name):
        raise ConfigError(
            f"{name}: without a checkpoint the factory is called with no arguments, and its "
            "num_classes has no default: give it the number of classes that its weights are for."
        )
    network = _call(name, None)
    return network, _described(name, network)


def _described(name: str, network: nn.Module) -> Backbone:
    """What the factory builds, by a network that it has built.

    Raises:
        ConfigError: if the network does not end in one linear layer, or its `preprocessing` is odd.
    """
    preprocessing = _preprocessing(name, network)
    found = _find(name, network, preprocessing)

    def build(n_classes: int) -> nn.Module:
        return _call(name, n_classes)

    return Backbone(
        name=name,
        build=build,
        classifier=found.name,
        feature_width=found.feature_width,
        preprocessing=preprocessing,
    )


def _call(name: str, n_classes: int | None) -> nn.Module:
    """The factory's network, of C classes where a number is given and the factory takes it.

    Raises:
        ConfigError: if the factory is missing or fails, or gives something else.
    """
    factory = _factory(name)
    takes = inspect.signature(factory).parameters
    arguments: dict[str, Any] = {}
    if n_classes is not None and "num_classes" in takes:
        arguments["num_classes"] = n_classes
    try:
        network = factory(**arguments)
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(f"{name} failed: {type(error).__name__}: {error}.") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{name} gave a {type(network).__name__}; it must give a torch Module.")
    return network


def _must_be_told(name: str) -> bool:
    """Whether the factory cannot be called without `num_classes`."""
    said = inspect.signature(_factory(name)).parameters.get("num_classes")
    return said is not None and said.default is inspect.Parameter.empty


def _factory(name: str) -> Callable[..., object]:
    """The function that `package.module:factory` names.

    Raises:
        ConfigError: if the module cannot be imported, or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    try:
        with _working_folder_importable():
            module = importlib.import_module(module_name)
    except Exception as error:  # the module's own code runs
        raise ConfigError(
            f"{name}: {module_name} cannot be imported ({type(error).__name__}: {error}); "
            f"write PACKAGE.MODULE:FACTORY, to be found from the working folder or installed."
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise ConfigError(f"{name}: {module_name} has no function {attribute!r}.")
    found: Callable[..., object] = factory
    return found


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """The working folder as a place to import from: an installed command does not look there."""
    folder = os.getcwd()  # noqa: PTH109  sys.path holds text
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _preprocessing(name: str, network: nn.Module) -> Preprocessing:
    """What the network says about its images, in our own form or in timm's.

    Raises:
        ConfigError: if what it says is no preprocessing that is supported.
    """
    said = getattr(network, "preprocessing", None)
    if isinstance(said, Preprocessing):
        return said
    if isinstance(said, Mapping):
        try:
            return Preprocessing(**said)
        except TypeError as error:
            raise ConfigError(f"{name}: its attribute `preprocessing` is odd: {error}.") from None
    if isinstance(getattr(network, "pretrained_cfg", None), Mapping):
        from pipeline.backbones.timm_models import preprocessing_of

        return preprocessing_of(network, name)
    return DEFAULT_PREPROCESSING


def _find(name: str, network: nn.Module, preprocessing: Preprocessing) -> FoundClassifier:
    """The linear layer at the network's end, by trial passes until a size suits the network.

    Raises:
        ConfigError: if it takes none of the sizes, or does not end in one linear layer.
    """
    sides = (preprocessing.crop,) if preprocessing.crop else TRIAL_SIDES
    reasons = []
    for side in sides:
        try:
            return find_classifier(network, side)
        except ConfigError:
            raise
        except Exception as error:  # the network may refuse the size in its own way
            reasons.append(f"{side} pixels: {first_line(error)}")
    raise ConfigError(
        f"{name}: a trial pass of grey images failed ({'; '.join(reasons)}); set its attribute "
        f"`preprocessing` with a `crop` that it takes."
    )
