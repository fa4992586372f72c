"""The stage `fit_head`: re-train the linear head on the cached features of a store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from cache import Split, Store
from pipeline.config import FitConfig, parse_size
from pipeline.devices import choose_device
from pipeline.errors import FitError
from pipeline.heads import Head
from pipeline.progress import Snapshot
from pipeline.solvers import LinearFit, TrainingRows, fit_sgd, fit_sgd_batches
from pipeline.streaming import COPIES, SPARE_BYTES, ScratchRows, buffer_rows, resident_bytes
from pipeline.versions import versions

BLOCK_ROWS = 8192
"""Rows read from the store at a time: beside the features kept, memory holds these only."""


@dataclass(frozen=True)
class FitResult:
    """A re-trained head and how its fit went."""

    head: Head
    """The head, with everything that decided it."""

    losses: tuple[float, ...]
    """Training loss of each epoch, the mean over its steps."""

    n_samples: int
    """Training rows used; rows whose image could not be read are not among them."""

    n_views: int
    """Stored views used beside the clean features."""

    seconds: float
    """Seconds of the fit, the reading of the features included."""


def fit_head(
    store: Store,
    config: FitConfig | None = None,
    *,
    on_progress: Callable[[Snapshot], None] | None = None,
) -> FitResult:
    """Re-initialise the linear head and re-train it on the split `train`, Algorithm 1 steps 3-4.

    The features of all usable rows, with their views where `config.views` asks for them, are read
    once and kept in memory as float32: 4 * (1 + V) * N * D bytes. Where that is more than
    `config.memory` allows the process, they are read from a scratch file as they are drawn
    (`pipeline.streaming`), with the same head as the result.

    On a CPU, the same store, settings and version of torch give the same head to the bit, whatever
    the state of torch's global random generator. The draws do not depend on the number of threads
    either; the matrix products of wide heads may, in their last bits, as torch shares them out.

    Args:
        store: features (N, D), and views (V, N, D) where it has them.
        config: settings; the defaults where not given.
        on_progress: called after each epoch.

    Raises:
        ConfigError: if the device is not there.
        FitError: if a class has no usable training row, features are not finite, or the fit
            diverges.
    """
    config = config or FitConfig()
    begun = time.perf_counter()
    device = choose_device(config.device)

    def report(epochs: int) -> None:
        if on_progress is not None:
            on_progress(Snapshot(epochs, config.epochs, epochs, time.perf_counter() - begun))

    split = store["train"]
    n_views = split.n_views if config.views else 0
    class_counts = torch.from_numpy(np.array(store.class_counts))
    _require_every_class(class_counts, store.class_names)
    if config.memory is not None and not _fits(store, n_views, parse_size(config.memory)):
        fit = _fit_streamed(store, n_views, config, device, report)
    else:
        fit = fit_sgd(_training_rows(split, n_views, class_counts, device), config, report)
    head = Head(
        weight=fit.weight.cpu().numpy(),
        bias=fit.bias.cpu().numpy(),
        identity=store.identity,
        class_names=store.class_names,
        class_counts=tuple(class_counts.tolist()),
        config=asdict(config),
        versions=versions(),
    )
    n_samples = int(class_counts.sum())
    return FitResult(head, fit.losses, n_samples, n_views, time.perf_counter() - begun)


def _fits(store: Store, n_views: int, budget: int) -> bool:
    """Whether all features can be in memory within a budget for the whole process."""
    split = store["train"]
    whole = 4 * (1 + n_views) * split.n_samples * store.header.feature_width
    read = COPIES * 4 * (1 + n_views) * BLOCK_ROWS * store.header.feature_width
    return resident_bytes() + whole + read + SPARE_BYTES <= budget


def _fit_streamed(
    store: Store,
    n_views: int,
    config: FitConfig,
    device: torch.device,
    on_epoch: Callable[[int], None],
) -> LinearFit:
    """Fit on features in a scratch file: the same head, in less memory."""
    split, width = store["train"], store.header.feature_width
    read = min(store.header.shard_rows, split.n_samples) * width * np.dtype(store.dtype).itemsize
    available = parse_size(config.memory or "") - resident_bytes()
    buffer = buffer_rows(available, width, config.batch_size, read)
    counts = torch.from_numpy(np.array(store.class_counts)).to(device)
    like = torch.empty(0, width, device=device)
    with ScratchRows(split, n_views, width) as rows:
        batches = rows.batches(config, buffer, device)
        return fit_sgd_batches(batches, like, len(rows.labels), counts, config, on_epoch)


def _training_rows(
    split: Split, n_views: int, class_counts: torch.Tensor, device: torch.device
) -> TrainingRows:
    """Usable rows of the training split, on a device."""
    labels = torch.from_numpy(split.labels[split.usable])
    features = _read_features(split, n_views)
    return TrainingRows(features.to(device), labels.to(device), class_counts.to(device))


def _read_features(split: Split, n_views: int) -> torch.Tensor:
    """Features (1 + V, N, D) float32 of the usable rows: clean, then each view."""
    n_usable = int(split.usable.sum())
    width = split.features(0, 1).shape[1]
    kept = np.empty((1 + n_views, n_usable, width), np.float32)
    filled = 0
    for start in range(0, split.n_samples, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, split.n_samples)
        usable = split.usable[start:stop]
        block = kept[:, filled : filled + int(usable.sum())]
        block[0] = split.features(start, stop)[usable]
        if n_views:
            block[1:] = split.views(start, stop)[:, usable]
        finite = np.isfinite(block).all(axis=(0, 2))
        if not finite.all():
            row = start + int(np.flatnonzero(usable)[finite.argmin()])
            raise FitError(
                f"The features of training row {row} ({split.ids[row]}) are not finite: "
                "extract the store again, in float32 if it is a float16 one."
            )
        filled += block.shape[1]
    return torch.from_numpy(kept)


def _require_every_class(class_counts: torch.Tensor, class_names: tuple[str, ...]) -> None:
    """Raise where a head would have nothing to learn a class from."""
    empty = [name for name, count in zip(class_names, class_counts, strict=True) if count == 0]
    if empty:
        others = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise FitError(
            f"Class {empty[0]!r}{others} has no usable training row, so no head can learn it: "
            "extract with readable training images of every class."
        )
