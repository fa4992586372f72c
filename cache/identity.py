"""What was extracted and by what; two things mix only where their identities agree."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError, StoreFormatError
from cache.records import Record
from cache.strict_json import JSON

_DTYPES = ("float32", "float16")
_SHORT_HASH = 12  # hex digits shown of a sha256: enough to tell two apart, short enough to read
_BLOCK = 65_536  # ids hashed at a time: keeps the joined bytes of millions of paths small
_DEEPEST = 8  # objects and lists within one another, at most; those of ours are three

_OBJECTS = ("model", "preprocessing", "compute", "views", "samples")
"""Fields that are JSON objects; the others are strings."""

_ABSENT = object()
"""Stands for a key that one of two objects lacks."""


@dataclass(frozen=True)
class Identity(Record):
    """Everything that decides the numbers in a store.

    Its objects are plain JSON and cannot be changed. What their keys mean is their maker's affair:
    here they are kept, and compared by value.

    Raises:
        StoreError: `dtype` is neither "float32" nor "float16", or an object is no plain JSON.
    """

    model: Mapping[str, JSON] = field(hash=False)
    """Which network it is, and what was done to it."""
    checkpoint: str
    """sha256 of the checkpoint file."""
    backbone: str
    """sha256 of the backbone's weights."""
    classifier: str
    """sha256 of the old head, `cache.Classifier.digest`."""
    preprocessing: Mapping[str, JSON] = field(hash=False)
    """The test-time transform."""
    compute: Mapping[str, JSON] = field(hash=False)
    """Arithmetic of the forward pass."""
    dtype: str
    """Stored type of the features: "float32" or "float16"."""
    device: str
    """Kind of device: "cpu" or "cuda"."""
    views: Mapping[str, JSON] = field(hash=False)
    """The views of `train` and those of the other splits; null for none."""
    samples: Mapping[str, str] = field(hash=False)
    """Split name -> `samples_digest` over its ordered ids and labels."""

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise StoreError(f"Features are stored as float32 or float16, not as '{self.dtype}'.")
        for name in _OBJECTS:
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise StoreError(f"identity.{name} must be an object, not {value!r}.")
            object.__setattr__(self, name, _frozen(value, f"identity.{name}"))

    def differences(self, other: Identity) -> list[str]:
        """Name everything in which `other` differs, as "field: this X, that Y"."""
        return [*self._differing_fields(other, skip=()), *self._differing_samples(other)]

    def feature_space_differences(self, other: Identity) -> list[str]:
        """Name what puts the two into different feature spaces.

        Views, and splits that only one of the two has, do not: a head fitted on a store still fits
        that store after a split was added or other views were extracted.
        """
        shared = set(self.samples) & set(other.samples)
        return [
            *self._differing_fields(other, skip=("views",)),
            *self._differing_samples(other, only=shared),
        ]

    def in_words(self) -> dict[str, str]:
        """Return every value as text for people, by its name, as "preprocessing.crop"."""
        return dict(_leaves("", self.to_json()))

    def _differing_fields(self, other: Identity, skip: tuple[str, ...]) -> Iterator[str]:
        for each in fields(self):
            if each.name not in (*skip, "samples"):
                yield from _differing(each.name, *(getattr(x, each.name) for x in (self, other)))

    def _differing_samples(self, other: Identity, only: set[str] | None = None) -> Iterator[str]:
        names = dict.fromkeys([*self.samples, *other.samples])
        for name in names if only is None else (name for name in names if name in only):
            these, those = (each.samples.get(name, _ABSENT) for each in (self, other))
            yield from _differing(f"samples of '{name}'", these, those)

    @classmethod
    def from_json(cls, value: object, where: str = "The identity") -> Self:
        """Read what `to_json` wrote; `where` names it in the error.

        Raises:
            StoreFormatError: a key is unknown or missing, or a value has another type.
        """
        if isinstance(value, Mapping) and isinstance(value.get("model"), str):
            raise StoreFormatError(
                f"{where} is in words, as it was before the first release: extract the store "
                "again, and fit its heads again."
            )
        return super().from_json(value, where)


def _frozen(value: JSON, where: str, depth: int = _DEEPEST) -> JSON:
    """A JSON value that nobody can change: its keys in order, its lists as tuples."""
    if depth and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        inner = {key: _frozen(value[key], f"{where}.{key}", depth - 1) for key in sorted(value)}
        return MappingProxyType(inner)
    if depth and isinstance(value, list | tuple):
        return tuple(_frozen(each, where, depth - 1) for each in value)
    plain = value is None or isinstance(value, bool | int | str)
    if plain or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise StoreError(
        f"{where} must be plain JSON of finite numbers, {_DEEPEST} deep at most, and here is "
        f"{'deeper' if not depth else type(value).__name__}."
    )


def _differing(name: str, this: object, that: object) -> Iterator[str]:
    """Every difference within two values, under the name of the innermost key."""
    if isinstance(this, Mapping) and isinstance(that, Mapping):
        for key in dict.fromkeys([*this, *that]):
            yield from _differing(f"{name}.{key}", this.get(key, _ABSENT), that.get(key, _ABSENT))
    elif this != that:
        yield f"{name}: this {_shown(this)}, that {_shown(that)}"


def _shown(value: object) -> str:
    """A value in a message: names quoted, digests shortened."""
    if value is _ABSENT:
        return "has none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items()) or "nothing"
    if not isinstance(value, str):
        return _printed(value)
    hexadecimal = len(value) == hashlib.sha256().digest_size * 2 and set(value) <= set(
        "0123456789abcdef"
    )
    return f"{value[:_SHORT_HASH]}..." if hexadecimal else f"'{value}'"


def _leaves(name: str, value: JSON) -> Iterator[tuple[str, str]]:
    """Every value that is no object, printed, after the names that lead to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else key, inner)
    else:
        yield name, _printed(value)


def _printed(value: object) -> str:
    """A value that is no object, for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_printed, value))})"
    return str(value)


def ids_digest(ids: Sequence[str]) -> str:
    """Return the sha256 over ordered sample ids (N); each id counts with its length."""
    digest = hashlib.sha256()
    for start in range(0, len(ids), _BLOCK):
        encoded = (sample.encode("utf-8") for sample in ids[start : start + _BLOCK])
        digest.update(b"".join(b"%d:%b" % (len(each), each) for each in encoded))
    return digest.hexdigest()


def samples_digest(ids: Sequence[str], labels: npt.ArrayLike) -> str:
    """Return the sha256 over the ordered sample list of a split: ids (N) and labels (N,).

    Raises:
        StoreError: the two do not have the same length.
    """
    little_endian = np.ascontiguousarray(labels, dtype="<i8")
    if little_endian.shape != (len(ids),):
        raise StoreError(f"{len(ids)} ids need as many labels, not {little_endian.shape}.")
    digest = hashlib.sha256(ids_digest(ids).encode("ascii"))
    digest.update(little_endian.data)
    return digest.hexdigest()
