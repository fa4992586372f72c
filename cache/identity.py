"""What was extracted and by what; two things mix only where their identities agree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.strict_json import JSON, Fields

_DTYPES = ("float32", "float16")
_SHORT_HASH = 12  # hex digits shown of a sha256: enough to tell two apart, short enough to read
_BLOCK = 65_536  # ids hashed at a time: keeps the joined bytes of millions of paths small


@dataclass(frozen=True)
class Identity:
    """Everything that decides the numbers in a store.

    Raises:
        StoreError: `dtype` is neither "float32" nor "float16".
    """

    model: str
    """Family and backbone in words, as "ldmlr/cifar-resnet32"."""
    checkpoint: str
    """sha256 of the checkpoint file."""
    backbone: str
    """sha256 of the backbone's weights."""
    classifier: str
    """sha256 of the old head, `cache.Classifier.digest`."""
    preprocessing: str
    """The test-time transform, printed."""
    compute: str
    """Arithmetic of the forward pass: "float32", "bfloat16 autocast", "float32 channels_last"."""
    dtype: str
    """Stored type of the features: "float32" or "float16"."""
    device: str
    """Kind of device: "cpu" or "cuda"."""
    views: str
    """The views of `train` and of the other splits, printed; "" for none."""
    samples: Mapping[str, str] = field(hash=False)
    """Split name -> `samples_digest` over its ordered ids and labels."""

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise StoreError(f"Features are stored as float32 or float16, not as '{self.dtype}'.")
        in_order = dict(sorted(self.samples.items()))
        object.__setattr__(self, "samples", MappingProxyType(in_order))

    def differences(self, other: Identity) -> list[str]:
        """Name every field in which `other` differs, as "field: this X, that Y"."""
        return [*self._differing_words(other, skip=()), *self._differing_samples(other)]

    def feature_space_differences(self, other: Identity) -> list[str]:
        """Name the fields that put the two into different feature spaces.

        Views, and splits that only one of the two has, do not: a head fitted on a store still fits
        that store after a split was added or other views were extracted.
        """
        shared = set(self.samples) & set(other.samples)
        return [
            *self._differing_words(other, skip=("views",)),
            *self._differing_samples(other, only=shared),
        ]

    def _differing_words(self, other: Identity, skip: tuple[str, ...]) -> Iterator[str]:
        for each in fields(self):
            this, that = getattr(self, each.name), getattr(other, each.name)
            if each.name not in (*skip, "samples") and this != that:
                yield f"{each.name}: this {_shown(this)}, that {_shown(that)}"

    def _differing_samples(self, other: Identity, only: set[str] | None = None) -> Iterator[str]:
        names = dict.fromkeys([*self.samples, *other.samples])
        for name in names if only is None else (name for name in names if name in only):
            this, that = self.samples.get(name), other.samples.get(name)
            if this != that:
                yield f"samples of '{name}': this {_shown(this)}, that {_shown(that)}"

    def to_json(self) -> dict[str, JSON]:
        """Return the fields as a JSON object."""
        words: dict[str, JSON] = {each.name: getattr(self, each.name) for each in fields(self)}
        return words | {"samples": dict(self.samples)}

    @classmethod
    def from_json(cls, value: object) -> Identity:
        """Read what `to_json` wrote.

        Raises:
            StoreFormatError: a key is unknown or missing, or a value has another type.
        """
        names = [each.name for each in fields(cls)]
        found = Fields(value, "The identity", names)
        words = {name: found.text(name) for name in names if name != "samples"}
        return cls(**words, samples=found.text_mapping("samples"))


def _shown(value: str | None) -> str:
    if value is None:
        return "has none"
    hexadecimal = len(value) == hashlib.sha256().digest_size * 2 and set(value) <= set(
        "0123456789abcdef"
    )
    return f"{value[:_SHORT_HASH]}..." if hexadecimal else f"'{value}'"


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
