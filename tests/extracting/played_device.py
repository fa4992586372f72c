"""A device that decodes JPEG files, played by the CPU's own decoder, and images for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from pipeline.config import ExtractConfig
from pipeline.datasets import (
    Preprocessing,
)
from pipeline.extracting.device_decoding import (
    torchvision_decoder,
)

CPU = torch.device("cpu")
HALF = (0.5, 0.5, 0.5)
GEOMETRY = Preprocessing(HALF, HALF, resize=12, crop=10)

CONFIG = ExtractConfig(decode="device", workers=0, batch_size=3, shard_rows=5, resize=12, crop=10)


def picture(seed: int, height: int = 16, width: int = 19) -> Image.Image:
    """Smooth, as photographs are."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2))


def jpeg_folder(path: Path) -> Path:
    """Nine images in three classes: plain JPEG files, and one of each other kind."""
    for name in ("ant", "bee", "cat"):
        (path / name).mkdir(parents=True)
    for row in range(4):
        picture(row).save(path / "ant" / f"{row}.jpg", quality=95, progressive=row == 1)
    picture(4).convert("L").save(path / "bee" / "0-grey.jpg")
    picture(5).convert("CMYK").save(path / "bee" / "1-cmyk.jpg")
    picture(6).save(path / "bee" / "2.png")
    whole = (path / "ant" / "0.jpg").read_bytes()
    (path / "cat" / "0-cut.jpg").write_bytes(whole[: len(whole) // 2])
    picture(7, 30, 25).save(path / "cat" / "1.jpg", quality=95)
    return path


ON_DEVICE, BY_READER, FAILED = [0, 1, 2, 3, 8], [4, 5, 6], [7]


class Fake:
    """A decoder that counts its calls and fails where told, for a whole call as nvJPEG does."""

    def __init__(self, fails: Callable[[torch.Tensor], bool] = lambda _: False) -> None:
        self.calls: list[int] = []
        self._fails = fails
        self._decode = torchvision_decoder(CPU)

    def __call__(self, files: list[torch.Tensor]) -> list[torch.Tensor]:
        self.calls.append(len(files))
        if any(self._fails(file) for file in files):
            raise RuntimeError("Failed to decode batch: 3\nmore of it")
        return self._decode(files)
