"""A damaged store becomes an unfinished one that lacks the damaged shards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cache.backends import backend_for
from cache.backends.contract import Backend, Draft, Sealed
from cache.catalogue import Catalogue, salvage_catalogue
from cache.errors import CorruptStoreError, StoreExistsError, StoreFormatError, StoreNotFoundError
from cache.layout import Header
from cache.shards import Shard, ShardRecord, array_digest
from cache.strict_json import JSON


@dataclass(frozen=True)
class Reopened:
    """What a repair found."""

    header: Header
    """What the store holds."""
    kept: tuple[Shard, ...]
    """Shards of which every byte is as recorded, or that an interrupted repair had computed."""
    lost: tuple[Shard, ...]
    """Shards to compute again."""

    @property
    def provenance(self) -> dict[str, JSON]:
        """Whatever the store's maker noted."""
        return dict(self.header.provenance)


def reopen_store(
    path: Path | str, *, on_shard: Callable[[int, int], None] | None = None
) -> Reopened:
    """Begin to repair a store: every shard that is as recorded goes into an unfinished store.

    `extract --resume` computes the others and seals. Until then the damaged store stays as it is;
    a repair that was begun, and killed at any time, is gone on with. Labels, ids, class names and
    the old head are not taken over: they come again from the images and the checkpoint, and must
    agree with the store's identity.

    Args:
        path: a finished store.
        on_shard: called with the number of shards looked at, and of all.

    Raises:
        StoreNotFoundError: no finished store stands at `path`.
        StoreExistsError: another extraction into `path` was begun and is not finished.
        StoreLockedError: another process is writing it.
        CorruptStoreError: nothing says any more what it held.
        StoreError: the disk does not take the unfinished store.
    """
    path = Path(path)
    backend = _backend_to_repair(path)
    with _open(backend, path) as sealed:
        catalogue = salvage_catalogue(sealed, backend.read_spare(path), path)
        with _unfinished(backend, path, catalogue.header) as draft:
            return _take_over(draft, sealed, catalogue, on_shard)


def salvage_header(path: Path | str) -> Header:
    """What a store, which may be damaged, says that it holds; a repair is not begun by that.

    Raises:
        StoreNotFoundError: no finished store stands at `path`.
        StoreExistsError: another extraction into `path` was begun and is not finished.
        CorruptStoreError: nothing says any more what it held.
    """
    path = Path(path)
    backend = _backend_to_repair(path)
    with _open(backend, path) as sealed:
        header = salvage_catalogue(sealed, backend.read_spare(path), path).header
    if backend.has_draft(path):
        with backend.open_draft(path) as draft:
            _require_repair(draft, path, header)
    return header


def _backend_to_repair(path: Path) -> Backend:
    """The backend of a store that is or was finished."""
    backend = backend_for(path)
    if not backend.has_sealed(path):
        raise StoreNotFoundError(f"{path}: there is no finished store here to repair.")
    return backend


def _unfinished(backend: Backend, path: Path, header: Header) -> Draft:
    """The unfinished store of a repair that was begun, or a new one; held."""
    if not backend.has_draft(path):
        return backend.create_draft(path, header, replaces=True)
    draft = backend.open_draft(path)
    try:
        _require_repair(draft, path, header)
        draft.hold()
    except BaseException:
        draft.close()
        raise
    return draft


def _require_repair(draft: Draft, path: Path, header: Header) -> None:
    """Refuse an unfinished store that will be another one than the damaged store was."""
    if draft.replaces and draft.header.to_json() == header.to_json():
        return
    raise StoreExistsError(
        f"{path}: another extraction was begun here; finish it with: "
        f"nolb extract ... --out {path} --resume"
    )


def _open(backend: Backend, path: Path) -> AbstractContextManager[Sealed | None]:
    """Open what can be opened; the catalogue decides whether it was a store of ours."""
    try:
        return backend.open_sealed(path)
    except (CorruptStoreError, StoreFormatError):
        return nullcontext()


def _take_over(
    draft: Draft,
    sealed: Sealed | None,
    catalogue: Catalogue,
    on_shard: Callable[[int, int], None] | None,
) -> Reopened:
    kept: list[Shard] = []
    lost: list[Shard] = []
    records = [record for split in catalogue.records.values() for record in split]
    done = draft.records()  # by this repair, before it was interrupted
    for record in records:
        whole = record.shard in done or _is_whole(draft, sealed, record)
        if whole and record.shard not in done:
            draft.put_record(record)
        (kept if whole else lost).append(record.shard)
        if on_shard is not None:
            on_shard(len(kept) + len(lost), len(records))
    return Reopened(catalogue.header, tuple(kept), tuple(lost))


def _is_whole(draft: Draft, sealed: Sealed | None, record: ShardRecord) -> bool:
    """Take a shard over and tell whether it is as recorded."""
    try:
        draft.adopt(sealed, record.shard)
        return all(
            array_digest(draft.read(record.shard, name)) == record.arrays.get(name)
            for name in draft.header.shard_arrays(record.shard.split)
        )
    except CorruptStoreError:
        return False
