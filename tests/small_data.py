"""A small real run for tests: a random small CNN and PNGs of three classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.backbones import BACKBONES

CLASSES = ("ant", "bee", "cat")
COUNTS = (7, 4, 2)
SIDE = 10


def small_checkpoint(path: Path, n_classes: int = len(CLASSES), scale: float = 1.0) -> Path:
    """A small CNN with random weights and BatchNorm statistics, saved as a plain state dict."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BACKBONES["small-cnn"].build(n_classes)
        state = model.state_dict()
        for name in ("bn1", "bn2"):
            state[f"{name}.running_mean"].normal_(0, 0.1)
            state[f"{name}.running_var"].uniform_(0.5, 1.5)
            state[f"{name}.weight"].mul_(scale)
    torch.save({"state_dict": state}, path)
    return path


def image_folder(
    path: Path, counts: Sequence[int] = COUNTS, seed: int = 0, side: int = SIDE
) -> Path:
    """`<class>/<number>.png`, random pixels."""
    generator = np.random.default_rng(seed)
    for name, count in zip(CLASSES, counts, strict=True):
        (path / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i}.png")
    return path


def small_sources(folder: Path, test: Sequence[int] = (2, 2, 2)) -> dict[str, Path]:
    """Folders of images for `train`, and for `test` with as many of each class, by split."""
    return {
        "train": image_folder(folder / "train"),
        "test": image_folder(folder / "test", test, seed=1),
    }


def small_inputs(folder: Path) -> Path:
    """The folder, with all that an extraction takes: `m.pth` and the images of two splits."""
    small_checkpoint(folder / "m.pth")
    small_sources(folder)
    return folder
