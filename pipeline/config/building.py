"""From a recipe's keys and a user's options to a stage's settings."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pipeline.config.checks import type_name, typed, value_type
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def build_config(
    settings: type[Config], recipe: Mapping[str, Any] | None = None, **given: Any
) -> Config:
    """Settings of one stage: `given` values first, then the recipe's, then the defaults.

    Args:
        settings: one of the classes in `SECTIONS`.
        recipe: the stage's section of a recipe.
        given: values set by the caller; `None` means not set.

    Raises:
        ConfigError: if a key is unknown or a value has the wrong type or range.
    """
    values = {**(recipe or {}), **{k: v for k, v in given.items() if v is not None}}
    refuse_unknown(values, [f.name for f in dataclasses.fields(settings)], settings.__name__)
    hints = get_type_hints(settings, include_extras=True)
    return settings(**{key: _coerce(key, value, hints[key]) for key, value in values.items()})


def field_help(settings: type[Any]) -> Mapping[str, str]:
    """Help text of every field: the docstring that stands under it in the source."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{settings!r} is not a class")
    texts = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            texts[statement.target.id] = inspect.cleandoc(str(following.value.value))
    return texts


def refuse_unknown(values: Mapping[Any, Any], known: list[str], where: str) -> None:
    """Raise `ConfigError` on keys that nobody would read."""
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        raise ConfigError(
            f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(known)}."
        )


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """A value from YAML or the command line as the field's type; `1e-4` is text to YAML."""
    hint = value_type(hint)
    how = typed(hint)
    hint = get_args(hint)[0] if how is not None else hint
    try:
        if how is not None:
            return how.parse(value)
        if get_origin(hint) is tuple:
            return tuple(float(x) for x in (value.split(",") if isinstance(value, str) else value))
        if hint is float and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass  # told below, like every other wrong type
    expected = type(get_args(hint)[0]) if get_origin(hint) is Literal else hint
    # bool is a subclass of int, but `epochs: true` is a slip.
    if (
        get_origin(hint) is tuple
        or not isinstance(value, expected)
        or (isinstance(value, bool) and expected is not bool)
    ):
        raise ConfigError(f"{name} must be {type_name(hint)}, not {value!r}.")
    return value
