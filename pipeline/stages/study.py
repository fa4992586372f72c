"""The stage `study`: many configurations over many seeds, fitted together and compared honestly.

H configurations, S seeds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from cache import Store
from pipeline.config import FitConfig
from pipeline.config.fit import NOT_LEARNED, depends_on_seed
from pipeline.errors import FitError
from pipeline.fitting import LinearFit
from pipeline.fitting.store_heads import fit_linear_heads, head_of_fit
from pipeline.old_head import has_old_head
from pipeline.progress import OnProgress
from pipeline.scored import ScoredSplit, scored_split
from pipeline.studying import Measurement, Study, Variant, judged, study_members
from pipeline.studying.grid import varied_fields, varied_settings
from pipeline.studying.results import CHOOSES

SEEDS = 10
"""The 95 % interval of a mean over ten seeds reaches 0.7 standard deviations to either side."""


def study(
    store: Store,
    configs: FitConfig | Sequence[FitConfig] | None = None,
    seeds: int = SEEDS,
    *,
    test_views: bool | None = None,
    on_progress: OnProgress | None = None,
) -> Study:
    """Fit each configuration with several seeds, all in as few passes as can be, and compare them.

    All are measured on `val` where the store has it, else on `test`. Several configurations on
    `val`: the one of the highest mean harmonic mean is chosen, and its heads are scored on `test`.
    On `test` nothing is chosen. A configuration of which a fit diverged has no figures.

    `pipeline.grid_configs(config, {"lr": [0.05, 0.1]})` gives the configurations of a grid.

    Args:
        store: features (N, D), views (V, N, D) where it has them.
        configs: H settings of distinct heads with one first seed, device and memory; the defaults
            where not given.
        seeds: S, the number of seeds of each configuration, from its own on; one that no seed
            decides is fitted once.
        test_views: classify the mean feature of the clean image and its test views; None does
            where the store has them.
        on_progress: called after each epoch of each pass.

    Raises:
        ConfigError: if the configurations do not make a study, or the device is not there.
        EvaluationError: if the split has no usable row or holds NaN, or test views are asked for
            that are not there.
        FitError: if no head can be fitted, or every one diverged.
    """
    begun = time.perf_counter()
    given = [configs or FitConfig()] if not isinstance(configs, Sequence) else list(configs)
    members = study_members(given, seeds)
    split = CHOOSES if CHOOSES in store else "test"
    # What cannot be scored is told before the work.
    scored = {split: scored_split(store, split, test_views=test_views)}
    if split == CHOOSES and "test" in store:
        scored["test"] = scored_split(store, "test", test_views=test_views)
    variants = _fitted(store, members, varied_fields(given), on_progress)
    seconds = time.perf_counter() - begun
    measured = _measured(scored[split], variants)
    found = Study(
        split=split,
        config=given[0],
        variants=tuple(measured),
        n_samples=scored[split].n_samples,
        n_failed=scored[split].n_failed,
        n_rows=int(store.class_counts.sum()),
        seconds=seconds,
        old={name: each.scores() for name, each in scored.items() if has_old_head(store)},
    )
    return _tested(judged(found), scored.get("test"))


def _fitted(
    store: Store,
    members: Sequence[Sequence[FitConfig]],
    fields: Sequence[str],
    on_progress: OnProgress | None,
) -> list[Variant]:
    """Each configuration with its heads, which are not measured yet."""
    fits = fit_linear_heads(store, [config for of in members for config in of], on_progress)
    if not any(fit.finite for fit in fits):
        _raise_diverged(members)
    remaining = iter(fits)
    return [_variant(store, of, [next(remaining) for _ in of], fields) for of in members]


def _raise_diverged(members: Sequence[Sequence[FitConfig]]) -> NoReturn:
    """Say that no fit came to anything, and what to do."""
    if all(of[0].head in NOT_LEARNED for of in members):
        raise FitError(
            "Every head of the study is beyond float32: give a smaller tau or norm_power, or "
            "features of a smaller scale."
        )
    raise FitError(
        "Every fit of the study diverged: its steps are too large. Use smaller values of lr."
    )


def _variant(
    store: Store, configs: Sequence[FitConfig], fits: Sequence[LinearFit], fields: Sequence[str]
) -> Variant:
    """One configuration over its seeds, with the heads of the fits that did not diverge."""
    return Variant(
        settings=varied_settings(configs[0], fields),
        seeds=tuple(config.seed for config in configs),
        heads=tuple(
            head_of_fit(store, config, fit) if fit.finite else None
            for config, fit in zip(configs, fits, strict=True)
        ),
        measured=None,
        n_unfinished=sum(fit.unfinished for fit in fits),
        seeded=depends_on_seed(configs[0]),
    )


def _measured(scored: ScoredSplit, variants: Sequence[Variant]) -> list[Variant]:
    """The same with their scores, for all configurations without a diverged fit."""
    whole = [variant for variant in variants if not variant.n_diverged]
    heads = [h for v in whole for h in v.heads if h is not None]
    scores = iter(scored.scores_alone(heads))
    return [
        variant
        if variant.n_diverged
        else replace(variant, measured=Measurement(tuple(next(scores) for _ in variant.heads)))
        for variant in variants
    ]


def _tested(found: Study, test: ScoredSplit | None) -> Study:
    """The study with the chosen configuration's scores on `test`, where the store has it."""
    if found.kept is None or found.split != CHOOSES or test is None:
        return found
    (tested,) = _measured(test, [found.kept])
    return replace(found, test=tested.measured)
