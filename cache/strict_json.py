"""JSON as text: one text for each value, and texts of bounded size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

from cache.errors import StoreFormatError

if TYPE_CHECKING:
    JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
else:
    JSON = object  # records ask for their fields' types as they run, where any JSON is any object

MOST_BYTES = 1 << 26
"""Largest text that is parsed: the catalogue of 14 million rows takes a tenth of it, and what is
parsed takes many times the memory of its text."""


def canonical(value: JSON) -> str:
    """Return the one text that stands for `value`: sorted keys, no spaces, no NaN.

    Raises:
        TypeError: a value is no JSON.
        ValueError: a number is NaN or infinite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def parse(text: str | bytes, where: str) -> JSON:
    """Return the value that `text` stands for; `where` names it in the error.

    Raises:
        StoreFormatError: the text is no JSON, or too long to be ours.
    """
    if len(text) > MOST_BYTES:
        raise StoreFormatError(f"{where} has {len(text):,} characters; ours are shorter.")
    try:
        return cast(JSON, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise StoreFormatError(f"{where} is not valid JSON ({error}).") from None
