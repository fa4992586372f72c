"""Dataclasses that are kept as JSON objects: their fields say what is written and what is read.

pydantic, msgspec and cattrs read JSON into dataclasses too. None of them comes with what the store
needs anyway (NumPy, h5py, zarr), and each would have to be told to refuse unknown keys, `true` for
1, NaN and 1.0 for 1, and to name the place in the project's words: more than the reader below.
"""

from __future__ import annotations

import functools
import math
import reprlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from cache.errors import NolbError, StoreFormatError
from cache.strict_json import JSON

AnyRecord = TypeVar("AnyRecord", bound="Record")

_SHOWN = 5  # most keys that an error names


@dataclass(frozen=True)
class Check:
    """What a value must be besides its type: `Annotated[int, Check("0 or more", ...)]`."""

    words: str
    """As it continues "must be"."""

    holds: Callable[[Any], bool]
    """Whether a value is so."""


@dataclass(frozen=True)
class Null:
    """The number that a null stands for: `Annotated[float, Null(math.nan)]`."""

    stands_for: float
    """NaN or an infinity."""


Count = Annotated[
    int,
    Check("0 or more", lambda value: value >= 0),
    Check("a number of 64 bits", lambda value: value < 1 << 63),
]
Positive = Annotated[float, Check("above 0", lambda value: value > 0)]
Gap = Annotated[float, Null(math.nan)]
"""A number, or NaN where there is none."""


