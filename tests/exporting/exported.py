"""A small real extraction to export: random small CNN, three classes, 10 x 10 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache import Store
from pipeline.config import ExtractConfig
from pipeline.heads import Head
from pipeline.stages.extract import extract
from tests.measured_stores import planted_head
from tests.small_data import SIDE, small_checkpoint, small_sources

TEMPERATURES = (2.0, 0.5)


@dataclass(frozen=True)
class Small:
    """What there is to export."""

    folder: Path
    checkpoint: Path
    images: Path
    store: Store
    head: Head
    side: int = SIDE


def small_extraction(folder: Path, checkpoint: Path | None = None) -> Small:
    """The store of a checkpoint, and a head that differs from the old one."""
    checkpoint = checkpoint or small_checkpoint(folder / "m.pth")
    sources = small_sources(folder, (4, 4, 4))
    config = ExtractConfig(device="cpu", workers=0)
    store = extract(checkpoint, sources, folder / "s.zarr", config).store
    weight = np.random.default_rng(0).normal(0, 3, store.classifier.weight.shape)
    # Centred on the images, so that all classes are predicted.
    head = planted_head(store, weight, -weight @ store["test"].features().mean(axis=0))
    return Small(folder, checkpoint, sources["test"], store, head)
