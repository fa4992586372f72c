"""Any number of heads, each by the solver that its settings name, sharing what can be shared.

K heads, G seeds, H variants of the settings.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

import torch

from pipeline.config import FitConfig
from pipeline.errors import FitError
from pipeline.fitting.closed_form import logit_adjusted, nearest_mean, tau_normalised
from pipeline.fitting.full_batch import fit_full_batch
from pipeline.fitting.mini_batches import VARYING, fit_mini_batches
from pipeline.fitting.rows import LinearFit, Rows
from pipeline.progress import OnProgress, Steps

Item = TypeVar("Item")

MOST_HEADS = 64
"""Heads of one pass: more gain no speed, and take memory for each."""

DEFAULTS = FitConfig()

CLOSED_FORMS: Mapping[str, Callable[[Rows, FitConfig], LinearFit]] = MappingProxyType(
    {
        "tau-normalised": tau_normalised,
        "logit-adjusted": logit_adjusted,
        "nearest-mean": nearest_mean,
    }
)
"""Heads that nothing has to be learned for, by the names that `FitConfig.head` knows."""

BEYOND: Mapping[str, str] = MappingProxyType(
    {
        "tau-normalised": "give a smaller --norm-power",
        "logit-adjusted": "give a smaller --tau",
        "nearest-mean": "the features are too large, divide them by a power of ten, or fit a "
        "linear head with standardize",
    }
)
"""What helps where such a head has no finite numbers, by the same names."""


def fit_head_on_rows(
    rows: Rows, config: FitConfig, on_progress: OnProgress | None = None
) -> LinearFit:
    """Fit one head.

    Args:
        rows: features (1 + V, N, D) and labels (N,).
        config: settings.
        on_progress: called with a snapshot, in epochs, after each epoch.

    Raises:
        FitError: if the fit diverges, or needs an old head or memory that is not there.
    """
    (fit,) = fit_heads_on_rows(rows, [config], on_progress)
    if not fit.finite:
        raise FitError(_why_not_finite(fit, config))
    return fit


def _why_not_finite(fit: LinearFit, config: FitConfig) -> str:
    """What made a head infinite, and what helps."""
    if config.head in BEYOND:
        return f"The {config.head} head is beyond {_type_of(fit)}: {BEYOND[config.head]}."
    diverged = [epoch for epoch, loss in enumerate(fit.losses, 1) if not math.isfinite(loss)]
    scale = "bring them to a scale nearer to 1"
    if config.solver == "l-bfgs":
        can_standardise = config.head == "linear" and not config.normalize
        if can_standardise and not config.standardize:
            scale += ", or fit with standardize"
        return (
            f"The head that l-bfgs comes to is beyond {_type_of(fit)}: the features are too large "
            f"or too small, {scale}."
        )
    lower = f"Fit with an lr below {config.first_lr:g}."
    if config.standardize and not diverged:
        return (
            f"The head is beyond {_type_of(fit)}: the features are too small, {scale}; or the last "
            f"steps were too large. {lower}"
        )
    return (
        f"The fit diverged in epoch {diverged[0] if diverged else len(fit.losses)}: the steps are "
        f"too large for these features. {lower}"
    )


def _type_of(fit: LinearFit) -> str:
    """Name of the type that the head's numbers have."""
    return str(fit.weight.dtype).removeprefix("torch.")


def fit_heads_on_rows(
    rows: Rows, configs: Sequence[FitConfig], on_progress: OnProgress | None = None
) -> list[LinearFit]:
    """Fit many heads, in as few passes over the features as their settings allow.

    Each is the head that `fit_head_on_rows` gives, up to the rounding of float32. One that diverged
    is not finite, and does not disturb the others.

    Args:
        rows: features (1 + V, N, D) and labels (N,).
        configs: K settings.
        on_progress: called with a snapshot, in epochs of all passes, after each epoch, and after a
            pass that ends early.

    Raises:
        FitError: if a fit needs an old head or memory that is not there.
    """
    # Settled first: heads that differ only in whether a default was typed are one.
    members = {config: _members(config.resolved()) for config in configs}
    wanted = list(dict.fromkeys(member for of in members.values() for member in of))
    passes = _passes(wanted)
    steps, ends = Steps(sum(p.epochs for p in passes), on_progress), 0
    fits: dict[FitConfig, LinearFit] = {}
    for one in passes:
        fits |= one.run(rows, steps.advance)
        ends += one.epochs
        if steps.done < ends:  # it converged or diverged before its last epoch, or has none
            steps.reach(ends)
    return [_mean([fits[member] for member in members[config]]) for config in configs]


