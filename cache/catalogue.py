"""What a finished store says about itself, sealed by a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.backends.contract import Sealed
from cache.damage import damaged
from cache.errors import CorruptStoreError, StoreFormatError
from cache.layout import FORMAT, SPARE, VERSION, Header
from cache.records import Record
from cache.shards import Shard, ShardRecord
from cache.spec import is_split_name
from cache.strict_json import JSON, canonical, parse


@dataclass(frozen=True)
class Catalogue:
    """Header, class counts and records: small, read whole when a store is opened."""

    header: Header
    """What the store holds."""
    class_counts: tuple[int, ...]
    """(C) usable training samples of each class."""
    records: Mapping[str, tuple[ShardRecord, ...]] = field(hash=False)
    """Split -> its records in the order of the rows."""

    @classmethod
    def of(
        cls,
        header: Header,
        train_labels: npt.NDArray[np.int64],
        records: Mapping[Shard, ShardRecord],
    ) -> Catalogue:
        """Close the books of a store whose shards are all recorded."""
        by_split = {
            split.name: tuple(records[shard] for shard in header.shards(split.name))
            for split in header.splits
        }
        failures = failures_of(by_split["train"])
        counts = usable_counts(train_labels, failures, len(header.class_names))
        return cls(header, counts, by_split)

    def record_texts(self, split: str) -> list[str]:
        """Return the records as they stand in the array "<split>/records"."""
        return [record.to_text() for record in self.records[split]]

    def attributes(self) -> dict[str, JSON]:
        """Return the root's attributes, keys sorted: a store has the same bytes however it came."""
        counts: dict[str, JSON] = {"class_counts": list(self.class_counts)}
        attributes = self.header.to_json() | counts
        texts = {split: self.record_texts(split) for split in self.records}
        sealed: JSON = attributes | {"digest": _digest(attributes, texts)}
        in_order: dict[str, JSON] = json.loads(canonical(sealed))
        return in_order

    def to_text(self) -> str:
        """Return all of it as one line, which stands in the store a second time for repairs."""
        texts = {split: tuple(self.record_texts(split)) for split in self.records}
        return canonical(_Spare(self.attributes(), texts).to_json())

    @classmethod
    def from_text(cls, text: str, path: Path) -> Catalogue:
        """Read what `to_text` wrote.

        Raises:
            StoreFormatError: this is none of ours, or one of another version.
            CorruptStoreError: it is not what was written.
        """
        where = f"{path}: the spare catalogue"
        found = _Spare.from_json(parse(text, where), where)
        splits = _split_names(found.attributes)
        texts = {split: found.records[split] for split in splits if split in found.records}
        return cls._from_parts(found.attributes, texts, path)

    @classmethod
    def read(cls, sealed: Sealed, path: Path) -> Catalogue:
        """Read and check everything but the arrays' values.

        Raises:
            StoreFormatError: this is no store of ours, or one of another version.
            CorruptStoreError: the parts do not agree with each other.
        """
        found = cls.read_unchecked(sealed, path)
        found._check_arrays(sealed, path)
        return found

    @classmethod
    def read_unchecked(cls, sealed: Sealed, path: Path) -> Catalogue:
        """Read header and records, and look at no other array."""
        attributes = sealed.attributes()
        require_ours(attributes, path)
        splits = _split_names(attributes)
        texts = {split: sealed.read_texts(f"{split}/records") for split in splits}
        return cls._from_parts(attributes, texts, path)

    @classmethod
    def _from_parts(
        cls, attributes: Mapping[str, JSON], texts: Mapping[str, Sequence[str]], path: Path
    ) -> Catalogue:
        require_ours(attributes, path)
        rest = dict(attributes)
        digest, counts = rest.pop("digest", None), rest.get("class_counts")
        if digest != _digest(rest, texts) or not isinstance(counts, list):
            raise damaged(path, "its header and records do not agree with their digest")
        del rest["class_counts"]
        header = Header.from_json(rest, str(path))
        records = {
            split: tuple(
                ShardRecord.from_text(text, f"{path}: record {index} of '{split}'")
                for index, text in enumerate(texts[split])
            )
            for split in texts
        }
        class_counts = tuple(count for count in counts if isinstance(count, int))
        found = cls(header, class_counts, records)
        found._check_records(path)
        return found

    def _check_records(self, path: Path) -> None:
        """Check that every row has its record."""
        if len(self.class_counts) != len(self.header.class_names):
            raise StoreFormatError(f"{path}: class_counts and class_names differ in length.")
        for split in self.header.splits:
            found = self.records.get(split.name, ())
            # Counted first: a stranger's header may speak of more shards than fit the memory.
            if (
                len(found) != self.header.n_shards(split.name)
                or tuple(record.shard for record in found) != self.header.shards(split.name)
            ):  # fmt: skip
                raise damaged(path, f"the records of split '{split.name}' do not cover its rows")

    def _check_arrays(self, sealed: Sealed, path: Path) -> None:
        """Check that every array has its shape and type, and is stored the way that we write."""
        for array in self.header.all_arrays().values():
            if array.path == SPARE:
                continue  # only repairs read it
            found = sealed.shape_and_dtype(array.path)
            if found != (array.shape, array.dtype):
                shape, dtype = found
                raise damaged(
                    path,
                    f"'{array.path}' is {shape} {dtype} instead of {array.shape} {array.dtype}",
                )
            sealed.require_layout(array)


