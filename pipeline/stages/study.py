"""The stage `study`: many configurations over many seeds, fitted together and compared honestly.

H configurations, S seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from cache import Store
from pipeline.config import FitConfig
from pipeline.ensemble import score_split, scored_split
from pipeline.errors import FitError
from pipeline.fitting import LinearFit
from pipeline.fitting.store_heads import fit_linear_heads, head_of_fit
from pipeline.old_head import has_old_head
from pipeline.progress import Snapshot
from pipeline.studying import Measurement, Study, Variant, judged, study_members
from pipeline.studying.grid import varied_fields
from pipeline.studying.measuring import score_heads
from pipeline.studying.results import CHOOSES

SEEDS = 10
"""The 95 % interval of a mean over ten seeds reaches 0.7 standard deviations to either side."""

Report = Callable[[Snapshot], None]


def study(
    store: Store,
    configs: FitConfig | Sequence[FitConfig] | None = None,
    seeds: int = SEEDS,
    *,
    on_progress: Report | None = None,
) -> Study:
    """Fit each configuration with several seeds, all in as few passes as can be, and compare them.

    All are measured on `val` where the store has it, else on `test`. Several configurations on
    `val`: the one of the highest mean harmonic mean is chosen, and its heads are scored on `test`.
    On `test` nothing is chosen. A configuration of which a fit diverged has no figures.

    `pipeline.grid_configs(config, {"lr": [0.05, 0.1]})` gives the configurations of a grid.

    Args:
        store: features (N, D), views (V, N, D) where it has them.
        configs: H distinct settings with one first seed, device and memory; the defaults where not
            given.
        seeds: S, the number of seeds of each configuration, from its own on.
        on_progress: called after each epoch of each pass.

    Raises:
        ConfigError: if the configurations do not make a study, or the device is not there.
        EvaluationError: if the split has no usable row or holds NaN.
        FitError: if no head can be fitted, or every one diverged.
    """
    begun = time.perf_counter()
    given = [configs or FitConfig()] if not isinstance(configs, Sequence) else list(configs)
    members = study_members(given, seeds)
    split = CHOOSES if CHOOSES in store else "test"
    rows = scored_split(store, split)  # told before the work
    configs_of_all = [config for of in members for config in of]
    fits = _fitted(store, configs_of_all, on_progress, begun)
    heads = [
        head_of_fit(store, config, fit) if fit.finite else None
        for config, fit in zip(configs_of_all, fits, strict=True)
    ]
    if not any(heads):
        raise FitError(
            "Every fit of the study diverged: its steps are too large. Use smaller values of lr."
        )
    seconds = time.perf_counter() - begun
    fields = varied_fields(given)
    variants = [
        Variant(
            settings={name: getattr(of[0], name) for name in fields},
            seeds=tuple(config.seed for config in of),
            heads=tuple(heads[h * seeds : (h + 1) * seeds]),
            measured=None,
            n_unfinished=sum(fit.unfinished for fit in fits[h * seeds : (h + 1) * seeds]),
        )
        for h, of in enumerate(members)
    ]
    measured = _measured(store, split, variants)
    splits = {split, "test"} if split == CHOOSES and "test" in store else {split}
    found = Study(
        split=split,
        config=given[0],
        variants=tuple(measured),
        n_samples=int(rows.usable.sum()),
        n_failed=rows.n_samples - int(rows.usable.sum()),
        n_rows=int(store.class_counts.sum()),
        seconds=seconds,
        old={name: score_split(store, name) for name in splits} if has_old_head(store) else {},
    )
    return _tested(store, judged(found))


def _fitted(
    store: Store, configs: Sequence[FitConfig], on_progress: Report | None, begun: float
) -> list[LinearFit]:
    """A fit for each of the settings, with its progress told."""

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(Snapshot(done, total, done, time.perf_counter() - begun))

    return fit_linear_heads(store, configs, report)


def _measured(store: Store, split: str, variants: Sequence[Variant]) -> list[Variant]:
    """The same with their scores, for all configurations without a diverged fit."""
    whole = [variant for variant in variants if not variant.n_diverged]
    scores = iter(score_heads(store, split, [h for v in whole for h in v.heads if h is not None]))
    return [
        variant
        if variant.n_diverged
        else replace(variant, measured=Measurement(tuple(next(scores) for _ in variant.heads)))
        for variant in variants
    ]


def _tested(store: Store, found: Study) -> Study:
    """The study with the chosen configuration's scores on `test`, where the store has it."""
    if found.kept is None or found.split != CHOOSES or "test" not in store:
        return found
    (tested,) = _measured(store, "test", [found.kept])
    return replace(found, test=tested.measured)
