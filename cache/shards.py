"""The shard: unit of work and of commit; and the record that says that one is complete."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import StoreFormatError
from cache.records import Count, Record
from cache.strict_json import canonical, parse

_LONGEST = 20  # digits of a row's number: Python refuses to read thousands of them
_MAX_REASON = 500  # characters kept of why an image could not be read


@dataclass(frozen=True, order=True)
class Shard:
    """Rows `start` to `stop` of a split, computed by one worker and committed as one."""

    split: str
    """The split's name."""
    index: int
    """Number within the split, from 0."""
    start: int
    """First row within the split."""
    stop: int
    """Row after the last."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        """The rows within the split."""
        return slice(self.start, self.stop)

    @property
    def name(self) -> str:
        """A word for file names, as "train-00003"."""
        return f"{self.split}-{self.index:05d}"

    def __str__(self) -> str:
        return f"shard {self.index} of split '{self.split}' (rows {self.start} to {self.stop - 1})"


def shards_of(n_rows: int, shard_rows: int, split: str) -> tuple[Shard, ...]:
    """Cut `n_rows` rows into shards of `shard_rows`; the last one takes what is left."""
    n_shards = -(-n_rows // shard_rows)
    return tuple(shard_at(index, n_rows, shard_rows, split) for index in range(n_shards))


def shard_at(index: int, n_rows: int, shard_rows: int, split: str) -> Shard:
    """Return one of `shards_of`, without making the others."""
    start = index * shard_rows
    return Shard(split, index, start, min(start + shard_rows, n_rows))


def indices_within(rows: slice, shard_rows: int) -> slice:
    """Return the indices of the shards in which rows lie; none where there are no rows."""
    first = rows.start // shard_rows
    return slice(first, -(-rows.stop // shard_rows) if rows.start < rows.stop else first)


def unfinished_message(path: Path, shards: Sequence[Shard], missing: Sequence[Shard]) -> str:
    """Say which part of an unfinished store is missing, and how to finish it."""
    parts = []
    for split in dict.fromkeys(shard.split for shard in missing):
        of = sum(shard.split == split for shard in shards)
        lacking = sum(shard.split == split for shard in missing)
        parts.append(f"{lacking} of {of} shards of split '{split}'")
    what = f"{' and '.join(parts)} are not written" if parts else "the store is not sealed yet"
    return f"{path}: {what}. Finish with: nolb extract ... --out {path} --resume"


@dataclass(frozen=True)
class ShardRecord:
    """The statement that a shard is complete, and what its bytes must be."""

    shard: Shard
    """Which."""
    arrays: Mapping[str, str] = field(hash=False)
    """Name within the split ("features", "logits", "views") -> `array_digest`."""
    ids: str
    """`cache.identity.ids_digest` over the shard's sample ids."""
    failures: Mapping[int, str] = field(hash=False)
    """Row of the split -> why its image could not be read; such rows hold NaN."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrays", MappingProxyType(dict(self.arrays)))
        object.__setattr__(self, "failures", MappingProxyType(dict(self.failures)))

    @property
    def start(self) -> int:
        """First row within the split."""
        return self.shard.start

    @property
    def stop(self) -> int:
        """Row after the last within the split."""
        return self.shard.stop

    def to_text(self) -> str:
        """Return the record as one line of JSON."""
        failures = {str(row): reason for row, reason in self.failures.items()}
        written = _Written(**vars(self.shard), arrays=self.arrays, ids=self.ids, failures=failures)
        return canonical(written.to_json())

    @classmethod
    def from_text(cls, text: str | bytes, where: str) -> ShardRecord:
        """Read what `to_text` wrote; `where` names the record in the error.

        Raises:
            StoreFormatError: the text is no record.
        """
        found = _Written.from_json(parse(text, where), where)
        shard = Shard(found.split, found.index, found.start, found.stop)
        failures: dict[int, str] = {}
        for row, reason in found.failures.items():
            number = int(row) if row.isascii() and row.isdecimal() and len(row) < _LONGEST else -1
            if not shard.start <= number < shard.stop:
                raise StoreFormatError(
                    f"{where} marks row '{row:.20}' failed, which is not its own."
                )
            failures[int(row)] = reason
        return cls(shard, found.arrays, found.ids, failures)


@dataclass(frozen=True)
class _Written(Record):
    """A shard's record as it is written: the fields of `Shard` and those of `ShardRecord`."""

    split: str
    """As in `Shard`."""
    index: Count
    """As in `Shard`."""
    start: Count
    """As in `Shard`."""
    stop: Count
    """As in `Shard`."""
    arrays: Mapping[str, str]
    """As in `ShardRecord`."""
    ids: str
    """As in `ShardRecord`."""
    failures: Mapping[str, str]
    """As in `ShardRecord`, the rows as text."""


def array_digest(array: npt.NDArray[Any]) -> str:
    """Return the sha256 over the type, the shape and the little-endian bytes of an array."""
    # The views of a shard, (V, n, D), lie in V blocks: hashed one by one, none is copied.
    blocks = array if array.ndim > 2 else (array,)  # noqa: PLR2004  # a matrix is one block
    return blocks_digest(array.dtype, array.shape, blocks)


def blocks_digest(
    dtype: npt.DTypeLike, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]
) -> str:
    """Return `array_digest` of the array that the blocks make one after the other."""
    little = np.dtype(dtype).newbyteorder("<")
    digest = hashlib.sha256(f"{little.str}{shape}".encode("ascii"))
    for block in blocks:
        digest.update(np.ascontiguousarray(block, little).data)
    return digest.hexdigest()


def tidy_reason(reason: str) -> str:
    """Return a reason as it is stored: one line, never empty, bounded."""
    # HDF5 strings end at NUL, and file names may hold bytes that are no text.
    printable = reason.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
    return " ".join(printable.split())[:_MAX_REASON] or "unreadable"


def finite_rows(array: npt.NDArray[np.floating[Any]], row_axis: int) -> npt.NDArray[np.bool_]:
    """Return (n,) whether all of a row's numbers are finite; the rows lie along `row_axis`."""
    others = tuple(axis for axis in range(array.ndim) if axis != row_axis)
    if array.dtype == np.float16:
        # NaN and infinity have all exponent bits set; on integers this is three times as fast.
        exponent = array.view(np.uint16) & np.uint16(0x7C00)
        return np.asarray((exponent != np.uint16(0x7C00)).all(axis=others))
    return np.asarray(np.isfinite(array).all(axis=others))
