"""What a finished store says about itself, sealed by a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.backends.contract import Sealed, damaged
from cache.errors import StoreFormatError
from cache.layout import FORMAT, VERSION, Header
from cache.shards import Shard, ShardRecord
from cache.strict_json import JSON, canonical


@dataclass(frozen=True)
class Catalogue:
    """Header, class counts and records: small, read whole when a store is opened."""

    header: Header
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

    @classmethod
    def read(cls, sealed: Sealed, path: Path) -> Catalogue:
        """Read and check everything but the arrays' values.

        Raises:
            StoreFormatError: this is no store of ours, or one of another version.
            CorruptStoreError: the parts do not agree with each other.
        """
        attributes = sealed.attributes()
        if (attributes.get("format"), attributes.get("version")) != (FORMAT, VERSION):
            Header.from_json(attributes, str(path))  # says what is wrong
        digest, counts = attributes.pop("digest", None), attributes.get("class_counts")
        splits = _split_names(attributes)
        texts = {split: sealed.read_texts(f"{split}/records") for split in splits}
        if digest != _digest(attributes, texts) or not isinstance(counts, list):
            raise damaged(path, "its header and records do not agree with their digest")
        del attributes["class_counts"]
        records = {
            split: tuple(
                ShardRecord.from_text(text, f"{path}: record {index} of '{split}'")
                for index, text in enumerate(texts[split])
            )
            for split in splits
        }
        class_counts = tuple(count for count in counts if isinstance(count, int))
        found = cls(Header.from_json(attributes, str(path)), class_counts, records)
        found._check(sealed, path)
        return found

    def _check(self, sealed: Sealed, path: Path) -> None:
        """Check that every row has its record, and every array its shape and type."""
        if len(self.class_counts) != len(self.header.class_names):
            raise StoreFormatError(f"{path}: class_counts and class_names differ in length.")
        for split in self.header.splits:
            expected = self.header.shards(split.name)
            if tuple(record.shard for record in self.records[split.name]) != expected:
                raise damaged(path, f"the records of split '{split.name}' do not cover its rows")
        for array in self.header.all_arrays().values():
            found = sealed.shape_and_dtype(array.path)
            if found != (array.shape, array.dtype):
                shape, dtype = found
                raise damaged(
                    path,
                    f"'{array.path}' is {shape} {dtype} instead of {array.shape} {array.dtype}",
                )


def _split_names(attributes: Mapping[str, JSON]) -> list[str]:
    """Read the splits' names ahead of the strict reading, which the digest must precede."""
    splits = attributes.get("splits")
    entries = splits if isinstance(splits, list) else []
    names = [entry.get("name") for entry in entries if isinstance(entry, Mapping)]
    return [name for name in names if isinstance(name, str)]


def _digest(attributes: Mapping[str, JSON], records: Mapping[str, Sequence[str]]) -> str:
    """Return the sha256 over everything that the other digests hang on."""
    try:
        text = canonical([attributes, dict(records)])
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
    except (TypeError, ValueError):
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
