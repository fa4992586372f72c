"""Everything random about a fit, from generators of its seed alone.

All is drawn on the CPU: the draws are the same on every device and for any number of threads, and
torch's global generator neither matters nor moves. Each use of a seed has a generator of its own,
so that fits with and without views, or with other dropout, see the same mini-batches.
N training rows, B batch rows, D feature width, G seeds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipeline.config import FitConfig
from pipeline.fitting.shares import IndexBatch
from pipeline.samplers import SAMPLERS
from pipeline.seeds import generator_for

Result = TypeVar("Result")


def with_settings(function: Callable[..., Result], config: FitConfig) -> Callable[..., Result]:
    """A loss or sampler whose own settings, its keyword-only arguments, are the config's fields.

    Arguments that are no fields stay open.
    """
    own = [name for name in own_settings(function) if hasattr(config, name)]
    return partial(function, **{name: getattr(config, name) for name in own})


def own_settings(function: Callable[..., Any]) -> list[str]:
    """Names of a function's keyword-only arguments."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def index_batches(
    labels: Tensor, n_versions: int, config: FitConfig, seeds: Sequence[int]
) -> Iterator[IndexBatch]:
    """The rows of every step of a whole fit, (G, B) for G seeds.

    Args:
        labels: (N,) int64 on the CPU.
        n_versions: 1 + V.
        config: settings; sampler, batch size and epochs decide.
        seeds: G of them.
    """
    draws = [_seed_batches(labels, n_versions, config, seed) for seed in seeds]
    for batches in zip(*draws, strict=True):
        yield torch.stack(batches)


def _seed_batches(
    labels: Tensor, n_versions: int, config: FitConfig, seed: int
) -> Iterator[Tensor]:
    """The rows (B,) of every step for one seed."""
    sampler = with_settings(SAMPLERS[config.sampler], config)
    moves = "progress" in own_settings(SAMPLERS[config.sampler])
    batch_draws = generator_for(seed, "batches")
    version_draws = generator_for(seed, "versions")
    for epoch in range(config.n_epochs):
        position = {"progress": epoch / max(1, config.n_epochs - 1)} if moves else {}
        for batch in sampler(labels, config.batch_size, batch_draws, **position):
            if n_versions == 1:
                yield batch
            else:
                version = torch.randint(n_versions, batch.shape, generator=version_draws)
                yield version.mul_(len(labels)).add_(batch)


def dropout_masks(
    width: int, config: FitConfig, seeds: Sequence[int]
) -> Callable[[int], Tensor | None]:
    """A function that draws the next step's factors (G, B, D) of B rows; None without dropout.

    Kept features are scaled up, so that their expectation stays.
    """
    generators = [generator_for(seed, "dropout") for seed in seeds]
    keep = 1 - config.feature_dropout

    def draw(n_rows: int) -> Tensor | None:
        if config.feature_dropout == 0:
            return None
        masks = torch.empty(len(generators), n_rows, width)
        for mask, generator in zip(masks, generators, strict=True):
            mask.bernoulli_(keep, generator=generator)
        return masks.div_(keep)

    return draw


def standard_noise(
    width: int, config: FitConfig, seeds: Sequence[int]
) -> Callable[[int], Tensor | None]:
    """A function that draws the next step's normal numbers (G, B, D); None without noise."""
    generators = [generator_for(seed, "noise") for seed in seeds]

    def draw(n_rows: int) -> Tensor | None:
        if config.feature_noise == 0:
            return None
        draws = [torch.randn(n_rows, width, generator=generator) for generator in generators]
        return torch.stack(draws)

    return draw
