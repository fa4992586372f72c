"""An epoch of `pretrain` against bare forward, backward and step over tensors in memory.

    python -m benchmarks.pretrain [--model cifar-resnet32] [--rows 2560] [--runs 3] [--compiled]

For each arithmetic (float32 or bfloat16 autocast) and memory format both sides run in turn, in one
process, on the same random 32 x 32 images with mixup; the ratio of each pair of runs is what
counts. The bare side has its batches normalised, mixed and in the right format beforehand. Then the
arithmetics beside each other, and on its own what the epoch adds: cutting, shifting, normalising
and mixing the batches, and writing the state that a resumed training goes on from.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import click
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.machine import describe, seconds, spread
from pipeline.backbones import Backbone, find_backbone
from pipeline.checkpoints.own import write_file
from pipeline.config import PretrainConfig
from pipeline.devices import autocast, choose_device
from pipeline.training.augmentation import Shift, draw_mix
from pipeline.training.draws import EpochDraws
from pipeline.training.images import HeldImages
from pipeline.training.loop import Trainer
from pipeline.training.network import build_network, memory_format

SIDE, N_CLASSES = 32, 100
SHIFT = Shift(padding=4, colour=(0, 0, 0), flip=True)


class Pair:
    """The command's own epoch and the bare one, with the same settings.

    Args:
        backbone: what is trained.
        pixels: (N, H, W, 3) uint8.
        config: arithmetic, memory format and batch size.
    """

    def __init__(self, backbone: Backbone, pixels: Tensor, config: PretrainConfig) -> None:
        self.device = choose_device(config.device)
        self.config, self.pixels, self.backbone = config, pixels.to(self.device), backbone
        self.labels = torch.arange(len(pixels)) % N_CLASSES
        self.trainer = Trainer(
            build_network(backbone, N_CLASSES, config),
            HeldImages(self.pixels),
            self.labels,
            class_counts=self.labels.bincount(),
            preprocessing=backbone.preprocessing,
            shift=SHIFT,
            config=config,
            device=self.device,
        )
        self.bare = build_network(backbone, N_CLASSES, config).to(self.device)
        self.bare = self.bare.to(memory_format=memory_format(config))
        self.run: nn.Module = torch.compile(self.bare) if config.compile else self.bare  # type: ignore[assignment]  # a module that is compiled
        self.optimizer = torch.optim.SGD(self.bare.parameters(), 0.01, 0.9, weight_decay=5e-4)
        self.batches = [self.prepared(rows) for rows in self.rows()]

    def rows(self) -> tuple[Tensor, ...]:
        """The batches in order."""
        steps = -(-len(self.pixels) // self.config.batch_size)
        return torch.arange(len(self.pixels)).tensor_split(steps)

    def prepared(self, rows: Tensor) -> Tensor:
        """A batch as the network takes it."""
        draws = EpochDraws(0, 0)
        pixels = SHIFT(self.pixels[rows.to(self.device)], draws.images)
        x = self.backbone.preprocessing.normalize(pixels)
        mix = draw_mix(len(x), self.config.mixup, draws.shares, draws.images, self.device)
        x = x if mix is None else mix.images(x)
        return x.contiguous(memory_format=memory_format(self.config))

    def epoch(self) -> None:
        """The command's own."""
        self.trainer.run_epoch(0, lambda _: None)
        self.wait()

    def prepare(self) -> None:
        """What an epoch adds: every batch cut, shifted, normalised and mixed."""
        for rows in self.rows():
            self.prepared(rows)
        self.wait()

    def bare_epoch(self) -> None:
        """Forward, backward and step alone."""
        for x, rows in zip(self.batches, self.rows(), strict=True):
            labels = self.labels[rows].to(self.device)
            with autocast(self.config.autocast, self.device):
                logits = self.run(x)
            loss = functional.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self.wait()

    def wait(self) -> None:
        """Until the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def compare(pair: Pair, runs: int) -> float:
    """Print one arithmetic's terms and their ratio; the median seconds of the command's epoch."""
    pair.bare_epoch()  # to warm up, as the next line
    pair.epoch()
    times = [(seconds(pair.bare_epoch), seconds(pair.epoch)) for _ in range(runs)]
    bare, own = zip(*times, strict=True)
    ratios = [b / a for a, b in times]
    prepared = [seconds(pair.prepare) for _ in range(runs)]
    click.echo(f"  bare forward, backward and step   {spread(bare)}")
    click.echo(f"  the command's epoch               {spread(own)}")
    click.echo(f"  ratio                             {spread(ratios, 'x')}")
    click.echo(f"  of it, preparing the batches      {spread(prepared)}")
    return float(statistics.median(own))


@click.command()
@click.option("--model", default="cifar-resnet32", show_default=True)
@click.option("--rows", default=2560, show_default=True, help="Images in an epoch.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--runs", default=3, show_default=True)
@click.option("--compiled", is_flag=True, help="With torch.compile too.")
def main(model: str, rows: int, batch_size: int, device: str, runs: int, compiled: bool) -> None:
    """Print all terms side by side."""
    click.echo(describe())
    click.echo(f"{model}, {rows:,} images of {SIDE} x {SIDE} an epoch, batches of {batch_size}\n")
    backbone = find_backbone(model)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (rows, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    plain = PretrainConfig(model=model, mixup=1.0, batch_size=batch_size, lr=0.01, device=device)
    first: float | None = None
    arithmetics: tuple[Literal["none", "bfloat16"], ...] = ("none", "bfloat16")
    formats = product(arithmetics, (False, True), (False, True)[: 1 + compiled])
    for arithmetic, channels_last, compile_too in formats:
        config = replace(
            plain, autocast=arithmetic, channels_last=channels_last, compile=compile_too
        )
        words: list[str] = ["float32" if arithmetic == "none" else arithmetic]
        words += ["channels-last"] * channels_last + ["compiled"] * compile_too
        click.echo(", ".join(words))
        pair = Pair(backbone, pixels, config)
        own = compare(pair, runs)
        first = first or own
        click.echo(f"  as a share of plain float32       {own / first:.2f}\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        writes = [seconds(lambda: write_file(path, pair.trainer.state())) for _ in range(runs)]
        click.echo(f"the state, written durably after every epoch: {spread(writes)}, ")
        click.echo(f"{path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
