"""The mini-batch trainer: many heads in one pass over the features.

Heads of one seed share their mini-batches, so a step's features are read once and multiply all
their weights in one product; heads of several seeds go through one batched product. The losses'
gradients are closed forms (`pipeline.losses.GRADIENTS`): no graph is built.
N training rows, C classes, D feature width, B batch rows, b of them in this process, G seeds,
H variants of the settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby, islice

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config import FitConfig
from pipeline.fitting.draws import (
    dropout_masks,
    index_batches,
    own_settings,
    standard_noise,
    with_settings,
)
from pipeline.fitting.noise import within_class_root
from pipeline.fitting.optimizers import optimizer_for
from pipeline.fitting.parametrisations import FORMS, require_teacher
from pipeline.fitting.products import Memory, Products, onednn_products
from pipeline.fitting.rows import LinearFit, Rows
from pipeline.fitting.shares import Batch, Share
from pipeline.fitting.standardisation import Standardisation, standardisation_for
from pipeline.losses import GRADIENTS, SHIFTED

SMALL_STEP = 2**22
"""Multiplications B * C * D up to which a step runs on one thread, its products by the library that
torch takes: sharing out less than about a millisecond of work gains nothing, and its last bits
would depend on the number of threads; oneDNN takes longer than MKL to begin."""

VARYING = (
    "seed", "lr", "weight_decay", "loss", "reweight", "power", "tau", "smooth_head", "smooth_tail",
    "max_margin", "margin_scale", "focal_gamma", "beta", "vs_gamma", "lade_weight",
    "lade_square", "distill_weight", "distill_temperature",
)  # fmt: skip
"""Settings in which heads of one pass may differ."""


@torch.no_grad()
def fit_mini_batches(
    rows: Rows,
    variants: Sequence[FitConfig],
    seeds: Sequence[int],
    on_epoch: Callable[[], None] | None = None,
) -> list[list[LinearFit]]:
    """Fit fresh heads by mini-batches, for every seed and every variant of the settings.

    Each head is the one that a fit of its own gives, up to the rounding of float32. On a CPU the
    same rows and settings give the same heads to the bit; where a step takes more than
    `SMALL_STEP` multiplications, for the same number of threads.

    Args:
        rows: features and labels; their views take part where the settings say so.
        variants: H settings that differ in nothing but `VARYING`; their own seeds do not matter.
        seeds: G seeds.
        on_epoch: called after each epoch.

    Returns:
        The heads, by seed and variant. Where steps ran away, a head is not finite; the others do
        not notice.

    Raises:
        FitError: if a head or a loss needs an old head and there is none.
    """
    shared = variants[0]
    order = sorted(range(len(variants)), key=lambda h: _loss_key(variants[h]))
    trainer = _Trainer(rows, [variants[h] for h in order], seeds)
    small = shared.batch_size * trainer.multiplications <= SMALL_STEP
    trainer.run(_one_thread if small else onednn_products, on_epoch)
    fits = trainer.fits()
    place = {variant: i for i, variant in enumerate(order)}
    return [[of_seed[place[h]] for h in range(len(variants))] for of_seed in fits]


class _Trainer:
    """The state of one pass."""

    def __init__(self, rows: Rows, variants: Sequence[FitConfig], seeds: Sequence[int]) -> None:
        config = variants[0]
        self._rows, self._config, self._variants, self._seeds = rows, config, variants, seeds
        self._form = FORMS[config.head](rows, config, seeds, len(variants))
        self._optimizer = optimizer_for(self._form.parameters, variants)
        self._standardised = standardisation_for(rows, config)
        self._inputs = _Inputs(rows, config, seeds, self._form.length, self._standardised)
        self._losses = _loss_groups(rows, variants)
        self._offsets = torch.cat([loss.offsets for loss in self._losses])
        self._history: list[Tensor] = []
        self._mean = _Averages(self._form.parameters, config.average_last)
        self._memory = Memory(rows.like)
        dtype = torch.bfloat16 if config.precision == "bfloat16" else rows.like.dtype
        self._products = Products(dtype, self._memory)

    @property
    def multiplications(self) -> int:
        """Of one row's logits, for all heads."""
        weight, _ = self._form.head()
        return weight.numel()

    def run(
        self,
        computing: Callable[[], AbstractContextManager[None]],
        on_epoch: Callable[[], None] | None,
    ) -> None:
        """All epochs; ends early where no head is finite any more.

        Args:
            computing: makes a context for the steps of an epoch. What it sets is set in the whole
                process, so that it ends before the caller hears of the epoch.
            on_epoch: called after each epoch.
        """
        config, rows = self._config, self._rows
        n_versions = rows.n_versions if config.views else 1
        drawn = index_batches(rows.labels.cpu(), n_versions, config, self._seeds)
        batches = rows.stream(drawn)
        n_steps = -(-len(rows.labels) // config.batch_size)
        for epoch in range(config.n_epochs):
            total = rows.like.new_zeros(len(self._seeds), len(self._variants))
            with computing():
                for step, batch in enumerate(islice(batches, n_steps)):
                    progress = (epoch + step / n_steps) / config.n_epochs
                    total += self._step(batch)
                    self._optimizer.step(_lr_factor(config.schedule, progress))
                    self._mean.add(progress)
            self._history.append(total / n_steps)
            if on_epoch is not None:
                on_epoch()
            if not self._history[-1].isfinite().any():
                return

    def _step(self, batch: Batch) -> Tensor:
        """Losses (G, H) of one batch; leaves the gradients with the optimiser."""
        features = self._products.factor("features", self._inputs(batch))
        weight, bias = self._form.head()
        n_seeds, n_heads, n_classes, width = weight.shape
        flat = weight.view(n_seeds, n_heads * n_classes, width)
        offset = (bias + self._offsets).view(n_seeds, 1, -1)
        own = self._products.logits(features, flat, offset)
        logits = self._rows.share.gathered(own, batch)
        losses, gradient = self._loss(logits.view(n_seeds, -1, n_heads, n_classes), batch)
        gradient = gradient.reshape(n_seeds, -1, n_heads * n_classes)
        self._accumulate(gradient, features, batch, weight.shape)
        return losses

    def _loss(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses (G, H) and their gradients (G, B, H, C), loss by loss."""
        if len(self._losses) == 1:
            return self._losses[0](logits, batch)
        losses = logits.new_empty(logits.shape[0], logits.shape[2])
        for loss in self._losses:
            of = logits[:, :, loss.heads]
            own = self._memory("one loss", of.shape, of.dtype).copy_(of)
            losses[:, loss.heads], of[:] = loss(own, batch)
        return losses, logits

    def _accumulate(
        self, gradient: Tensor, features: Tensor, batch: Batch, shape: torch.Size
    ) -> None:
        """Add the gradient to the optimiser's buffers.

        Args:
            gradient: (G, B, H * C) with respect to the logits.
            features: (G, b, D).
            batch: whose rows they are.
            shape: (G, H, C, D).
        """
        share, keep, buffers = self._rows.share, self._optimizer.keep, self._optimizer.gradients
        by_bias, own = gradient.sum(dim=1), share.own(gradient, batch)
        flat = (len(own), own.shape[2], shape[-1])
        if self._form.direct:
            into = buffers[0].view(flat)
            share.add_up_(self._products.by_weight_(into, share.once(keep), own, features))
            torch.add(by_bias.view(shape[:-1]), buffers[1], alpha=keep, out=buffers[1])
            return
        into = self._memory("by weight", flat, gradient.dtype)
        by_weight = share.add_up_(self._products.by_weight_(into, 0.0, own, features))
        pulled = self._form.pull_back(by_weight.view(shape), by_bias.view(shape[:-1]))
        for buffer, each in zip(buffers, pulled, strict=True):
            torch.add(each, buffer, alpha=keep, out=buffer)

    def fits(self) -> list[list[LinearFit]]:
        """The heads that the parameters, or their means, stand for."""
        self._mean.settle()
        history = torch.stack(self._history, dim=-1).tolist()
        return [
            [self._fit(g, h, tuple(history[g][h])) for h in range(len(self._variants))]
            for g in range(len(self._seeds))
        ]

    def _fit(self, g: int, h: int, losses: tuple[float, ...]) -> LinearFit:
        """One head, for features as they are."""
        weight, bias = (part[g, h].clone() for part in self._form.head())
        length = self._form.length
        if length is not None:
            return LinearFit(weight * length, bias, losses, normalized=True)
        if self._standardised is not None:
            weight, bias = self._standardised.fold(weight, bias)
        return LinearFit(weight, bias, losses)


class _Inputs:
    """What becomes of features before a head sees them: noise, scale and dropout."""

    def __init__(
        self,
        rows: Rows,
        config: FitConfig,
        seeds: Sequence[int],
        length: float | None,
        standardised: Standardisation | None,
    ) -> None:
        width = rows.like.shape[1]
        self._length, self._standardised = length, standardised
        self._share: Share = rows.share
        self._masks = dropout_masks(width, config, seeds)
        self._noise = standard_noise(width, config, seeds)
        self._root = (
            config.feature_noise * within_class_root(rows) if config.feature_noise else None
        )

    def __call__(self, batch: Batch) -> Tensor:
        """Features (G, b, D) as the head takes them; draws are for all B rows."""
        features, n_rows = batch.features, batch.labels.shape[1]
        noise = self._noise(n_rows)
        if noise is not None and self._root is not None:
            own = self._share.own(noise.to(features), batch)
            features = features + own @ self._root.T
        if self._standardised is not None:
            features = self._standardised(features)
        if self._length is not None:
            features = functional.normalize(features, dim=-1) * self._length
        mask = self._masks(n_rows)
        if mask is not None:
            features = features * self._share.own(mask.to(features), batch)
        return features


class _GroupLoss:
    """A loss with its settings, for consecutive variants that share them."""

    def __init__(self, rows: Rows, config: FitConfig, heads: slice) -> None:
        offset, gradient = SHIFTED[config.loss]
        asks = "teacher_logits" in own_settings(gradient)
        self.heads = heads
        own = with_settings(offset, config)(rows.class_counts, rows.like)
        self.offsets = own.expand(heads.stop - heads.start, -1)
        self._gradient = with_settings(gradient, config)
        self._class_counts = rows.class_counts
        self._share = rows.share
        self._teacher = require_teacher(rows) if asks else None

    def __call__(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses (G, H) and gradients (G, B, H, C) of logits that have their offsets.

        The teacher sees the features as they were.
        """
        more = {}
        if self._teacher is not None:
            own = self._teacher.logits(batch.features)
            more["teacher_logits"] = self._share.gathered(own, batch)
        return self._gradient(logits, batch.labels, self._class_counts, **more)


class _Averages:
    """The mean of the parameters over the last steps, where it is asked for."""

    def __init__(self, parameters: Sequence[Tensor], share: float) -> None:
        self._parameters = parameters
        self._begins = 1 - share if share else math.inf
        self._means = [torch.zeros_like(parameter) for parameter in parameters] if share else []
        self._n = 0

    def add(self, progress: float) -> None:
        """Take the parameters after a step that began at `progress`, from 0 to 1, of the fit."""
        if progress >= self._begins:
            self._n += 1
            for mean, parameter in zip(self._means, self._parameters, strict=True):
                mean.lerp_(parameter, 1 / self._n)

    def settle(self) -> None:
        """Put the mean in the place of the parameters, where there were such steps."""
        if self._n:
            for mean, parameter in zip(self._means, self._parameters, strict=True):
                parameter.copy_(mean)


def _loss_key(config: FitConfig) -> tuple[str, ...]:
    """What decides the loss: heads of equal keys are computed together."""
    names = [name for name in own_settings(GRADIENTS[config.loss]) if hasattr(config, name)]
    return (config.loss, *(f"{name}={getattr(config, name)}" for name in names))


def _loss_groups(rows: Rows, variants: Sequence[FitConfig]) -> list[_GroupLoss]:
    """One loss for each run of variants with equal keys."""
    groups, begun = [], 0
    for _, of_key in groupby(variants, key=_loss_key):
        members = list(of_key)
        groups.append(_GroupLoss(rows, members[0], slice(begun, begun + len(members))))
        begun += len(members)
    return groups


def _lr_factor(schedule: str, progress: float) -> float:
    """Share of the first learning rate, at `progress` from 0 to 1 of the fit."""
    if schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1 - progress


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, and the caller's number of threads again afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
