"""Recipes: settings that were found to suit a data set, by name or from a YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import (
    BalanceConfig,
    ExtractConfig,
    FitConfig,
    PretrainConfig,
    SweepConfig,
    build_config,
    refuse_unknown,
)
from pipeline.errors import ConfigError, first_line


@dataclass(frozen=True)
class Recipe:
    """Settings that were found to suit a data set, by stage."""

    name: str
    """Name under which the recipe was asked for."""

    description: str = ""
    """What it is for and what it reached."""

    pretrain: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `PretrainConfig`."""

    extract: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ExtractConfig`."""

    fit_head: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `FitConfig`."""

    balance_head: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `BalanceConfig`."""

    sweep_temps: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `SweepConfig`."""


SECTIONS: Mapping[str, type[Any]] = {
    "pretrain": PretrainConfig,
    "extract": ExtractConfig,
    "fit_head": FitConfig,
    "balance_head": BalanceConfig,
    "sweep_temps": SweepConfig,
}
"""A recipe's sections and the settings that they fill."""


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("pipeline.configs")
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by name (of those in the package) or from a YAML file.

    Raises:
        ConfigError: if there is none, it is no YAML mapping, or it has an unknown section or key.
    """
    text = _recipe_text(str(name))
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{name} is no valid YAML: {first_line(error)}.") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{name} holds no settings: a recipe has the sections {', '.join(SECTIONS)}."
        )
    refuse_unknown(content, ["description", *SECTIONS], f"{name}")
    for section, settings in SECTIONS.items():
        values = content.get(section) or {}
        if not isinstance(values, dict):
            raise ConfigError(f"{name}: section {section!r} must hold `key: value` lines.")
        refuse_unknown(values, [f.name for f in dataclasses.fields(settings)], f"{name}, {section}")
        content[section] = values
    recipe = Recipe(name=str(name), **content)
    for section in SECTIONS:  # wrong values show when the recipe is read, not a stage later
        build_config(SECTIONS[section], getattr(recipe, section))
    return recipe


def _recipe_text(name: str) -> str:
    """The YAML text behind a recipe's name or path."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(f"The recipe {name} cannot be read: {reason}.") from None
    if name not in recipe_names():
        raise ConfigError(
            f"No recipe is called {name!r}: give a YAML file or one of {', '.join(recipe_names())}."
        )
    return resources.files("pipeline.configs").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
