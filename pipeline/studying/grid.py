"""From what a user wants to vary to the settings of every fit.

H configurations, S seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import yaml

from pipeline.config import FitConfig, build_config
from pipeline.config.fit import depends_on_seed, without_unused
from pipeline.config.unused import unused_settings
from pipeline.errors import ConfigError

MOST_HEADS = 2000
"""Heads of one study: more is a slip of the keyboard rather than a plan."""

ELSEWHERE = {
    "seed": "seeds are varied with --seeds, from --seed on",
    "device": "all fits of a study share one device, --device",
    "memory": "all fits of a study share one memory, --memory",
}
"""Fields that no sweep varies, and why."""

Choices = Mapping[str, Sequence[Any]]
"""Values to try, by field of `FitConfig`."""


def parse_sweeps(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Values by field from texts such as `lr=0.05,0.1` or `lr=0.05,0.1,weight_decay=1e-4,5e-4`.

    A value is read as in a recipe's YAML; a dash in a field's name is an underscore.

    Raises:
        ConfigError: if a text is no list of values, or a field comes twice.
    """
    choices: dict[str, list[Any]] = {}
    for text in texts:
        values: list[Any] | None = None
        for piece in text.split(","):
            name, equals, value = piece.rpartition("=")
            if equals:
                field = name.strip().replace("-", "_")
                if field in choices:
                    raise ConfigError(f"--sweep {field} is given twice: list all values at once.")
                values = choices[field] = []
            if values is None or not value.strip():
                raise ConfigError(
                    f"--sweep {text!r} is no list of values: give FIELD=VALUE,VALUE, as "
                    "lr=0.05,0.1,0.2."
                )
            values.append(_value(value.strip()))
    return choices


def grid_configs(config: FitConfig, choices: Choices) -> list[FitConfig]:
    """Every combination of the values to try, the last field fastest.

    Of combinations that differ only in settings which decide nothing about their heads, as momentum
    with adamw, there is the first.

    Args:
        config: settings of all other fields.
        choices: values by field; may be empty, which leaves one combination.

    Raises:
        ConfigError: if a field is unknown or not to be varied, or a value cannot be used or comes
            twice.
    """
    known = [field.name for field in dataclasses.fields(FitConfig) if field.name not in ELSEWHERE]
    for name, values in choices.items():
        if name in ELSEWHERE:
            raise ConfigError(f"A study does not sweep {name}: {ELSEWHERE[name]}.")
        if name not in known:
            raise ConfigError(f"There is no setting {name!r} to sweep; those are: {_list(known)}.")
        if not values:
            raise ConfigError(f"The sweep of {name} has no values.")
    _require_few(math.prod(len(values) for values in choices.values()))
    base = {k: v for k, v in dataclasses.asdict(config).items() if v is not None}
    configs = [
        build_config(FitConfig, base, **dict(zip(choices, values, strict=True)))
        for values in product(*choices.values())
    ]
    for name in choices:
        _require_distinct(name, [getattr(one, name) for one in configs], len(choices[name]))
    first: dict[FitConfig, FitConfig] = {}
    for one in configs:
        first.setdefault(without_unused(one), one)
    return list(first.values())


def study_members(configs: Sequence[FitConfig], n_seeds: int) -> list[list[FitConfig]]:
    """The settings of every fit: for each configuration (H), one for each seed (S).

    Seeds count up from the configuration's own; where a head is the average of several seeds, by as
    many, so that no two heads share one. A head that no seed decides is fitted once.

    Raises:
        ConfigError: if two configurations are of the same head, or they do not begin at one seed,
            or the number of seeds or of fits is no number for a study.
    """
    if n_seeds < 1:
        raise ConfigError(f"seeds must be 1 or more, not {n_seeds}.")
    if not configs:
        raise ConfigError("A study needs one configuration or more.")
    if len({config.seed for config in configs}) > 1:
        raise ConfigError(f"A study does not vary seed by itself: {ELSEWHERE['seed']}.")
    if len(set(map(without_unused, configs))) < len(configs):
        raise ConfigError(
            "A study needs configurations that differ; two are the same, but for settings that "
            "decide nothing about their heads."
        )
    of_each = [n_seeds if depends_on_seed(config) else 1 for config in configs]
    _require_few(sum(of_each))
    return [
        [dataclasses.replace(config, seed=config.seed + k * config.average_seeds) for k in range(n)]
        for config, n in zip(configs, of_each, strict=True)
    ]


def varied_fields(configs: Sequence[FitConfig]) -> tuple[str, ...]:
    """The fields in which configurations differ, in the order of `FitConfig`.

    A field has no part in a configuration whose head it does not decide. Distinct heads still
    differ in one of these: what makes a field idle in one of them is itself such a field.
    """
    values: dict[str, set[Any]] = {field.name: set() for field in dataclasses.fields(FitConfig)}
    for config in configs:
        for name in values.keys() - unused_settings(config):
            values[name].add(getattr(config, name))
    return tuple(name for name, of in values.items() if len(of) > 1)


def varied_settings(config: FitConfig, fields: Sequence[str]) -> dict[str, Any]:
    """A configuration's values of some fields, without those that decide nothing about its head."""
    unused, resolved = unused_settings(config), config.resolved()
    return {name: getattr(resolved, name) for name in fields if name not in unused}


def _value(text: str) -> Any:
    """A number, a truth value or text, as in a recipe."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _require_distinct(name: str, values: Sequence[Any], n_given: int) -> None:
    """Raise where a field is given one value twice, as 0.1 and 1e-1."""
    if len(set(values)) < n_given:
        raise ConfigError(f"The sweep of {name} holds a value twice: give each once.")


def _require_few(n_fits: int) -> None:
    """Raise where a study grows beyond what anybody means."""
    if n_fits > MOST_HEADS:
        raise ConfigError(
            f"A study fits up to {MOST_HEADS:,} heads, not {n_fits:,}: give fewer values or seeds."
        )


def _list(names: Sequence[str]) -> str:
    """Names in one line."""
    return ", ".join(names)
