"""A store against its records: quickly, object by object, or in full, byte by byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cache.backends.contract import Sealed
from cache.catalogue import Catalogue, usable_counts
from cache.errors import CorruptStoreError
from cache.identity import ids_digest, samples_digest
from cache.layout import SPARE
from cache.shards import Shard, ShardRecord
from cache.store import Split, Store, open_store


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it was written."""

    message: str
    """One sentence."""
    shard: Shard | None = None
    """The shard to write again; None where the damage lies outside the shards."""

    def __str__(self) -> str:
        return self.message


def verify_store(path: Path | str, *, full: bool = True) -> list[Problem]:
    """Compare a finished store with its records.

    Args:
        path: the store.
        full: read every byte; otherwise see only that every shard has its place and size.

    Returns:
        What is wrong, in the order of the store; empty where all is as written.

    Raises:
        StoreNotFoundError: nothing stands at `path`.
        IncompleteStoreError: only an unfinished store does.
        StoreFormatError: what stands there is no nolb store.
    """
    try:
        store = open_store(path)
    except CorruptStoreError as error:
        return [Problem(str(error))]
    with store:
        return list(_problems(store) if full else _losses(store))


def verify_sealed(sealed: Sealed, path: Path) -> list[Problem]:
    """Verify in full a store that does not stand under its name yet."""
    try:
        store = Store(path, sealed, Catalogue.read(sealed, path))
    except CorruptStoreError as error:
        return [Problem(str(error))]
    return list(_problems(store))


def _losses(store: Store) -> Iterator[Problem]:
    """Look at the places of the shards alone."""
    for name in store.splits:
        for array in store.header.shard_arrays(name).values():
            for record in store[name].records:
                try:
                    why = store.sealed.lost(array, record.shard)
                except CorruptStoreError as error:
                    why = str(error)
                if why is not None:
                    yield Problem(f"{store.path}: {record.shard}: {why}", record.shard)


def _problems(store: Store) -> Iterator[Problem]:
    found = list(_content_problems(store))
    yield from found
    if not found:  # otherwise it is these that the whole's digest would complain about
        for what in store.sealed.frame_problems():
            yield Problem(f"{store.path}: {what}")


def _content_problems(store: Store) -> Iterator[Problem]:
    yield from _complaint(lambda: store.classifier)
    yield from _complaint(lambda: _check_spare(store))
    for name in store.splits:
        yield from _sample_problems(store, store[name])
        for record in store[name].records:
            yield from _shard_problems(store[name], record)


def _check_spare(store: Store) -> None:
    """Compare the two copies of the catalogue."""
    texts = store.sealed.read_texts(SPARE)
    if texts != [Catalogue.read_unchecked(store.sealed, store.path).to_text()]:
        raise CorruptStoreError(f"{store.path}: the second copy of its catalogue differs.")


def _sample_problems(store: Store, split: Split) -> Iterator[Problem]:
    """Compare labels, ids, failed rows and class counts with header and records."""
    unreadable = [
        *_complaint(lambda: split.labels),
        *_complaint(lambda: split.ids),
        *_complaint(split.check_failed),
    ]
    yield from unreadable
    if unreadable:
        return
    if store.identity.samples.get(split.name) != samples_digest(split.ids, split.labels):
        yield Problem(f"{store.path}: the samples of '{split.name}' are not those of its identity")
    counts = usable_counts(split.labels, split.failed, len(store.class_names))
    if split.name == "train" and counts != tuple(store.class_counts.tolist()):
        yield Problem(f"{store.path}: class_counts are not the counts of the usable training rows")
    for record in split.records:
        if record.ids != ids_digest(split.ids[record.start : record.stop]):
            yield Problem(f"{store.path}: {record.shard} was computed for other samples")


def _shard_problems(split: Split, record: ShardRecord) -> Iterator[Problem]:
    for name in split.shard_arrays:
        yield from _complaint(partial(split.check_shard, name, record), record.shard)


def _complaint(read: Callable[[], object], shard: Shard | None = None) -> Iterator[Problem]:
    try:
        read()
    except CorruptStoreError as error:
        yield Problem(str(error), shard)
