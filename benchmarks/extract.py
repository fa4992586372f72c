"""`extract` against the bare forward pass over the same tensors already in memory.

    python -m benchmarks.extract [--checkpoint FILE --train DIR --test DIR] [--runs 3]

Without data of your own it writes synthetic 32 x 32 PNGs and a random ResNet-32. Both sides run in
turn in one process with the same number of threads, batch size and memory format; the ratio of
each pair of runs is what counts. Beside them the terms that extraction adds, each measured alone:
decoding the images, normalising them, and writing and sealing the store.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from benchmarks.machine import describe, seconds, spread
from cache import SplitSpec, StoreSpec, create_store, open_store
from pipeline.backbones import BACKBONES
from pipeline.checkpoints import TrainedModel
from pipeline.config import ExtractConfig
from pipeline.datasets import open_source
from pipeline.extracting.plan import prepare_model
from pipeline.reading import BatchReader, RowRange, read_ahead
from pipeline.stages.extract import extract

SPLITS = ("train", "test")
N_CLASSES, N_TRAIN, N_TEST, SIDE = 100, 10_847, 10_000, 32


def synthetic(folder: Path) -> tuple[Path, Path, Path]:
    """A random ResNet-32 and smooth random PNGs (noise would be slower to decode than photos)."""
    generator = np.random.default_rng(0)
    for split, count in (("train", N_TRAIN), ("test", N_TEST)):
        for i in range(count):
            name = folder / split / f"{i % N_CLASSES:03d}" / f"{i}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(name)
    checkpoint = folder / "model.pth"
    torch.save(BACKBONES["cifar-resnet32"].build(N_CLASSES).state_dict(), checkpoint)
    return checkpoint, folder / "train", folder / "test"


def tensors(model: TrainedModel, folders: tuple[Path, Path], batch_size: int) -> list[torch.Tensor]:
    """Every image of both folders as normalised batches in memory."""
    batches = []
    for folder in folders:
        source = open_source(folder)
        rows = [model.preprocessing.to_uint8(source.read(i)) for i in range(len(source))]
        pixels = torch.from_numpy(np.stack(rows))
        batches += [model.preprocessing.normalize(part) for part in pixels.split(batch_size)]
    return batches


@torch.inference_mode()
def bare_forward(model: TrainedModel, batches: list[torch.Tensor]) -> None:
    """Nothing but the model."""
    for batch in batches:
        model.module(batch)


def read_all(model: TrainedModel, folders: tuple[Path, Path], config: ExtractConfig) -> None:
    """Nothing but the images, in this process."""
    sources = {name: open_source(folder) for name, folder in zip(SPLITS, folders, strict=True)}
    work = [
        RowRange(name, start, min(start + config.batch_size, len(source)))
        for name, source in sources.items()
        for start in range(0, len(source), config.batch_size)
    ]
    reader = BatchReader(sources, model.preprocessing, {}, work)
    for _ in read_ahead(reader, 0, pin_memory=False):
        pass


def normalize_all(model: TrainedModel, batches: list[torch.Tensor]) -> None:
    """Nothing but uint8 to normalised float32."""
    for batch in batches:
        model.preprocessing.normalize(batch)


def write_all(whole: Path, out: Path) -> None:
    """Nothing but writing, reading back and sealing, of what `whole` holds."""
    with open_store(whole) as store:
        arrays = {name: (store[name].features(), store[name].logits()) for name in store.splits}
        spec = StoreSpec(
            store.identity,
            store.class_names,
            store.classifier,
            tuple(SplitSpec(name, store[name].ids, store[name].labels) for name in store.splits),
        )
    with create_store(out, spec) as writer:
        for shard in writer.missing():
            features, logits = (array[shard.rows] for array in arrays[shard.split])
            writer.write_shard(shard, features=features, logits=logits)
        writer.seal().close()


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path))
@click.option("--train", type=click.Path(path_type=Path))
@click.option("--test", type=click.Path(path_type=Path))
@click.option("--runs", default=3, show_default=True)
@click.option("--suffix", default=".zarr", show_default=True, help="Backend of the store.")
@click.option("--workers", default=-1, show_default=True)
def main(
    checkpoint: Path | None, train: Path | None, test: Path | None, runs: int, suffix: str,
    workers: int,
) -> None:  # fmt: skip
    """Print both times and their ratio."""
    print(describe())
    config = ExtractConfig(device="cpu", workers=workers)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if checkpoint is None or train is None or test is None:
            checkpoint, train, test = synthetic(folder)
        model = prepare_model(checkpoint, config)
        batches = tensors(model, (train, test), config.batch_size)
        bare_forward(model, batches[:4])  # warm up
        sources = {"train": train, "test": test}

        def whole_extraction(out: Path) -> None:
            extract(model, sources, out, config).store.close()

        pixels = [torch.zeros(len(b), *b.shape[2:], 3, dtype=torch.uint8) for b in batches]
        bare, whole, reading, normalizing, writing = [], [], [], [], []
        for run in range(runs):
            out = folder / f"run{run}{suffix}"
            bare.append(seconds(partial(bare_forward, model, batches)))
            whole.append(seconds(partial(whole_extraction, out)))
            reading.append(seconds(partial(read_all, model, (train, test), config)))
            normalizing.append(seconds(partial(normalize_all, model, pixels)))
            writing.append(seconds(partial(write_all, out, folder / f"copy{run}{suffix}")))
    ratios = [w / b for w, b in zip(whole, bare, strict=True)]
    print(f"images                 {sum(len(batch) for batch in batches):,}")
    print(f"bare forward pass      {spread(bare)}")
    print(f"extract to {suffix:<11} {spread(whole)}")
    for name, term in (("reading", reading), ("normalising", normalizing), ("writing", writing)):
        print(f"  {name + ' alone':<20} {spread(term)}")
    print(f"extract / bare         {spread(ratios, 'x')}")
    print(f"median ratio           {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
