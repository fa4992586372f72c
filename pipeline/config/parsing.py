"""Sizes, temperatures and weights as people type them.

The types say how a field is typed, so that an option of one name reads the same in every command:
`build_config` and the command line take parser and metavar from the annotation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pipeline.errors import ConfigError

LARGEST_GRID = 1000
"""Temperatures of one head; more are a slip, and a thousand by a thousand take minutes already."""

_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([KMGT]?)(i?)B", re.IGNORECASE)


@dataclass(frozen=True)
class Typed:
    """How the values of a type are typed on a command line and in a recipe."""

    metavar: str
    """What stands for the value in `--help`."""

    parse: Callable[[Any], Any]
    """From what was typed to the value; raises `ConfigError`."""

    shown: Callable[[Any], str]
    """From the value to what a user would type."""


def parse_size(size: object) -> int:
    """Bytes from `500MB`, `2GiB` and the like.

    Raises:
        ConfigError: if it is no text of such a form; a number without a unit is none.
    """
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found is None or not float(found[1]):
        raise ConfigError(f"{size!r} is no size: give a number and a unit, as 2GiB or 500MB.")
    thousands = "KMGT".find(found[2].upper()) + 1 if found[2] else 0
    return int(float(found[1]) * (1024 if found[3] else 1000) ** thousands)


def parse_temperatures(text: str) -> tuple[float, ...]:
    """Temperatures from `1,2,3` or from `start:stop:count`, evenly spaced in their logarithm.

    Raises:
        ConfigError: if the text has neither form, or a temperature is not positive.
    """
    try:
        if ":" not in text:
            grid = tuple(float(part) for part in text.split(","))
        else:
            first, last, number = text.split(":")
            start, stop, count = float(first), float(last), int(number)
            if not (2 <= count <= LARGEST_GRID and 0 < start < stop < math.inf):  # noqa: PLR2004  # two ends
                raise ValueError
            # 12 digits keep a round value such as 1 exact where the grid meets it.
            grid = tuple(
                float(f"{start * (stop / start) ** (k / (count - 1)):.12g}") for k in range(count)
            )
        if not all(0 < t < math.inf for t in grid):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{text!r} is no temperature grid: give up to {LARGEST_GRID} values above 0, as 1,2,3 "
            "or as start:stop:count."
        ) from None
    return grid


def parse_weights(text: str) -> tuple[float, ...]:
    """Weights of heads from `1,2,1`; 0 leaves a head out, but not all of them.

    Raises:
        ConfigError: if a part is no number, or one below 0, or all are 0.
    """
    try:
        weights = tuple(float(part) for part in text.split(","))
        if not weigh_something(weights):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{text!r} is no list of weights: give one number for each head, as 1,2,1; 0 leaves a "
            "head out, and one or more must be above 0."
        ) from None
    return weights


def weigh_something(weights: Sequence[float]) -> bool:
    """Whether all are 0 or more, and one at least is more."""
    return all(0 <= weight < math.inf for weight in weights) and any(weights)


def _size(given: Any) -> Any:
    """A size as it was typed, once it is known to be one: recipes and heads keep the text."""
    parse_size(given)
    return given


def _several(parse: Callable[[str], tuple[float, ...]]) -> Callable[[Any], tuple[float, ...]]:
    """Numbers from text, or from the list that a recipe may hold."""
    return lambda given: parse(given) if isinstance(given, str) else tuple(map(float, given))


def _grid(grid: Sequence[float]) -> str:
    """The grid's ends and length: what `start:stop:count` would give."""
    return f"{grid[0]:g}:{grid[-1]:g}:{len(grid)}"


def _list(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


Size = Annotated[str, Typed("SIZE", _size, str)]
"""A number of bytes as text, such as `2GiB`; `parse_size` counts them."""

Temperatures = Annotated[tuple[float, ...], Typed("GRID", _several(parse_temperatures), _grid)]
"""Temperatures of one head, in the order in which they are tried."""

Weights = Annotated[tuple[float, ...], Typed("W,W[,W...]", _several(parse_weights), _list)]
"""Weights of the heads of an ensemble, in any unit; 0 leaves a head out."""
