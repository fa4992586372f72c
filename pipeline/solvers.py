"""Solvers: from features and labels to the weight and bias of a linear head.

A solver knows tensors only, no store and no file. N training rows, C classes, D feature width,
V views, B batch rows.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from torch import Generator, Tensor

from pipeline.config import FitConfig
from pipeline.errors import FitError
from pipeline.losses import LOSSES, Loss
from pipeline.samplers import SAMPLERS

Result = TypeVar("Result")

Batch = tuple[Tensor, Tensor]
"""Features (B, D) and labels (B,) of one step."""

SMALL_STEP = 2**22
"""Multiplications B * C * D up to which a step runs on one thread: sharing out less than about a
millisecond of work gains nothing, and its last bits would depend on the number of threads."""


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """What a head is fitted on, all on one device."""

    features: Tensor
    """(1 + V, N, D) floating point, finite: the clean features, then those of each view."""

    labels: Tensor
    """(N,) int64 in 0..C-1."""

    class_counts: Tensor
    """(C,) int64, rows of each class; all above 0."""


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear head and how its fit went; its logits are features @ weight.T + bias."""

    weight: Tensor
    """(C, D), of the features' type and on their device."""

    bias: Tensor
    """(C,), likewise."""

    losses: tuple[float, ...]
    """Loss of each epoch, the mean over its steps."""


def fit_sgd(
    rows: TrainingRows, config: FitConfig, on_epoch: Callable[[int], None] | None = None
) -> LinearFit:
    """Fit a fresh linear head by SGD with momentum, weight decay and a cosine schedule to 0.

    The initial head, the mini-batches and the choice between a row's clean features and its views
    come from three generators seeded with `config.seed` alone: fits with and without views see
    the same mini-batches, and torch's global generator neither matters nor moves. All is drawn on
    the CPU, so the draws are the same on every device and for any number of threads. On a CPU the
    same rows and settings give the same head to the bit; where a step takes more than
    `SMALL_STEP` multiplications, for the same number of threads.

    Args:
        rows: features (1 + V, N, D), all of which are used, and labels (N,).
        config: settings; whether views take part is decided by what `rows` holds.
        on_epoch: called after each epoch with the number of epochs done.

    Raises:
        FitError: if the loss or the head stops being finite.
    """
    n_versions, n_rows, width = rows.features.shape
    features = rows.features.reshape(n_versions * n_rows, width)
    labels = rows.labels.repeat(n_versions)
    draw_epoch = epoch_draw(rows.labels.cpu(), n_versions, config)

    def batches() -> Iterator[Batch]:
        while True:
            for batch in draw_epoch():
                index = batch.to(features.device)
                yield features[index], labels[index]

    return fit_sgd_batches(batches(), features[:0], n_rows, rows.class_counts, config, on_epoch)


