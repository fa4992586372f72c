"""Sizes and grids as people type them."""

from __future__ import annotations

import math
import re

from pipeline.errors import ConfigError

Grid = tuple[float, ...]
"""Temperatures, in the order in which they are tried."""

LARGEST_GRID = 1000
"""Temperatures of one head; more are a slip, and a thousand by a thousand take minutes already."""


def parse_size(text: str) -> int:
    """Bytes from `500MB`, `2GiB` and the like.

    Raises:
        ConfigError: if the text has no such form.
    """
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([KMGT]?)(i?)B", text, re.IGNORECASE)
    if found is None or not float(found[1]):
        raise ConfigError(f"{text!r} is no size: give a number and a unit, as 2GiB or 500MB.")
    thousands = "KMGT".find(found[2].upper()) + 1 if found[2] else 0
    return int(float(found[1]) * (1024 if found[3] else 1000) ** thousands)


def parse_grid(text: str, what: str = "temperature grid") -> Grid:
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
            f"{text!r} is no {what}: give up to {LARGEST_GRID} values above 0, as 1,2,3 "
            "or as start:stop:count."
        ) from None
    return grid


def parse_weights(text: str) -> tuple[float, ...]:
    """Weights of heads from `1,2,1`, of 0 or more.

    Raises:
        ConfigError: if a part is no number, or one below 0.
    """
    try:
        weights = tuple(float(part) for part in text.split(","))
        if not all(0 <= weight < math.inf for weight in weights):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{text!r} is no list of weights: give one number for each head, as 1,2,1."
        ) from None
    return weights
