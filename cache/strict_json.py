"""JSON that is read strictly: every key known, every value of the type that was written."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias, TypeVar, cast

from cache.errors import StoreFormatError

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
_T = TypeVar("_T")

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


class Fields:
    """A JSON object whose fields are taken by name and type.

    Raises:
        StoreFormatError: `value` is no object, or its keys are not exactly `keys`; the methods
            raise it when a field has another type.
    """

    def __init__(self, value: object, where: str, keys: Collection[str]) -> None:
        if not isinstance(value, Mapping):
            raise StoreFormatError(f"{where} must be a JSON object, not {type(value).__name__}.")
        missing = sorted(set(keys) - set(value))
        unknown = sorted(str(key) for key in set(value) - set(keys))
        if missing or unknown:
            said = [f"misses {missing}"] * bool(missing) + [f"has unknown {unknown}"] * bool(
                unknown
            )
            raise StoreFormatError(
                f"{where} {' and '.join(said)}; this is no store of this version."
            )
        self._value = value
        self._where = where

    def _take(self, key: str, kind: type[_T], name: str) -> _T:
        value = self._value[key]
        # In Python a bool is an int; in JSON it is not.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            found = type(value).__name__
            raise StoreFormatError(f"{self._where}: '{key}' must be {name}, not {found}.")
        return value

    def text(self, key: str) -> str:
        """Return a string."""
        return self._take(key, str, "a string")

    def flag(self, key: str) -> bool:
        """Return a boolean."""
        return self._take(key, bool, "true or false")

    def count(self, key: str) -> int:
        """Return an integer of at least 0."""
        value = self._take(key, int, "an integer")
        if value < 0:
            raise StoreFormatError(f"{self._where}: '{key}' must not be negative, but is {value}.")
        return value

    def items(self, key: str) -> list[JSON]:
        """Return a list."""
        return self._take(key, list, "a list")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings as a tuple."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            raise StoreFormatError(f"{self._where}: '{key}' must hold strings only.")
        return tuple(cast(list[str], values))

    def mapping(self, key: str) -> dict[str, JSON]:
        """Return an object."""
        return self._take(key, dict, "an object")

    def text_mapping(self, key: str) -> dict[str, str]:
        """Return an object whose values are strings."""
        values = self.mapping(key)
        if not all(isinstance(value, str) for value in values.values()):
            raise StoreFormatError(f"{self._where}: '{key}' must map to strings only.")
        return cast(dict[str, str], values)
