"""Checks of single values, told in one sentence; and types in words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pipeline.config.parsing import Typed
from pipeline.errors import ConfigError


def value_type(hint: Any) -> Any:
    """Type of a field's value where one is given: `X` for the annotation `X | None`."""
    given = [part for part in get_args(hint) if part is not type(None)]
    is_union = isinstance(hint, UnionType) or get_origin(hint) is Union
    return given[0] if is_union and len(given) == 1 else hint


def typed(hint: Any) -> Typed | None:
    """How a type's values are typed, where its annotation says so."""
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def type_name(hint: Any) -> str:
    """A field's type in words."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(hint, "a list of numbers")


def check_device(name: str) -> None:
    """Refuse what is no device's name; whether it is there shows when it is used."""
    fits = name in {"auto", "cpu", "cuda"} or (name.startswith("cuda:") and name[5:].isdigit())
    require("device", name, fits, "auto, cpu, cuda or cuda:K")


def check_channels(name: str, values: tuple[float, ...] | None, lowest: float) -> None:
    """Refuse normalisation constants that are not three fractions of the range of x/255."""
    if values is not None:
        fits = len(values) == 3 and all(lowest <= x <= 1 for x in values)  # noqa: PLR2004  # R, G, B
        require(name, values, fits, "three numbers from 0 to 1, as 0.5,0.5,0.5")


def check_choices(config: object) -> None:
    """Refuse a value that is not among its field's literal choices."""
    fields = _literal_fields(type(config))  # type: ignore[arg-type]  # mypy takes no class for hashable
    for name, hint in fields.items():
        choices = value_type(hint)
        value = getattr(config, name)
        if not (value is None and choices is not hint):
            require(name, value, value in get_args(choices), type_name(choices))


@cache
def _literal_fields(settings: type[Any]) -> Mapping[str, Any]:
    """Annotations with literal choices, by field.

    Read once: a fit of many heads makes settings by the hundred, and took a quarter of an epoch to
    read annotations.
    """
    hints = get_type_hints(settings)
    return {n: hint for n, hint in hints.items() if get_origin(value_type(hint)) is Literal}


def require(name: str, value: object, fits: bool, needed: str) -> None:
    """Raise one sentence where a value does not fit."""
    if not fits:
        raise ConfigError(f"{name} must be {needed}, not {value}.")
