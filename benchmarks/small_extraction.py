"""A real extraction of a second or so, for the scripts that interrupt or damage it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.backbones import BACKBONES
from pipeline.config import ExtractConfig
from pipeline.stages.extract import Extraction, extract
from pipeline.team import Team

CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": (36, 15, 6), "test": (6, 6, 6)}
CONFIG = ExtractConfig(device="cpu", workers=0, views=2, test_views=3, batch_size=3, shard_rows=5)
"""57 and 18 rows in shards of 5: 12 of train, 4 of test, the last of each a short one."""

N_ROWS = sum(map(sum, COUNTS.values()))


def make_inputs(folder: Path) -> None:
    """A random small CNN, and PNGs of random pixels in three classes; one is unreadable."""
    generator = np.random.default_rng(0)
    for split, counts in COUNTS.items():
        for name, count in zip(CLASSES, counts, strict=True):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (10, 10, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    (folder / "train" / "bee" / "3.png").write_bytes(b"no image")
    torch.manual_seed(0)
    torch.save(BACKBONES["small-cnn"].build(len(CLASSES)).state_dict(), folder / "model.pth")


def run(folder: Path, out: Path, *, resume: bool = False, team: Team | None = None) -> Extraction:
    """Extract what :func:`make_inputs` has made."""
    sources = {split: folder / split for split in COUNTS}
    return extract(folder / "model.pth", sources, out, CONFIG, resume=resume, team=team)


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a store by its name."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }
