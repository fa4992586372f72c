"""A small real extraction to export: random small CNN, three classes, 10 x 10 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cache import Store
from pipeline.config import ExtractConfig
from pipeline.exporting import Description, as_inputs
from pipeline.heads import Head
from pipeline.lookup import ImageLookup
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


def inputs_of_test(small: Small, description: Description) -> NDArray[np.float32]:
    """(N, 3, S, S): the test images as an exported file takes them, in the order of the store."""
    lookup, preprocessing = ImageLookup(small.images), description.preprocessing
    pixels = [preprocessing.to_uint8(lookup.read(each)) for each in small.store["test"].ids]
    return as_inputs(torch.from_numpy(np.stack(pixels)), description)
