"""Settings that decide nothing for some heads: refused where a user gave them by hand.

A recipe may hold them, for other heads than the one that is fitted with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from pipeline.config.fit import FitConfig
from pipeline.errors import ConfigError

NOT_LEARNED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "tau-normalised": ("norm_power",),
        "logit-adjusted": ("tau",),
        "nearest-mean": ("normalize", "views"),
    }
)
"""Heads that follow from the old head or from the features, and the settings that they have."""

OF_THE_RUN = ("head", "seed", "memory", "device")
"""Settings that any fit takes: scripts give each head of several the same seed or device."""

MINI_BATCHES = (
    "sampler", "samples_per_class", "batch_size", "lr", "schedule", "momentum", "precision",
)  # fmt: skip
"""Settings of solvers that take some rows at a time, which l-bfgs has no use for."""


def idle_settings(config: FitConfig) -> frozenset[str]:
    """The settings that decide nothing about the head which these settings ask for."""
    if config.head in NOT_LEARNED:
        names = {field.name for field in dataclasses.fields(FitConfig)}
        return frozenset(names - {*NOT_LEARNED[config.head], *OF_THE_RUN})
    return frozenset(MINI_BATCHES if config.solver == "l-bfgs" else ())


def refuse_idle(configs: Sequence[FitConfig], given: Iterable[str]) -> None:
    """Refuse settings, given by hand, that decide nothing about any of the heads.

    Args:
        configs: settings of one head or more.
        given: fields that the user named.

    Raises:
        ConfigError: if there are such, with what to leave out.
    """
    idle = frozenset.intersection(*map(idle_settings, configs))
    options = [f"--{name.replace('_', '-')}" for name in given if name in idle]
    if not options:
        return
    config = configs[0]
    why = "the solver l-bfgs, which takes all rows at once"
    if config.head in NOT_LEARNED:
        own = " and ".join(f"--{name.replace('_', '-')}" for name in NOT_LEARNED[config.head])
        why = f"a {config.head} head, which is not learned and has no settings but {own}"
    decide = "decides" if len(options) == 1 else "decide"
    it = "it" if len(options) == 1 else "them"
    raise ConfigError(f"{', '.join(options)} {decide} nothing for {why}: leave {it} out.")
