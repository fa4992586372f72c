"""Frozen dataclasses that are kept as JSON objects, and read back strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from cache.errors import StoreFormatError
from cache.strict_json import JSON, Fields
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Record:
    """A dataclass whose fields are numbers, words, tuples of these, other records, or None."""

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object that names every field."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_json(cls, value: object, where: str) -> Self:
        """Read what `to_json` wrote; `where` names it in the error.

        Raises:
            StoreFormatError: if a key is unknown or missing, or a value has another type or is out
                of range.
        """
        Fields(value, where, [each.name for each in fields(cls)])
        content: Mapping[str, Any] = value  # type: ignore[assignment]  # `Fields` has seen to it
        hints = get_type_hints(cls)
        values = {name: _read(content[name], hints[name], f"{where}: '{name}'") for name in content}
        try:
            return cls(**values)
        except ConfigError as error:
            raise StoreFormatError(f"{where} cannot be used: {error}") from None


def _plain(value: Any) -> JSON:
    if isinstance(value, Record):
        return value.to_json()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _read(value: Any, hint: Any, where: str) -> Any:
    """A JSON value as a field of that type."""
    options = get_args(hint)
    if get_origin(hint) is Literal:
        if isinstance(value, str) and value in options:
            return value
    elif type(None) in options:
        (other,) = (each for each in options if each is not type(None))
        return None if value is None else _read(value, other, where)
    elif get_origin(hint) is tuple:
        if isinstance(value, list | tuple) and len(value) == len(options):
            return tuple(_read(*each, where) for each in zip(value, options, strict=True))
    elif issubclass(hint, Record):
        return hint.from_json(value, where)
    # In Python a bool is an int, and to JSON 1.0 is the number 1.
    elif type(value) is hint or (hint is float and type(value) is int):
        return hint(value)
    raise StoreFormatError(f"{where} cannot be {value!r}.")