@dataclass(frozen=True)
class Record:
    """A dataclass that is written as a JSON object of its fields.

    A field is a word, a number, true or false, None, a tuple or a mapping of such, another record,
    any JSON, or one of several of these. Records of which one or another stands in a field have a
    field `kind` each, of one word. A number is finite; one that JSON lacks is written as null.
    """

    def to_json(self) -> dict[str, JSON]:
        """Return a JSON object that names every field."""
        return {each.name: plain(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_json(cls, value: object, where: str) -> Self:
        """Read what `to_json` wrote; `where` names it in the error.

        Raises:
            StoreFormatError: a key is unknown or missing, or a value has another type or is out
                of range.
        """
        hints = _hints(cls)
        given = _object(value, where)
        missing = [key for key in hints if key not in given]
        unknown = [key for key in given if key not in hints]
        if missing or unknown:
            said = ["misses " + _named(missing)] * bool(missing)
            said += ["has unknown " + _named(unknown)] * bool(unknown)
            raise StoreFormatError(f"{where} {' and '.join(said)}.")
        values = {key: read(given[key], hint, f"'{key}' of {where}") for key, hint in hints.items()}
        try:
            return cls(**values)
        except NolbError as error:
            raise StoreFormatError(f"{where} cannot be used: {error!s:.400}") from None


@dataclass(frozen=True)
class Settings(Record):
    """A record whose every field has a default, which holds where a file is older than the field.

    So that a file can be read after a setting was added, whose default shall change nothing.
    """

    @classmethod
    def from_json(cls, value: object, where: str) -> Self:
        """Read what `to_json` wrote, of this version or an earlier one.

        Raises:
            StoreFormatError: as `Record.from_json`, but for missing keys.
        """
        return super().from_json({**cls().to_json(), **_object(value, where)}, where)


@dataclass(frozen=True)
class Result(Record):
    """A record of what was measured; other keys beside its fields are left alone.

    They are what follows from the fields, or what a later version measures.
    """

    @classmethod
    def from_json(cls, value: object, where: str) -> Self:
        """Read what `to_json` wrote, of this version or a later one.

        Raises:
            StoreFormatError: as `Record.from_json`, but for unknown keys.
        """
        given, known = _object(value, where), _hints(cls)
        return super().from_json({key: given[key] for key in given if key in known}, where)


def read_one_of(records: tuple[type[AnyRecord], ...], value: object, where: str) -> AnyRecord:
    """Read a JSON object as the record whose kind it says it is; `where` names it in the error.

    Raises:
        StoreFormatError: as `Record.from_json`, or it is of none of these kinds.
    """
    kinds = {get_args(_hints(each)["kind"])[0]: each for each in records}
    kind = _object(value, where).get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise refused(f"'kind' of {where}", _either(list(kinds)), kind)
    return kinds[kind].from_json(value, where)


def plain(value: Any) -> JSON:
    """Return a field's value as JSON."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "to_json"):
        return cast(JSON, value.to_json())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(value: object, hint: Any, where: str) -> Any:
    """Return a JSON value as a field of that type; `where` names it in the error.

    Raises:
        StoreFormatError: the value is of another type, or out of range.
    """
    reader = _READERS.get(get_origin(hint))
    if reader is not None:
        return reader(value, get_args(hint), where)
    if hint is object or hint is Any:
        return value
    if hasattr(hint, "from_json"):
        return hint.from_json(value, where)
    return _read_plain(value, hint, where)


def refused(where: str, words: str, value: object) -> StoreFormatError:
    """Return the error that a value is not what the words say."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    found = reprlib.repr(value) if number or isinstance(value, str) else _kind(value)
    return StoreFormatError(f"{where} must be {words}, not {found}.")


def _hints(kind: type[Record]) -> Mapping[str, Any]:
    """The type of each field."""
    return _evaluated(cast(Hashable, kind))  # a class is, whatever its instances are


@functools.cache
def _evaluated(kind: Any) -> Mapping[str, Any]:
    """The annotations as types, which takes as long as to read a small file."""
    found = get_type_hints(kind, include_extras=True)
    return {each.name: found[each.name] for each in fields(kind)}


def _object(value: object, where: str) -> Mapping[str, Any]:
    """The value, if it is an object."""
    if not isinstance(value, Mapping):
        raise refused(where, "an object", value)
    return value


def _read_annotated(value: object, options: tuple[Any, ...], where: str) -> Any:
    """A value of a type that has to be something besides."""
    kind, *more = options
    for each in more:
        if isinstance(each, Null) and value is None:
            return each.stands_for
    found = read(value, kind, where)
    for each in more:
        if isinstance(each, Check) and not each.holds(found):
            raise StoreFormatError(f"{where} must be {each.words}, not {reprlib.repr(value)}.")
    return found


def _read_word(value: object, options: tuple[Any, ...], where: str) -> str:
    """One of several words."""
    if not isinstance(value, str) or value not in options:
        raise refused(where, _either(options), value)
    return value


def _read_one(value: object, options: tuple[Any, ...], where: str) -> Any:
    """Null or something else, or records of a kind each."""
    others = tuple(each for each in options if each is not type(None))
    if value is None and len(others) < len(options):
        return None
    return read(value, *others, where) if len(others) == 1 else read_one_of(others, value, where)


def _read_mapping(value: object, options: tuple[Any, ...], where: str) -> dict[str, Any]:
    """An object of any keys."""
    given = _object(value, where)
    return {key: read(given[key], options[1], f"'{key:.40}' of {where}") for key in given}


def _read_tuple(value: object, options: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    """A list of as many values as asked for, or of any number of one type."""
    if not isinstance(value, list | tuple):
        raise refused(where, "a list", value)
    hints = [options[0]] * len(value) if options[-1] is Ellipsis else options
    if len(value) != len(hints):
        raise StoreFormatError(f"{where} must have {len(hints)} entries, not {len(value)}.")
    pairs = enumerate(zip(value, hints, strict=True), 1)
    return tuple(read(*pair, f"entry {n} of {where}") for n, pair in pairs)


def _read_plain(value: object, hint: type[Any], where: str) -> Any:
    """A word, a number, or true or false."""
    # In Python a bool is an int, and to JSON 1.0 is the number 1.
    if type(value) is not hint and not (hint is float and type(value) is int):
        raise refused(where, _WORDS[hint], value)
    try:
        found = hint(value)
    except OverflowError:
        found = math.inf
    if hint is float and not math.isfinite(found):
        raise refused(where, "finite", value)
    return found


_READERS: Mapping[Any, Callable[[object, tuple[Any, ...], str], Any]] = {
    **{Annotated: _read_annotated, Literal: _read_word, Mapping: _read_mapping},
    **{Union: _read_one, UnionType: _read_one, tuple: _read_tuple},
}
"""How a type that is made of others is read."""

_WORDS: Mapping[type[Any], str] = {
    **{str: "text", bool: "true or false", int: "a whole number", float: "a number"},
    **{dict: "an object", list: "a list", type(None): "null"},
}


def _kind(value: object) -> str:
    """What a JSON value is, in words."""
    return next((words for kind, words in _WORDS.items() if isinstance(value, kind)), "a value")


def _either(words: Sequence[str]) -> str:
    *first, last = (f"'{word}'" for word in words)
    return f"{', '.join(first)} or {last}" if first else last


def _named(keys: list[Any]) -> str:
    shown = ", ".join(f"'{key!s:.40}'" for key in keys[:_SHOWN])
    return shown if len(keys) <= _SHOWN else f"{shown} and {len(keys) - _SHOWN} more"
