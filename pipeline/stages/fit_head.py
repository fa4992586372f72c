"""The stage `fit_head`: re-train the linear head on the cached features of a store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cache import Store
from pipeline.config import FitConfig
from pipeline.fitting import Convergence, LinearFit, fit_head_on_rows
from pipeline.fitting.store_heads import fit_linear_heads, head_of_fit
from pipeline.fitting.store_rows import training_rows
from pipeline.heads import Head
from pipeline.progress import OnProgress
from pipeline.team import Team


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
    """Seconds of the fit, the reading of the features included; shared by heads of one pass."""

    convergence: Convergence | None = None
    """Of a solver that runs until it converges."""


def fit_head(
    store: Store,
    config: FitConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
    team: Team | None = None,
) -> FitResult:
    """Re-initialise the linear head and re-train it on the split `train`, Algorithm 1 steps 3-4.

    The features of all usable rows, with their views where `config.views` asks for them, are read
    once and kept in memory as float32: 4 * (1 + V) * N * D bytes. Where that is more than
    `config.memory` allows the process, they are read from a scratch file as they are drawn
    (`pipeline.fitting.scratch`), with the same head as the result.

    On a CPU, the same store, settings and version of torch give the same head to the bit, whatever
    the state of torch's global random generator. The draws do not depend on the number of threads
    either; the matrix products of wide heads may, in their last bits, as torch shares them out.

    Processes of a team each read a part of the rows, and all get the head of a single process, up
    to the rounding of float32.

    Args:
        store: features (N, D), and views (V, N, D) where it has them.
        config: settings; the defaults where not given.
        on_progress: called after each epoch.
        team: processes that fit together; this one alone where not given.

    Raises:
        ConfigError: if the device is not there.
        FitError: if a class has no usable training row, features are not finite, the fit diverges,
            it needs an old head or memory that is not there, or another process stopped.
    """
    config = config or FitConfig()
    begun = time.perf_counter()
    with training_rows(store, [config], team) as rows:
        fit = fit_head_on_rows(rows, config, on_progress)
    return _result(store, config, fit, begun)


def fit_heads(
    store: Store, configs: Sequence[FitConfig], *, on_progress: OnProgress | None = None
) -> list[FitResult | None]:
    """Fit many heads at once, in as few passes over the features as their settings allow.

    Each is the head that `fit_head` gives, up to the rounding of float32; where a fit diverged
    there is none.

    Args:
        store: features (N, D), and views (V, N, D) where it has them.
        configs: K settings of one device and memory budget.
        on_progress: called after each epoch of each pass.

    Raises:
        ConfigError: if the settings name several devices or budgets, or the device is not there.
        FitError: if a class has no usable training row, features are not finite, or a fit needs an
            old head or memory that is not there.
    """
    begun = time.perf_counter()
    if not configs:
        return []
    fits = fit_linear_heads(store, configs, on_progress)
    return [
        _result(store, config, fit, begun) if fit.finite else None
        for config, fit in zip(configs, fits, strict=True)
    ]


def _result(store: Store, config: FitConfig, fit: LinearFit, begun: float) -> FitResult:
    """What is told of a fit."""
    head = head_of_fit(store, config, fit)
    return FitResult(
        head, fit.losses, int(store.class_counts.sum()),
        store["train"].n_views if config.views else 0, time.perf_counter() - begun, fit.convergence,
    )  # fmt: skip
