"""A small store with test views, one of whose images is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cache import Store
from pipeline.config import ExtractConfig
from pipeline.heads import Head
from tests.measured_stores import planted_head
from tests.small_data import image_folder, small_checkpoint, small_sources
from tests.small_extractions import Run

CONFIG = ExtractConfig(
    device="cpu", workers=0, views=1, test_views=3, test_view_shift=1, batch_size=3, shard_rows=5
)


def run(folder: Path, out: str, config: ExtractConfig = CONFIG, **how: Any) -> Store:
    """A store of the three splits' images in a folder."""
    return Run(folder, config, ("train", "test", "val"))(out, **how).store


def made_store(folder: Path) -> Path:
    """Checkpoint, images of which one test image is broken, and a store with three test views."""
    small_checkpoint(folder / "m.pth")
    small_sources(folder, (3, 3, 3))
    image_folder(folder / "val", (2, 1, 1), seed=2)
    (folder / "test/bee/1.png").write_bytes(b"no image")
    run(folder, "s.zarr").close()
    return folder


def some_head(store: Store) -> Head:
    """A head that predicts all classes, and often otherwise than the old one."""
    split = store["test"]
    weight = np.random.default_rng(0).normal(0, 3, store.classifier.weight.shape)
    return planted_head(store, weight, -weight @ split.features()[split.usable].mean(axis=0))
