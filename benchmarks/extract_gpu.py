"""`extract` of ResNet-50 on JPEGs, against the smaller of two limits: decoding and forward pass.

    python -m benchmarks.extract_gpu [--device cuda] [--images 20000] [--workers 15] [--runs 3]

Writes random-weight ResNet-50 and smooth random 256 x 256 JPEGs, and measures in turn

- decoding: the reading processes alone, as fast as they go;
- forward: batches of uint8 pixels that lie on the device already, normalised and run there;
- extract: the whole, to a store.

What counts is extract's rate over the smaller of the other two; the aim is 0.90. With
`--device cpu --images 64` it shows on any machine that the script runs, and nothing else.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
import torchvision
from PIL import Image

from benchmarks.machine import describe, seconds, spread
from pipeline.backbones.tap import Tap
from pipeline.checkpoints import TrainedModel
from pipeline.config import ExtractConfig
from pipeline.datasets import open_source
from pipeline.devices import autocast
from pipeline.reading import BatchReader, Rows, read_ahead
from pipeline.stages.extract import extract, prepare_model

N_CLASSES, SIDE, INPUT = 10, 256, 224


def synthetic(folder: Path, images: int) -> Path:
    """Smooth JPEGs in ten classes, split in two; and the weights of a ResNet-50."""
    generator = np.random.default_rng(0)
    for i in range(images):
        split = "train" if i % 4 else "test"
        name = folder / split / f"class{i // 4 % N_CLASSES}" / f"{i}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(name, quality=90)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), folder / "resnet50.pth")
    return folder / "resnet50.pth"


def decode(model: TrainedModel, folder: Path, config: ExtractConfig) -> None:
    """Nothing but the reading processes."""
    sources = {name: open_source(folder / name) for name in ("train", "test")}
    work = [
        Rows(name, start, min(start + config.batch_size, len(source)))
        for name, source in sources.items()
        for start in range(0, len(source), config.batch_size)
    ]
    reader = BatchReader(sources, model.preprocessing, {}, work)
    for _ in read_ahead(reader, config.workers, pin_memory=config.device == "cuda"):
        pass


@torch.inference_mode()
def forward(model: TrainedModel, config: ExtractConfig, images: int) -> None:
    """Nothing but normalisation and model, on pixels that are there already."""
    device = torch.device(config.device)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    module = model.module.eval().to(device).to(memory_format=layout)
    size = min(config.batch_size, images)
    pixels = torch.randint(256, (size, INPUT, INPUT, 3), dtype=torch.uint8, device=device)
    with Tap(module, model.classifier_name) as tap, autocast(config, device):
        for _ in range(-(-images // size)):
            x = model.preprocessing.normalize(pixels)
            tap(x.contiguous(memory_format=layout))
    if device.type == "cuda":
        torch.cuda.synchronize()


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--images", default=20_000, show_default=True)
@click.option("--workers", default=15, show_default=True)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--autocast", "mixed", default="bfloat16", show_default=True)
@click.option("--suffix", default=".zarr", show_default=True)
@click.option("--runs", default=3, show_default=True)
def main(
    device: str, images: int, workers: int, batch_size: int, mixed: str, suffix: str, runs: int
) -> None:
    """Print the three rates and how much of the limit is reached."""
    print(describe())
    if device == "cuda":
        print(torch.cuda.get_device_name())
    config = ExtractConfig(
        model="torchvision/resnet50", device=device, workers=workers, batch_size=batch_size,
        channels_last=True, autocast="bfloat16" if mixed == "bfloat16" else "none",
        dtype="float16", features_only=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = prepare_model(synthetic(folder, images), config)
        sources = {name: folder / name for name in ("train", "test")}

        def whole(out: Path) -> None:
            extract(model, sources, out, config).store.close()

        forward(model, config, batch_size)  # warm up
        limits, rates = [], []
        for run in range(runs):
            decoding = images / seconds(partial(decode, model, folder, config))
            running = images / seconds(partial(forward, model, config, images))
            rates.append(images / seconds(partial(whole, folder / f"run{run}{suffix}")))
            limits.append(min(decoding, running))
            print(f"images/s: decoding {decoding:,.0f}, forward {running:,.0f}, "
                  f"extract {rates[-1]:,.0f}", flush=True)  # fmt: skip
    print(f"extract / limit        {spread([r / m for r, m in zip(rates, limits, strict=True)], 'x')}")  # fmt: skip  # noqa: E501


if __name__ == "__main__":
    main()
