"""Which images are decoded once and held, and which are read anew in each epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import PretrainConfig, parse_size
from pipeline.datasets import ImageSource, Preprocessing
from pipeline.errors import ConfigError
from pipeline.reading import default_workers, require_readable
from pipeline.training.augmentation import Shift
from pipeline.training.images import (
    Clean,
    HeldImages,
    Images,
    Prepare,
    ReadImages,
    ResizedCrop,
    stacked,
)


@dataclass(frozen=True, eq=False)
class Supply:
    """The images of each split, and what becomes of a training batch."""

    splits: dict[str, Images]
    """By the names of the splits."""

    shift: Shift | None
    """Augmentation of training batches; None where they come augmented."""

    sample: Tensor
    """(1, H, W, 3) uint8 on the CPU: the first training image as it is tested."""

    described: str
    """How the images come, in words."""


def supply_images(
    sources: dict[str, ImageSource],
    preprocessing: Preprocessing,
    config: PretrainConfig,
    device: torch.device,
) -> Supply:
    """Decode what the memory setting allows to hold; read the rest as it is needed.

    The training images come first. Held or read, they give the same training.

    Args:
        sources: the images of each split.
        preprocessing: of test images; the training images have the same size.
        config: augmentation, memory and workers.
        device: where the batches go.

    Raises:
        DatasetError: if an image cannot be read, or images differ in size.
    """
    cropped = is_cropped(preprocessing, config)
    budget = parse_size(config.memory)
    workers = default_workers(device.type) if config.workers < 0 else config.workers
    clean, held = Clean(preprocessing), 0
    sample = stacked(sources["train"], [0], clean)
    splits: dict[str, Images] = {}
    words = []
    for name, source in sources.items():
        require_readable(name, source)
        if name == "train" and cropped:
            splits[name] = ReadImages(source, _crop(preprocessing, config), workers, device)
            words.append("train read in each epoch, parts of the images resized")
            continue
        size = len(source) * stacked(source, [0], clean).numel()
        if held + size > budget:
            splits[name] = ReadImages(source, clean, workers, device)
            words.append(f"{name} read whenever needed ({size / 2**20:,.1f} MiB are too many)")
            continue
        held += size
        splits[name] = HeldImages(stacked(source, range(len(source)), clean).to(device))
        words.append(f"{name} held in {size / 2**20:,.1f} MiB")
    shift = None if cropped else _shift(preprocessing, config)
    return Supply(splits, shift, sample, "; ".join(words))


def is_cropped(preprocessing: Preprocessing, config: PretrainConfig) -> bool:
    """Whether training images are random parts, resized; else they are shifted as they are."""
    if config.augmentation != "auto":
        return config.augmentation == "resized-crop"
    return preprocessing.resize is not None


def _crop(preprocessing: Preprocessing, config: PretrainConfig) -> Prepare:
    side = preprocessing.crop
    if side is None:
        raise ConfigError("augmentation resized-crop needs the size of its result: set --size.")
    return ResizedCrop(side, config.smallest_crop, config.flip, config.seed)


def _shift(preprocessing: Preprocessing, config: PretrainConfig) -> Shift:
    red, green, blue = preprocessing.mean_colour().tolist() if config.fill == "mean" else (0, 0, 0)
    return Shift(config.padding, (red, green, blue), config.flip)
