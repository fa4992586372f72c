"""Many heads on one store: the fit that the stages share."""

from __future__ import annotations

from collections.abc import Sequence

from cache import Store
from pipeline.config import FitConfig
from pipeline.errors import ConfigError
from pipeline.fitting.many import fit_heads_on_rows
from pipeline.fitting.rows import LinearFit
from pipeline.fitting.store_rows import training_rows
from pipeline.heads import Head
from pipeline.progress import OnProgress
from pipeline.provenance import Fitted
from pipeline.versions import versions


def fit_linear_heads(
    store: Store,
    configs: Sequence[FitConfig],
    on_progress: OnProgress | None = None,
) -> list[LinearFit]:
    """Fit one or more heads, in as few passes over the features as their settings allow.

    One that diverged is not finite.

    Args:
        store: features (N, D), and views (V, N, D) where it has them.
        configs: K settings of one device and memory budget.
        on_progress: called with a snapshot, in epochs, after each epoch of each pass.

    Raises:
        ConfigError: if the settings name several devices or budgets, or the device is not there.
        FitError: if a class has no usable training row, features are not finite, or a fit needs an
            old head or memory that is not there.
    """
    if len({(config.device, config.memory) for config in configs}) > 1:
        raise ConfigError("Heads that are fitted together need one device and one memory.")
    with training_rows(store, configs) as rows:
        return fit_heads_on_rows(rows, configs, on_progress)


def head_of_fit(store: Store, config: FitConfig, fit: LinearFit) -> Head:
    """A fitted head with its provenance."""
    return Head(
        weight=fit.weight.cpu().numpy(),
        bias=fit.bias.cpu().numpy(),
        identity=store.identity,
        class_names=store.class_names,
        class_counts=tuple(store.class_counts.tolist()),
        provenance=Fitted(config.resolved()),
        versions=versions(),
        normalized=fit.normalized,
    )
