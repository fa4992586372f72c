"""`extract` of ResNet-50 on JPEGs, against the smaller of two limits: decoding and forward pass.

    python -m benchmarks.extract_gpu [--device cuda] [--images 20000] [--side 256] [--runs 3]

Writes random-weight ResNet-50 and smooth random square JPEGs, and measures in turn

- decoding by the readers: the reading processes alone, as fast as they go;
- decoding on the device: the same files read as bytes, and decoded, resized and cropped there;
- forward: batches of uint8 pixels that lie on the device already, normalised and run there;
- extract with each kind of decoding: the whole, to a store.

What counts is extract's rate over the smaller of its two limits; the aim is 0.90. A GPU that
decodes with the cores that run the model cannot reach either limit while it does both. The images
are as large as ResNet-50's transform resizes them to; with `--side 500` there is a resize to do.

With `--device cpu --images 64` it shows on any machine that the script runs, but for the terms of
the device's decoding, and nothing else.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
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
from pipeline.datasets import ImageSource, open_source
from pipeline.devices import autocast
from pipeline.extracting.device_decoding import BatchDecoder, Decoder, EncodedReader, jpeg_decoder
from pipeline.extracting.plan import prepare_model
from pipeline.reading import BatchReader, RowRange, read_ahead
from pipeline.stages.extract import extract

N_CLASSES, SIDE, INPUT = 10, 256, 224


def synthetic(folder: Path, images: int, side: int = SIDE) -> Path:
    """Smooth JPEGs in ten classes, split in two; and the weights of a ResNet-50."""
    generator = np.random.default_rng(0)
    for i in range(images):
        split = "train" if i % 4 else "test"
        name = folder / split / f"class{i // 4 % N_CLASSES}" / f"{i}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(name, quality=90)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), folder / "resnet50.pth")
    return folder / "resnet50.pth"


def batches_of(folder: Path, size: int) -> tuple[dict[str, ImageSource], list[RowRange]]:
    """The images of both splits, and their rows in batches."""
    sources = {name: open_source(folder / name) for name in ("train", "test")}
    work = [
        RowRange(name, start, min(start + size, len(source)))
        for name, source in sources.items()
        for start in range(0, len(source), size)
    ]
    return sources, work


def decode(model: TrainedModel, folder: Path, config: ExtractConfig) -> None:
    """Nothing but the reading processes, which decode."""
    sources, work = batches_of(folder, config.batch_size)
    reader = BatchReader(sources, model.preprocessing, {}, work)
    for _ in read_ahead(reader, config.workers, pin_memory=config.device == "cuda"):
        pass


def decode_on_device(
    model: TrainedModel, folder: Path, config: ExtractConfig, decoder: Decoder
) -> None:
    """Nothing but reading processes that hand over bytes, and a device that decodes them."""
    device = torch.device(config.device)
    sources, work = batches_of(folder, config.batch_size)
    reader = EncodedReader(sources, model.preprocessing, work)
    decode_batch = BatchDecoder(sources, model.preprocessing, decoder, device)
    for batch in read_ahead(reader, config.workers, pin_memory=False):
        decode_batch(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def forward(model: TrainedModel, config: ExtractConfig, images: int) -> None:
    """Nothing but normalisation and model, on pixels that are there already."""
    device = torch.device(config.device)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    module = model.module.eval().to(device).to(memory_format=layout)
    size = min(config.batch_size, images)
    pixels = torch.randint(256, (size, INPUT, INPUT, 3), dtype=torch.uint8, device=device)
    with Tap(module, model.classifier_name) as tap, autocast(config.autocast, device):
        for _ in range(-(-images // size)):
            x = model.preprocessing.normalize(pixels)
            tap(x.contiguous(memory_format=layout))
    if device.type == "cuda":
        torch.cuda.synchronize()


@dataclass
class Rates:
    """Images a second of one way to decode, one number a run."""

    name: str
    """Who decodes."""

    decoding: list[float] = field(default_factory=list)
    """Decoding alone."""

    forward: list[float] = field(default_factory=list)
    """Forward pass alone, measured right beside it."""

    extract: list[float] = field(default_factory=list)
    """The whole."""

    def print_last(self) -> None:
        """The terms of the latest run."""
        terms = {"decoding": self.decoding, "forward": self.forward, "extract": self.extract}
        latest = (f"{term} {rates[-1]:9,.0f}" for term, rates in terms.items())
        print(f"images/s, {self.name:<12}", *latest, flush=True)

    def print_ratios(self) -> None:
        """Extract over the smaller limit, over all runs."""
        limits = map(min, self.decoding, self.forward)
        ratios = [rate / limit for rate, limit in zip(self.extract, limits, strict=True)]
        print(f"extract / limit, {self.name:<12} {spread(ratios, 'x')}")


def measure(
    rates: Rates,
    model: TrainedModel,
    folder: Path,
    config: ExtractConfig,
    images: int,
    suffix: str,
) -> None:
    """All terms of one way to decode, side by side."""
    sources = {name: folder / name for name in ("train", "test")}
    decoder = jpeg_decoder(config, torch.device(config.device))
    alone = partial(decode, model, folder, config)
    if decoder is not None:
        alone = partial(decode_on_device, model, folder, config, decoder)

    def whole(out: Path) -> None:
        extract(model, sources, out, config).store.close()

    rates.decoding.append(images / seconds(alone))
    rates.forward.append(images / seconds(partial(forward, model, config, images)))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        rates.extract.append(images / seconds(partial(whole, Path(scratch) / f"store{suffix}")))
    rates.print_last()


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--images", default=20_000, show_default=True)
@click.option("--side", default=SIDE, show_default=True, help="Of the JPEGs, in pixels.")
@click.option("--workers", default=15, show_default=True)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--autocast", "mixed", default="bfloat16", show_default=True)
@click.option("--suffix", default=".zarr", show_default=True)
@click.option("--runs", default=3, show_default=True)
def main(
    device: str,
    images: int,
    side: int,
    workers: int,
    batch_size: int,
    mixed: str,
    suffix: str,
    runs: int,
) -> None:
    """Print the rates of each way to decode and how much of the limit is reached."""
    print(describe())
    by_readers = ExtractConfig(
        model="torchvision/resnet50", device=device, workers=workers, batch_size=batch_size,
        channels_last=True, autocast="bfloat16" if mixed == "bfloat16" else "none",
        dtype="float16", features_only=True,
    )  # fmt: skip
    ways = {"readers": by_readers}
    if torch.device(device).type == "cuda":
        print(torch.cuda.get_device_name(device))
        ways["device"] = replace(by_readers, decode="device")
    else:
        print(f"{device} is no CUDA device: without the terms of decoding on the device")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = prepare_model(synthetic(folder, images, side), by_readers)
        forward(model, by_readers, batch_size)  # warm up
        measured = {name: Rates(f"by {name}") for name in ways}
        for _ in range(runs):
            for name, config in ways.items():
                measure(measured[name], model, folder, config, images, suffix)
        for rates in measured.values():
            rates.print_ratios()


if __name__ == "__main__":
    main()
