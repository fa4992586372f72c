"""The network to train, with its first weights, and how its images are prepared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.backbones import Backbone, CosineLinear, find_backbone
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.checkpoints.model import put_module
from pipeline.config import PretrainConfig
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import ConfigError, first_line
from pipeline.exhaustion import is_exhaustion
from pipeline.training.draws import global_seed

LARGER = 256 / 224
"""Shorter side of test images before their centre crop, over the crop's side, as on ImageNet."""


def build_network(
    backbone: Backbone, n_classes: int, config: PretrainConfig, start: TrainedModel | None = None
) -> nn.Module:
    """The network with seeded first weights, on the CPU in training mode.

    LDAM's classifier is a cosine, its scale part of the classifier.

    Args:
        backbone: what to build.
        n_classes: C.
        config: seed, loss and scale.
        start: a trained network of the same kind, whose weights before the classifier are taken.

    Raises:
        ConfigError: if the network cannot have LDAM's classifier.
    """
    with global_seed(config.seed, "first weights"):
        network = backbone.build(n_classes)
        if config.loss == "ldam":
            _require_linear(network.get_submodule(backbone.classifier), backbone)
            cosine = CosineLinear(backbone.feature_width, n_classes, config.margin_scale)
            put_module(network, backbone.classifier, cosine)
    if start is not None:
        head = f"{start.classifier_name}."
        weights = start.module.state_dict()
        network.load_state_dict(
            {name: weight for name, weight in weights.items() if not name.startswith(head)},
            strict=False,  # the classifier is missing, and by `require_same_network` nothing else
        )
    return network.train().requires_grad_(True)


def require_same_network(start: TrainedModel, backbone: Backbone) -> None:
    """Refuse to begin with the weights of another network.

    Raises:
        ConfigError: naming both.
    """
    if start.backbone != backbone.name:
        raise ConfigError(
            f"{start.source} holds {start.backbone}, not {backbone.name}: choose it with "
            f"--model {start.backbone}."
        )


def chosen_network(
    config: PretrainConfig, start: TrainedModel | Path | str | None
) -> tuple[Backbone, TrainedModel | None, Preprocessing]:
    """The network that the settings name, the one to begin with, and how images are prepared.

    Args:
        config: model, size and normalisation.
        start: checkpoint whose weights before the classifier to begin with.

    Raises:
        CheckpointError: if `start` does not hold a model that is known and complete.
        ConfigError: if there is no such network, or `start` holds another.
    """
    backbone = find_backbone(config.model)
    if start is None:
        return backbone, None, preprocessing_for(backbone.preprocessing, config)
    start = start if isinstance(start, TrainedModel) else load_checkpoint(start)
    require_same_network(start, backbone)
    return backbone, start, preprocessing_for(start.preprocessing, config)


def preprocessing_for(usual: Preprocessing, config: PretrainConfig) -> Preprocessing:
    """The model's usual test-time transform, with what the settings say otherwise."""
    found = usual
    given = {name: value for name in ("mean", "std") if (value := getattr(config, name))}
    found = replace(found, **given)
    if config.size is None or config.size == found.crop:
        return found
    return replace(found, resize=round(config.size * LARGER), crop=config.size)


def require_fits(network: nn.Module, sample: Tensor, name: str) -> None:
    """Try the network on one image, before hours are spent.

    Args:
        network: left in the mode in which it comes.
        sample: (1, 3, H, W) normalised.
        name: of the network.

    Raises:
        ConfigError: if it cannot take an image of that size, or gives no logits (1, C).
    """
    was_training = network.training
    size = f"{sample.shape[3]} x {sample.shape[2]}"
    try:
        with torch.no_grad():
            logits = network.eval()(sample)
    except (AssertionError, RuntimeError, ValueError) as error:
        if is_exhaustion(error):
            raise
        reason = first_line(error)
        raise ConfigError(
            f"{name} cannot take images of {size} pixels ({reason}): set --size."
        ) from error
    finally:
        network.train(was_training)
    if not isinstance(logits, Tensor) or logits.ndim != 2:  # noqa: PLR2004  rows, classes
        kind = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(f"{name} gives {kind} for an image; a classifier gives logits (1, C).")


def _require_linear(classifier: nn.Module, backbone: Backbone) -> None:
    """Refuse a network whose last layer takes no rows (B, D)."""
    if not isinstance(classifier, nn.Linear):
        raise ConfigError(
            f"loss ldam puts a cosine in the place of a linear classifier; that of {backbone.name} "
            f"is a {type(classifier).__name__}: choose another loss or another network."
        )


def memory_format(config: PretrainConfig) -> torch.memory_format:
    """How image batches and convolutions' weights lie in memory."""
    return torch.channels_last if config.channels_last else torch.contiguous_format
