"""The settings of every head that a comparison fits, and which of them can matter under a recipe.

A comparison changes a setting and asks what that does. Under some recipes the answer is nothing, to
the bit: l-bfgs draws no mini-batches, and a head of class means has no loss. No claim is judged on
such heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pipeline.config import FitConfig
from pipeline.config.unused import unused_settings
from pipeline.errors import ConfigError
from pipeline.studying import study_members

Kind = Literal["old", "gml", "ensemble", "on-val", "pairs", "plain", "resampled"]
"""The old head, with GML, both heads at (1, 1), at temperatures of val, at Table 7's pairs, and
Table 8's two heads."""

WITH_GML: tuple[Kind, ...] = ("gml", "ensemble", "on-val", "pairs")
"""What needs a head with GML."""

WITH_SMOOTHING = "MiSLAS"
"""The method that gets its own loss beside GML (note of Table 5)."""

AS_THEY_COME = "instance"
"""The sampler that re-samples nothing."""


def gml_config(config: FitConfig, method: str = "") -> FitConfig:
    """Settings with the loss that the paper plugs into a method."""
    if method == WITH_SMOOTHING:
        return replace(config, loss="gml+label-aware-smoothing", reweight=True)
    return replace(config, loss="gml", reweight=True)


def plain_config(config: FitConfig, method: str = "") -> FitConfig:
    """The same without the factor N of eq. (3), Table 8 row 2."""
    return replace(gml_config(config, method), reweight=False)


def resampled_config(config: FitConfig, method: str = "") -> FitConfig:
    """The same with classes drawn equally often instead, Table 8 row 3."""
    return replace(plain_config(config, method), sampler="class-balanced")


def fits_heads(kinds: Sequence[Kind]) -> bool:
    """Whether any of the classifiers has a head that is fitted."""
    return any(kind != "old" for kind in kinds)


def seeds_of(config: FitConfig, n_seeds: int) -> tuple[int, ...]:
    """First seed (K,) of each head; those of averaged ones lie so far apart that none is shared.

    Of heads that no seed decides there is one.

    Raises:
        ConfigError: for a number of seeds that nobody means.
    """
    return tuple(one.seed for one in study_members([config], n_seeds)[0])


def require_learned(table: str, kinds: Sequence[Kind], config: FitConfig) -> None:
    """Refuse a recipe under which a comparison would compare a head with itself.

    Args:
        table: as "Table 8".
        kinds: the classifiers that it compares.
        config: settings of the recipe.

    Raises:
        ConfigError: if the loss decides nothing about the heads, or if those without re-sampling
            would be re-sampled.
    """
    if not fits_heads(kinds):
        return
    unused = unused_settings(gml_config(config))
    if unused & {"loss", "reweight"}:
        raise ConfigError(
            f"{table} fits heads with GML, and {config.head} heads, which the recipe asks for, are "
            "not learned: no loss changes them. Give a recipe with another head, as head: linear."
        )
    if "resampled" in kinds and _resamples(config):
        raise ConfigError(
            f"{table} compares re-weighting with re-sampling, and the recipe re-samples for every "
            f"head already (sampler: {config.sampler}). Give one with sampler: {AS_THEY_COME}."
        )


def no_resampling(config: FitConfig) -> str:
    """Why re-sampling cannot be tried, with what would let it; empty where it can."""
    if "sampler" not in unused_settings(resampled_config(config)):
        return ""
    return (
        f"Give a recipe with solver: sgd. This one has {config.solver}, which takes all rows at "
        "once, so that no sampler changes its heads."
    )


def distinct_kinds(kinds: Sequence[Kind], config: FitConfig) -> tuple[Kind, ...]:
    """The classifiers that differ under a recipe: re-sampled ones only where it can be tried."""
    return tuple(kind for kind in kinds if kind != "resampled" or not no_resampling(config))


def departures(config: FitConfig) -> list[str]:
    """Settings of a recipe that are ignored or differ from the paper, a sentence each."""
    unused = [f"loss: {config.loss}"] * (config.loss != "gml")
    unused += ["reweight: false"] * (not config.reweight)
    other = [f"head: {config.head}"] * (config.head != "linear")
    other += [f"power: {config.power:g}"] * (config.power != 1)
    other += [f"sampler: {config.sampler}"] * _resamples(config)
    notes = []
    if unused:
        notes.append(
            f"Ignored from the recipe: {', '.join(unused)}; the comparison is about + GML."
        )
    if other:
        notes.append(
            "The paper's heads are linear, with GML's power 1 and no re-sampling; the recipe has "
            f"{', '.join(other)}."
        )
    return notes


def _resamples(config: FitConfig) -> bool:
    """Whether a recipe re-samples by itself."""
    return config.sampler != AS_THEY_COME and "sampler" not in unused_settings(gml_config(config))
