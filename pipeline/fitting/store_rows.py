"""The training rows of a store, for the solvers.

N training rows, C classes, D feature width, V views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from cache import Split, Store
from pipeline.config import FitConfig, parse_size
from pipeline.devices import choose_device
from pipeline.errors import FitError
from pipeline.fitting.full_batch import full_batch_bytes
from pipeline.fitting.many import MOST_HEADS, is_full_batch
from pipeline.fitting.rows import LinearMap, Rows, TrainingRows
from pipeline.fitting.scratch import COPIES, SPARE_BYTES, ScratchRows, buffer_rows, resident_bytes
from pipeline.fitting.shared_rows import SharedRows
from pipeline.fitting.shares import Shared
from pipeline.old_head import has_old_head
from pipeline.team import Team, adding_up

BLOCK_ROWS = 8192
"""Rows read from the store at a time: beside the features kept, memory holds these only."""


@contextmanager
def training_rows(
    store: Store, configs: Sequence[FitConfig], team: Team | None = None
) -> Iterator[Rows]:
    """The usable rows of the split `train`, with their views where one of the settings wants them.

    They are read once and kept in memory as float32: 4 * (1 + V) * N * D bytes. Where that is more
    than `memory` of the settings allows the process, they are read from a scratch file as they are
    drawn; l-bfgs, which wants all rows in every step, is then refused.
    Each process of a team reads consecutive shards, about as many rows as the others.

    Args:
        store: features (N, D), and views (V, N, D) where it has them.
        configs: settings of the heads that are fitted together, of one device and memory budget.
        team: processes that fit together; this one alone where not given.

    Raises:
        ConfigError: if the device is not there.
        FitError: if a class has no usable training row, features are not finite, the memory
            does not suffice, or another process of the team stopped.
    """
    team = team or Team()
    device = choose_device(configs[0].device, team)
    split = store["train"]
    counts = torch.from_numpy(np.array(store.class_counts))
    _require_every_class(counts, store.class_names)
    if team.size == 1:
        with _own_rows(store, range(split.n_samples), configs, device) as rows:
            yield rows
        return
    part = _part_of(split, team)
    first = int(split.usable[: part.start].sum())
    labels = torch.from_numpy(split.labels[split.usable])
    with (
        adding_up(team, device) as add_up,
        _own_rows(store, part, configs, device) as own,
    ):
        share = Shared(add_up, leads=team.leads)
        yield SharedRows(own, first, labels, counts.to(device), share)


def _part_of(split: Split, team: Team) -> range:
    """Rows whose shards are this process's."""
    shards = team.share_of([record.shard for record in split.records], lambda s: s.n_rows)
    return range(shards[0].start, shards[-1].stop) if shards else range(0)


@contextmanager
def _own_rows(
    store: Store, part: range, configs: Sequence[FitConfig], device: torch.device
) -> Iterator[Rows]:
    """A part of the rows, in memory or in a scratch file."""
    split, width = store["train"], store.header.feature_width
    n_views = split.n_views if any(config.views for config in configs) else 0
    counts = torch.from_numpy(np.array(store.class_counts)).to(device)
    teacher = old_linear_map(store, device)
    n_together = min(MOST_HEADS, len(configs) * max(config.average_seeds for config in configs))
    batch_size = max(config.batch_size for config in configs)
    heads = n_together * _head_bytes(len(counts), width, batch_size)
    memory = None if configs[0].memory is None else parse_size(configs[0].memory)
    if memory is None or _fits(store, part, n_views, memory, heads, configs):
        rows = slice(part.start, part.stop)
        labels = torch.from_numpy(split.labels[rows][split.usable[rows]]).to(device)
        features = _read_features(split, part, n_views, width).to(device)
        yield TrainingRows(features, labels, counts, teacher)
        return
    read = min(store.header.shard_rows, split.n_samples) * width * np.dtype(store.dtype).itemsize
    buffer = buffer_rows(memory - resident_bytes(), width, n_together * batch_size, read, heads)
    with ScratchRows(
        split, part, n_views, counts, width=width, device=device, buffer=buffer, teacher=teacher
    ) as scratch:
        yield scratch


def old_linear_map(store: Store, device: torch.device) -> LinearMap | None:
    """The store's old head as tensors, its scale within the weight."""
    if not has_old_head(store):
        return None
    old = store.classifier
    weight = torch.from_numpy(np.array(old.weight))
    if old.normalized:
        weight = torch.nn.functional.normalize(weight, dim=1)
    bias = torch.zeros(len(weight)) if old.bias is None else torch.from_numpy(np.array(old.bias))
    return LinearMap((weight * old.scale).to(device), bias.to(device), old.normalized)


def _head_bytes(n_classes: int, width: int, batch_size: int) -> int:
    """Memory of a head while it is fitted.

    Its weight, gradient, a product and what AdamW keeps; its logits and what a loss makes of them.
    """
    return 4 * (5 * n_classes * (width + 1) + 4 * batch_size * n_classes)


def _fits(
    store: Store, part: range, n_views: int, budget: int, heads: int, configs: Sequence[FitConfig]
) -> bool:
    """Whether the part's features can be in memory within a budget for the whole process.

    Args:
        store: the store.
        part: rows of the split `train`.
        n_views: views that take part.
        budget: bytes for the whole process.
        heads: bytes of the heads that mini-batches fit together.
        configs: settings of all heads.

    Raises:
        FitError: if they cannot, and a head is to be fitted by l-bfgs.
    """
    n_classes, width = len(store.class_counts), store.header.feature_width
    all_at_once = [
        full_batch_bytes(config, (1 + n_views * config.views) * len(part), n_classes, width)
        for config in configs
        if is_full_batch(config)
    ]
    whole = 4 * (1 + n_views) * len(part) * width
    read = COPIES * 4 * (1 + n_views) * BLOCK_ROWS * width
    fixed = resident_bytes() + whole + read + SPARE_BYTES
    short = fixed + max(heads, *all_at_once, 0) - budget
    if short > 0 and all_at_once:
        raise FitError(
            "The memory does not suffice: l-bfgs holds the features and the logits of all rows, so "
            f"--memory must be {math.ceil(short / 2**20):,} MiB larger or more; --solver sgd does "
            "with less."
        )
    return short <= 0


def _read_features(split: Split, part: range, n_views: int, width: int) -> Tensor:
    """Features (1 + V, n, D) float32 of a part's usable rows: clean, then each view."""
    n_usable = int(split.usable[part.start : part.stop].sum())
    kept = np.empty((1 + n_views, n_usable, width), np.float32)
    filled = 0
    for start in part[::BLOCK_ROWS]:
        stop = min(start + BLOCK_ROWS, part.stop)
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


def _require_every_class(class_counts: Tensor, class_names: tuple[str, ...]) -> None:
    """Raise where a head would have nothing to learn a class from."""
    empty = [name for name, count in zip(class_names, class_counts, strict=True) if count == 0]
    if empty:
        others = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise FitError(
            f"Class {empty[0]!r}{others} has no usable training row, so no head can learn it: "
            "extract with readable training images of every class."
        )
