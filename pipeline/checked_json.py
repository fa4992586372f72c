"""JSON that a command wrote and another one reads: every value of the type that was written.

Names that nobody asks for are left alone, so that a file of a later version can be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


class Values:
    """A JSON object whose values are taken by name and type.

    Args:
        value: what was read.
        where: its name for the messages.

    Raises:
        ValueError: if it is no object; the methods raise it where a value is missing or of
            another type, in words that name its place.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be an object, not {_kind(value)}")
        self._value: Mapping[str, Any] = value
        self._where = where

    def __contains__(self, name: str) -> bool:
        return self._value.get(name) is not None

    def names(self) -> list[str]:
        """All names, in their order."""
        return [str(name) for name in self._value]

    def raw(self, name: str) -> Any:
        """A value of any type."""
        if name not in self._value:
            raise ValueError(f"{self._where} has no {name!r}")
        return self._value[name]

    def inner(self, name: str) -> Values:
        """An object."""
        return Values(self.raw(name), self.at(name))

    def mapping(self, name: str) -> Mapping[str, Any]:
        """An object as it is."""
        return self._taken(name, dict, "an object")

    def items(self, name: str) -> Sequence[Any]:
        """A list."""
        return self._taken(name, list, "a list")

    def text(self, name: str) -> str:
        """Text."""
        return self._taken(name, str, "text")

    def text_or_none(self, name: str) -> str | None:
        """Text or null."""
        return None if self.raw(name) is None else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of text."""
        for value in self.items(name):
            if not isinstance(value, str):
                raise ValueError(f"{self.at(name)} must hold text alone, not {_kind(value)}")
        return tuple(self.items(name))

    def number(self, name: str) -> float:
        """A number, but neither NaN nor infinite."""
        return as_finite(self.raw(name), self.at(name))

    def numbers(self, name: str, length: int | None = None) -> tuple[float, ...]:
        """A list of such numbers, as long as asked for."""
        found = tuple(as_finite(value, self.at(name)) for value in self.items(name))
        return _of_length(found, length, self.at(name))

    def numbers_or_none(self, name: str, length: int | None = None) -> tuple[float | None, ...]:
        """A list of numbers and nulls."""
        found = tuple(
            None if value is None else as_finite(value, self.at(name)) for value in self.items(name)
        )
        return _of_length(found, length, self.at(name))

    def temperature(self, name: str) -> float:
        """A number above 0."""
        found = self.number(name)
        if found <= 0:
            raise ValueError(f"{self.at(name)} must be above 0, not {found:g}")
        return found

    def temperatures(self, name: str, length: int | None = None) -> tuple[float, ...]:
        """A list of numbers above 0."""
        found = self.numbers(name, length)
        if not found or min(found) <= 0:
            raise ValueError(f"{self.at(name)} must be one or more numbers above 0")
        return found

    def count(self, name: str) -> int:
        """A whole number of 0 or more."""
        return as_count(self.raw(name), self.at(name))

    def counts(self, name: str, length: int | None = None) -> tuple[int, ...]:
        """A list of such."""
        found = tuple(as_count(value, self.at(name)) for value in self.items(name))
        return _of_length(found, length, self.at(name))

    def at(self, name: str) -> str:
        """The place of a value, for messages."""
        return f"{name!r} of {self._where}"

    def _taken(self, name: str, kind: type[_T], words: str) -> _T:
        value = self.raw(name)
        if not isinstance(value, kind):
            raise ValueError(f"{self.at(name)} must be {words}, not {_kind(value)}")
        return value


def as_finite(value: object, where: str) -> float:
    """A number, but neither NaN nor infinite; in JSON, true is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} must be a number, not {_kind(value)}")
    if not math.isfinite(value):
        raise ValueError(f"{where} must be finite, not {value}")
    return float(value)


def as_count(value: object, where: str) -> int:
    """A whole number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        shown = value if isinstance(value, int | float) else _kind(value)
        raise ValueError(f"{where} must be a whole number of 0 or more, not {shown}")
    return value


def _of_length(found: tuple[_T, ...], length: int | None, where: str) -> tuple[_T, ...]:
    if length is not None and len(found) != length:
        raise ValueError(f"{where} must have {length} entries, not {len(found)}")
    return found


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    words = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "null" if value is None else words.get(type(value), "a number")
