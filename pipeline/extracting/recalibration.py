"""BatchNorm statistics re-estimated on training images as a deployed network sees them.

A network that was trained with mixup keeps the statistics of mixed images, which have less
contrast; networks of our own were mostly better with those of images as they are, their old heads
too (docs/recipe.md, fourth round). Stage 2 of two-stage methods (MiSLAS's shift, Zhong et al. 2021,
sec. 3.3) trains its head on class-balanced batches with BatchNorm in training mode, so the
statistics follow the balanced data. Here they are the plain mean over the batches, without
augmentation, and weights stay as they are.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cache.records import Record
from pipeline.checkpoints import TrainedModel
from pipeline.config import ExtractConfig
from pipeline.datasets import ImageSource
from pipeline.datasets.splitting import balanced_rows, shuffled_rows
from pipeline.devices import autocast
from pipeline.errors import CheckpointError, DatasetError
from pipeline.progress import OnProgress, Steps
from pipeline.reading import BatchReader, RowRange, default_workers, read_ahead

SPLIT = "train"

FEWEST_ROWS = 2
"""A batch of one image has no variance to speak of."""


@dataclass(frozen=True)
class Recalibration(Record):
    """Over which images the statistics of a model are taken."""

    images: int
    """How many are drawn."""

    sampler: Literal["instance", "class-balanced"]
    """As frequent as the classes are, or all classes alike."""

    batch_size: int
    """Images in one forward pass."""

    seed: int
    """Of the draws."""

    @classmethod
    def of(cls, config: ExtractConfig) -> Recalibration | None:
        """What the settings ask for; None where that is nothing."""
        if config.recalibrate_bn == 0:
            return None
        sampler = config.recalibrate_bn_sampler
        return cls(config.recalibrate_bn, sampler, config.batch_size, config.view_seed)

    def describe(self) -> str:
        """What is done to the model, in words."""
        balanced = "class-balanced " if self.sampler == "class-balanced" else ""
        return (
            f"BatchNorm over {self.images} {balanced}training images in batches of "
            f"{self.batch_size}, seed {self.seed}"
        )


def recalibrate(
    model: TrainedModel,
    train: ImageSource,
    config: ExtractConfig,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> TrainedModel:
    """The model with BatchNorm statistics of its training images, unmixed and unaugmented.

    Args:
        model: the trained classifier; stays as it is.
        train: its training images.
        config: settings; `recalibrate_bn`, its sampler, `view_seed` and those of the forward pass
            are read.
        device: where the model runs.
        on_progress: called with a snapshot after every batch.

    Returns:
        A copy, frozen, in evaluation mode and on the CPU; the same model where the settings ask
        for nothing.

    Raises:
        CheckpointError: if the network has no BatchNorm statistics.
        DatasetError: if no batch can be read.
    """
    asked = Recalibration.of(config)
    if asked is None:
        return model
    network = copy.deepcopy(model.module).eval().to(device)
    layers = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not layers:
        raise CheckpointError(
            f"{model.source}: {model.backbone} keeps no BatchNorm statistics that could be "
            f"re-estimated; leave out --recalibrate-bn."
        )
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    seen = _pass_over(network, model, train, config, device, on_progress)
    if seen == 0:
        raise DatasetError(
            "BatchNorm takes its statistics from batches of two images or more, and no such batch "
            "could be read: give a larger --recalibrate-bn or --batch-size, or look at the images."
        )
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    note = f"{asked.describe()}: these statistics take the place of the checkpoint's."
    return replace(model, module=network.eval().cpu(), notes=(*model.notes, note))


@torch.no_grad()
def _pass_over(
    network: nn.Module,
    model: TrainedModel,
    train: ImageSource,
    config: ExtractConfig,
    device: torch.device,
    on_progress: OnProgress | None,
) -> int:
    """Run the network over the drawn images; returns how many could be read."""
    drawn = _Drawn(train, _drawn_rows(train, config))
    size = min(config.batch_size, len(drawn))
    # Batches count alike, so all have one size; the few images of a last short one are left out.
    work = [RowRange(SPLIT, start, start + size) for start in range(0, len(drawn) - size + 1, size)]
    reader = BatchReader({SPLIT: drawn}, model.preprocessing, {}, work)
    workers = config.workers if config.workers >= 0 else default_workers(device.type)
    # As the extraction runs it: in the same arithmetic, and as fast.
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    seen = 0
    steps = Steps(len(work) * size, on_progress, step="BatchNorm")
    for batch in read_ahead(reader, workers, pin_memory=device.type == "cuda"):
        good = [row for row in range(size) if batch.rows.start + row not in batch.failures]
        if len(good) >= FEWEST_ROWS:
            x = model.preprocessing.normalize(batch.images[0][good].to(device))
            with autocast(config.autocast, device):
                network(x.contiguous(memory_format=layout))
            seen += len(good)
        steps.advance(size)
    return seen


def _drawn_rows(train: ImageSource, config: ExtractConfig) -> NDArray[np.int64]:
    """Rows (M,) of the images whose statistics are taken."""
    n, seed = config.recalibrate_bn, config.view_seed
    if config.recalibrate_bn_sampler == "class-balanced":
        return balanced_rows(train.labels, n, seed)
    return shuffled_rows(len(train.labels), n, seed)


class _Drawn(ImageSource):
    """Rows of a source, some of them several times."""

    def __init__(self, source: ImageSource, rows: NDArray[np.int64]) -> None:
        self._source = source
        self._rows = rows
        ids = [f"{draw}/{source.ids[row]}" for draw, row in enumerate(self._rows)]
        super().__init__("drawn images", ids, source.labels[self._rows], source.class_names)

    def read(self, row: int) -> Image.Image:
        """The image of a draw."""
        return self._source.read(int(self._rows[row]))