def salvage_catalogue(sealed: Sealed | None, spare: str | None, path: Path) -> Catalogue:
    """Read the catalogue, or else its second copy.

    Args:
        sealed: the store, where it can be opened at all.
        spare: the text of the second copy, where that can be read.
        path: the store.

    Raises:
        CorruptStoreError: neither can be read.
    """
    if sealed is not None:
        try:
            return Catalogue.read_unchecked(sealed, path)
        except (CorruptStoreError, StoreFormatError):
            pass
    if spare is not None:
        try:
            return Catalogue.from_text(spare, path)
        except (CorruptStoreError, StoreFormatError):
            pass
    raise CorruptStoreError(
        f"{path} cannot be repaired: neither its catalogue nor the second copy can be read. "
        "Restore it from a copy, or move it away and extract again."
    )


def require_ours(attributes: Mapping[str, JSON], path: Path) -> None:
    """Raise StoreFormatError unless the root attributes are those of a store that we can read."""
    if (attributes.get("format"), attributes.get("version")) != (FORMAT, VERSION):
        Header.from_json(attributes, str(path))  # says what is wrong


@dataclass(frozen=True)
class _Spare(Record):
    """What stands in the store a second time."""

    attributes: Mapping[str, JSON]
    """Of the root."""
    records: Mapping[str, tuple[str, ...]]
    """Split -> the text of each record."""


def _split_names(attributes: Mapping[str, JSON]) -> list[str]:
    """Read the splits' names ahead of the strict reading, which the digest must precede."""
    splits = attributes.get("splits")
    entries = splits if isinstance(splits, list) else []
    names = [entry.get("name") for entry in entries if isinstance(entry, Mapping)]
    return [name for name in names if isinstance(name, str) and is_split_name(name)]


def _digest(attributes: Mapping[str, JSON], records: Mapping[str, Sequence[str]]) -> str:
    """Return the sha256 over everything that the other digests hang on."""
    try:
        text = canonical([dict(attributes), {name: list(records[name]) for name in records}])
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return ""  # what was written is JSON and UTF-8; this is not, and equals no digest


def failures_of(records: Sequence[ShardRecord]) -> dict[int, str]:
    """Return the failed rows of a split with their reasons."""
    return {row: reason for record in records for row, reason in sorted(record.failures.items())}


def usable_counts(
    labels: npt.NDArray[np.int64], failures: Mapping[int, str], n_classes: int
) -> tuple[int, ...]:
    """Count the rows of each class that did not fail: labels (N,) -> (C)."""
    usable = np.ones(len(labels), bool)
    usable[list(failures)] = False
    return tuple(np.bincount(labels[usable], minlength=n_classes).tolist())