def fit_sgd_batches(
    batches: Iterator[Batch],
    like: Tensor,
    n_rows: int,
    class_counts: Tensor,
    config: FitConfig,
    on_epoch: Callable[[int], None] | None = None,
) -> LinearFit:
    """Do the same from mini-batches, wherever they come from.

    Args:
        batches: those of one epoch after the other, ceil(N / batch_size) of them in each.
        like: (0, D), of the type and on the device that the head is to have.
        n_rows: N.
        class_counts: (C,) int64, rows of each class; all above 0.
        config: settings.
        on_epoch: called after each epoch with the number of epochs done.

    Raises:
        FitError: if the loss or the head stops being finite.
    """
    loss_function = _with_settings(LOSSES[config.loss], config)
    head = _initial_head(len(class_counts), like, _generator(config.seed, "initial head"))
    velocity = [torch.zeros_like(parameter) for parameter in head]
    losses: list[float] = []
    n_steps = -(-n_rows // config.batch_size)
    with _threads_for(config.batch_size * head[0].numel()):
        for epoch in range(config.epochs):
            total = like.new_zeros(())
            for step, (features, labels) in enumerate(islice(batches, n_steps)):
                loss, gradients = _loss_and_gradients(
                    head, features, labels, class_counts, loss_function
                )
                progress = (epoch + step / n_steps) / config.epochs
                lr = config.lr * (1 + math.cos(math.pi * progress)) / 2
                _step(head, velocity, gradients, lr, config)
                total += loss
            losses.append(total.item() / n_steps)
            _require_finite(losses, head, config)
            if on_epoch is not None:
                on_epoch(epoch + 1)
    weight, bias = head
    return LinearFit(weight.detach(), bias.detach(), tuple(losses))


def epoch_draw(
    labels: Tensor, n_versions: int, config: FitConfig
) -> Callable[[], Iterator[Tensor]]:
    """A function that draws the next epoch's batches: indices (B,) into the (1 + V) * N features.

    Row n of version v (0 is the clean one) has index v * N + n.

    Args:
        labels: (N,) int64 on the CPU.
        n_versions: 1 + V.
        config: settings; sampler, batch size and seed decide.
    """
    sampler = _with_settings(SAMPLERS[config.sampler], config)
    batch_draws = _generator(config.seed, "batches")
    version_draws = _generator(config.seed, "versions")

    def draw() -> Iterator[Tensor]:
        for batch in sampler(labels, config.batch_size, batch_draws):
            version = torch.randint(n_versions, batch.shape, generator=version_draws)
            yield version * len(labels) + batch

    return draw


def _loss_and_gradients(
    head: list[Tensor], features: Tensor, labels: Tensor, class_counts: Tensor, loss: Loss
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Loss of one batch, and its gradients with respect to weight and bias."""
    weight, bias = head
    with torch.enable_grad():  # the caller may have switched gradients off
        value = loss(torch.addmm(bias, features, weight.T), labels, class_counts)
        return value.detach(), torch.autograd.grad(value, head)


@torch.no_grad()
def _step(
    head: list[Tensor],
    velocity: list[Tensor],
    gradients: tuple[Tensor, ...],
    lr: float,
    config: FitConfig,
) -> None:
    """One step of SGD in place, by the rule of torch.optim.SGD.

    Written out because the optimiser's own bookkeeping takes longer than a small head's step, and
    its first use loads torch's compiler, which takes longer than the whole fit.
    """
    for parameter, speed, gradient in zip(head, velocity, gradients, strict=True):
        speed.mul_(config.momentum).add_(gradient).add_(parameter, alpha=config.weight_decay)
        parameter.sub_(speed, alpha=lr)


def _initial_head(n_classes: int, like: Tensor, generator: Generator) -> list[Tensor]:
    """Weight (C, D) and bias (C,), uniform within +-1/sqrt(D): the initialisation of nn.Linear."""
    width = like.shape[1]
    bound = 1 / math.sqrt(width)
    head = [torch.empty(shape, dtype=torch.float32) for shape in ((n_classes, width), (n_classes,))]
    return [
        parameter.uniform_(-bound, bound, generator=generator).to(like).requires_grad_()
        for parameter in head
    ]


@contextmanager
def _threads_for(multiplications: int) -> Iterator[None]:
    """One thread for small steps, and the caller's number of threads again afterwards."""
    threads = torch.get_num_threads()
    if multiplications <= SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _require_finite(losses: list[float], head: list[Tensor], config: FitConfig) -> None:
    """Raise where the steps have run away."""
    if not (math.isfinite(losses[-1]) and all(bool(part.isfinite().all()) for part in head)):
        raise FitError(
            f"The fit diverged in epoch {len(losses)}: the steps are too large for these features. "
            f"Fit with an lr below {config.lr:g}."
        )


def _generator(seed: int, use: str) -> Generator:
    """A CPU generator for one use of a seed; those of different uses and seeds are unrelated."""
    digest = hashlib.blake2b(f"{use}: {seed}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest))


def _with_settings(function: Callable[..., Result], config: FitConfig) -> Callable[..., Result]:
    """A loss or sampler whose own settings, its keyword-only arguments, are the config's fields."""
    own = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return partial(function, **{name: getattr(config, name) for name in own})