def is_full_batch(config: FitConfig) -> bool:
    """Whether the full-batch solver fits the head."""
    return config.solver == "l-bfgs" and config.head not in CLOSED_FORMS


@dataclass(frozen=True)
class _Pass:
    """Heads that one pass over the features fits: every variant for every seed."""

    variants: tuple[FitConfig, ...]
    """H settings with the seed 0."""

    seeds: tuple[int, ...]
    """G seeds."""

    @property
    def epochs(self) -> int:
        """Most epochs that the pass reports; 1 of a head that nothing is learned for."""
        return 1 if self.variants[0].head in CLOSED_FORMS else self.variants[0].n_epochs

    def run(self, rows: Rows, on_epoch: Callable[[], None]) -> dict[FitConfig, LinearFit]:
        """The heads by their settings."""
        config = replace(self.variants[0], seed=self.seeds[0])
        if config.head in CLOSED_FORMS:
            return {config: CLOSED_FORMS[config.head](rows, config)}
        if is_full_batch(config):
            return {config: fit_full_batch(rows, config, on_epoch)}
        fits = fit_mini_batches(rows, self.variants, self.seeds, on_epoch)
        return {
            replace(variant, seed=seed): fit
            for seed, of_seed in zip(self.seeds, fits, strict=True)
            for variant, fit in zip(self.variants, of_seed, strict=True)
        }


def _members(config: FitConfig) -> list[FitConfig]:
    """The single heads whose mean the settings ask for."""
    seeds = range(config.seed, config.seed + config.average_seeds)
    return [replace(config, seed=seed, average_seeds=1) for seed in seeds]


def _passes(configs: Sequence[FitConfig]) -> list[_Pass]:
    """Few passes that fit all of the settings, each once."""
    alone = [config for config in configs if _is_alone(config)]
    passes = [_Pass((replace(config, seed=0),), (config.seed,)) for config in alone]
    # Settings that share mini-batches, then by seed: seeds with the same variants go together.
    by_kind: dict[FitConfig, dict[int, list[FitConfig]]] = defaultdict(lambda: defaultdict(list))
    for config in configs:
        if not _is_alone(config):
            kind = replace(config, **{name: getattr(DEFAULTS, name) for name in VARYING})
            by_kind[kind][config.seed].append(replace(config, seed=0))
    for of_seed in by_kind.values():
        together: dict[tuple[FitConfig, ...], list[int]] = defaultdict(list)
        for seed, variants in of_seed.items():
            together[tuple(variants)].append(seed)
        for shared, seeds in together.items():
            for some in _parts(shared, MOST_HEADS):
                n_seeds = max(1, MOST_HEADS // len(some))
                passes += [_Pass(some, of) for of in _parts(seeds, n_seeds)]
    return passes


def _is_alone(config: FitConfig) -> bool:
    """Whether a head shares nothing with others."""
    return config.head in CLOSED_FORMS or is_full_batch(config)


def _mean(fits: Sequence[LinearFit]) -> LinearFit:
    """One head whose logits are the mean of the heads' logits."""
    if len(fits) == 1:
        return fits[0]
    curves = [fit.losses for fit in fits]
    return replace(
        fits[0],
        weight=torch.stack([fit.weight for fit in fits]).mean(dim=0),
        bias=torch.stack([fit.bias for fit in fits]).mean(dim=0),
        losses=tuple(sum(of) / len(fits) for of in zip(*curves, strict=False)),
        convergence=next((fit for fit in fits if fit.unfinished), fits[0]).convergence,
    )


def _parts(items: Sequence[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Consecutive parts of at most `size` items."""
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])
