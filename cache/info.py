"""What a store, finished or not, says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.backends import backend_for
from cache.card import card
from cache.errors import StoreNotFoundError
from cache.layout import Header
from cache.store import open_store
from cache.strict_json import JSON


@dataclass(frozen=True)
class SplitInfo:
    """One split in numbers."""

    name: str
    """As in the store, "train" or another."""
    n_samples: int
    """N."""
    n_views: int
    """V, 0 where none are stored."""
    n_shards: int
    """Shards in all."""
    n_recorded: int
    """Shards that are complete."""
    n_failed: int
    """Rows whose image could not be read, in the shards that are complete."""


@dataclass(frozen=True)
class StoreInfo:
    """A store in numbers and words."""

    path: Path
    """Where it stands, or will stand."""
    complete: bool
    """Whether it is finished."""
    header: Header
    """What it holds."""
    class_counts: tuple[int, ...] | None
    """(C) usable training rows; None while the store is unfinished."""
    splits: tuple[SplitInfo, ...]
    """In the order of the store."""
    n_bytes: int
    """What it takes up on its disk."""
    unreadable: Mapping[str, Mapping[str, str]] | None
    """Why, by split and id, an image could not be read; None while the store is unfinished."""

    def to_json(self) -> dict[str, JSON]:
        """Return all of it as plain JSON values."""
        header = self.header
        splits: dict[str, JSON] = {
            split.name: {key: value for key, value in vars(split).items() if key != "name"}
            for split in self.splits
        }
        return {
            "path": str(self.path),
            "complete": self.complete,
            "bytes": self.n_bytes,
            "identity": header.identity.to_json(),
            "dtype": header.dtype,
            "feature_width": header.feature_width,
            "logits": "full" if header.store_logits else "recompute",
            "shard_rows": header.shard_rows,
            "splits": splits,
            "class_names": list(header.class_names),
            "class_counts": None if self.class_counts is None else list(self.class_counts),
            "unreadable": None if self.unreadable is None else dict(self.unreadable),
            "provenance": dict(header.provenance),
        }

    def card(self) -> str:
        """Return a dataset card in Markdown."""
        return card(self)


def describe_store(path: Path | str) -> StoreInfo:
    """Describe a store, finished or not.

    Raises:
        StoreNotFoundError: nothing stands at `path`.
        StoreFormatError: what stands there is no nolb store.
        CorruptStoreError: its header or its records are damaged.
    """
    path = Path(path)
    backend = backend_for(path)
    if backend.has_sealed(path):
        with open_store(path) as store:
            header, counts = store.header, tuple(store.class_counts.tolist())
            unreadable = {
                name: {store[name].ids[row]: why for row, why in store[name].failed.items()}
                for name in store.splits
            }
            records = {
                record.shard: record for name in store.splits for record in store[name].records
            }
    elif backend.has_draft(path):
        draft = backend.open_draft(path)
        header, counts, records = draft.header, None, draft.records()
        unreadable = None
    else:
        raise StoreNotFoundError(f"{path}: there is no store here, finished or not.")
    splits = []
    for split in header.splits:
        own = [record for shard, record in records.items() if shard.split == split.name]
        failed = sum(len(record.failures) for record in own)
        size = (split.n_samples, split.n_views, header.n_shards(split.name))
        splits.append(SplitInfo(split.name, *size, len(own), failed))
    sealed, size_on_disk = backend.has_sealed(path), backend.n_bytes(path)
    return StoreInfo(path, sealed, header, counts, tuple(splits), size_on_disk, unreadable)
