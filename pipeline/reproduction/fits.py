"""From a store to what every classifier of a table gets right on its test images.

Legend: N test images, K seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cache import Store
from pipeline.config import FitConfig, SweepConfig
from pipeline.errors import FitError
from pipeline.heads import Head
from pipeline.metrics import Bools
from pipeline.plane import collect_hits, plane_members
from pipeline.reproduction.paper import (
    PAIRS,
    label_at,
    label_ensemble,
    label_gml,
    label_old,
    label_on_val,
    label_plain,
    label_resampled,
)
from pipeline.reproduction.settings import (
    WITH_GML,
    Kind,
    gml_config,
    plain_config,
    resampled_config,
)
from pipeline.scored import ScoredSplit, is_scorable, scored_split
from pipeline.stages.fit_head import fit_heads
from pipeline.stages.sweep_temps import sweep_temps
from pipeline.studying import study_members

SPLIT = "test"

Temperatures = tuple[float, float]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Method:
    """A method of the paper, as a store."""

    name: str
    """CE, PaCo and so on."""

    store: Store
    """Open, with an old head."""

    @cached_property
    def test(self) -> ScoredSplit:
        """The images that its numbers are of, with test views where the store has them."""
        return scored_split(self.store, SPLIT)

    @property
    def has_val(self) -> bool:
        """Whether temperatures can be chosen on validation images."""
        return is_scorable(self.store, "val")


def hits_of(
    method: Method,
    kinds: Sequence[Kind],
    config: FitConfig,
    n_seeds: int,
    say: Say = lambda _: None,
    warn: Say = lambda _: None,
) -> dict[str, Bools]:
    """Which test images (K, N) each classifier of one method gets right, by its label.

    Args:
        method: the method.
        kinds: what is wanted of it; `on-val` is left out where there is no such split.
        config: settings of the fits; the seeds begin at its own.
        n_seeds: K, heads of each kind; of those that no seed decides there is one.
        say: called with a line before each piece of work.
        warn: called with a sentence on what a reader of the numbers has to know.

    Raises:
        ConfigError: for a number of seeds that nobody means.
        FitError: if a fit diverges or cannot be begun.
    """
    name = method.name
    hits: dict[str, Bools] = {}
    if "old" in kinds:
        hits[label_old(name)] = _right(method.test)[None]
    wanted: dict[str, FitConfig] = {}
    if set(kinds) & set(WITH_GML):
        wanted[label_gml(name)] = gml_config(config, name)
    if "plain" in kinds:
        wanted[label_plain(name)] = plain_config(config, name)
    if "resampled" in kinds:
        wanted[label_resampled(name)] = resampled_config(config, name)
    for label, settings in wanted.items():
        say(f"fitting   {n_seeds} {'head' if n_seeds == 1 else 'heads'}: {label}")
        heads = fit_seeds(method.store, settings, n_seeds, label, warn)
        hits[label] = np.stack([_right(method.test, head) for head in heads])
        if label == label_gml(name):
            hits |= _ensembles(method, heads, kinds, say)
    return hits


def fit_seeds(
    store: Store, config: FitConfig, n_seeds: int, label: str, warn: Say = lambda _: None
) -> list[Head]:
    """Heads of K seeds, fitted together; where each averages several seeds, no two share one.

    Of heads that no seed decides there is one.

    Raises:
        ConfigError: for a number of seeds that nobody means.
        FitError: if one diverges.
    """
    (configs,) = study_members([config], n_seeds)
    heads, n_unfinished = [], 0
    for one, result in zip(configs, fit_heads(store, configs), strict=True):
        if result is None:
            raise FitError(
                f"{label}: the fit of seed {one.seed} diverged on {store.path}. Give a recipe with "
                f"an lr below {one.first_lr:g}: --config FILE."
            )
        heads.append(result.head)
        n_unfinished += result.convergence is not None and not result.convergence.converged
    if n_unfinished:
        warn(
            f"{label}: {n_unfinished} of {len(configs)} fits stopped before they converged; a "
            f"recipe with more epochs than {config.n_epochs} lets them go on."
        )
    return heads


def _ensembles(
    method: Method, heads: Sequence[Head], kinds: Sequence[Kind], say: Say
) -> dict[str, Bools]:
    """Hits (K, N) of old and new heads together."""
    name = method.name
    places: dict[str, list[Temperatures]] = {}
    if "ensemble" in kinds:
        places[label_ensemble(name)] = [(1.0, 1.0)] * len(heads)
    if "on-val" in kinds and method.has_val:
        say(f"choosing  temperatures of {name} on val")
        sweep = SweepConfig(split="val", replicates=0)
        places[label_on_val(name)] = [
            sweep_temps(method.store, head, sweep).chosen for head in heads
        ]
    if "pairs" in kinds:
        say(f"combining {name} and {label_gml(name)} at {len(PAIRS)} pairs of temperatures")
        places |= {label_at(name, *pair): [pair] * len(heads) for pair in PAIRS}
    if not places:
        return {}
    by_seed = [
        _right_together(method.test, head, {chosen[k] for chosen in places.values()})
        for k, head in enumerate(heads)
    ]
    return {
        label: np.stack([of[pair] for of, pair in zip(by_seed, chosen, strict=True)])
        for label, chosen in places.items()
    }


def _right(test: ScoredSplit, *head: Head) -> Bools:
    """(N,) which test images the old head, or a new one, gets right."""
    return np.asarray(test.predictions(head) == test.labels)


def _right_together(
    test: ScoredSplit, head: Head, pairs: set[Temperatures]
) -> Mapping[Temperatures, Bools]:
    """(N,) which test images old and new head get right together, for each (t_old, t_new)."""
    t_old, t_new = (np.unique([pair[axis] for pair in pairs]) for axis in (0, 1))
    plane = collect_hits(
        test.blocks([None, head]), plane_members(t_old, t_new), len(test.store.class_names)
    )
    return {
        pair: plane.rows(int(np.searchsorted(t_old, pair[0])), int(np.searchsorted(t_new, pair[1])))
        for pair in pairs
    }
