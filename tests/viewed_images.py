"""A small store with test views, one of whose images is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from cache import Store
from pipeline.cli import main
from pipeline.config import ExtractConfig
from pipeline.heads import Head
from pipeline.stages.extract import extract
from tests.measured_stores import planted_head
from tests.small_data import image_folder, small_checkpoint

CONFIG = ExtractConfig(
    device="cpu", workers=0, views=1, test_views=3, test_view_shift=1, batch_size=3, shard_rows=5
)


def run(folder: Path, out: str, config: ExtractConfig = CONFIG, **how: Any) -> Store:
    sources = {name: folder / name for name in ("train", "test", "val")}
    return extract(folder / "m.pth", sources, folder / out, config, **how).store


def nolb(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def made_store(folder: Path) -> Path:
    """Checkpoint, images of which one test image is broken, and a store with three test views."""
    small_checkpoint(folder / "m.pth")
    image_folder(folder / "train")
    image_folder(folder / "val", (2, 1, 1), seed=2)
    image_folder(folder / "test", (3, 3, 3), seed=1)
    (folder / "test/bee/1.png").write_bytes(b"no image")
    run(folder, "s.zarr").close()
    return folder


def some_head(store: Store) -> Head:
    """A head that predicts all classes, and often otherwise than the old one."""
    split = store["test"]
    weight = np.random.default_rng(0).normal(0, 3, store.classifier.weight.shape)
    return planted_head(store, weight, -weight @ split.features()[split.usable].mean(axis=0))
