"""The unfinished store as a folder beside the finished one; Zarr and HDF5 share it.

NAME.partial/
    draft.json      the header, and whether an older store is to be replaced
    records/        one JSON file for each complete shard
    lock            held by whoever writes
    DATA            the shards, as the backend keeps them
    replaced        the older store, for the instant between two renames
"""

from __future__ import annotations

import errno
import glob
import shutil
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from cache.backends.contract import Backend, Draft
from cache.damage import reading
from cache.errors import (
    StoreError,
    StoreExistsError,
    StoreFormatError,
    StoreLockedError,
    StoreNotFoundError,
)
from cache.files import fsync, fsync_tree, write_durably, writing
from cache.layout import Header
from cache.locks import Lock
from cache.records import Record
from cache.shards import Shard, ShardRecord
from cache.strict_json import canonical, parse


def draft_folder(path: Path) -> Path:
    """Return the folder in which the unfinished store `path` lives."""
    return path.with_name(f"{path.name}.partial")


class FolderDraft(Draft):
    """Records and publication of a draft that is a folder.

    Args:
        path: the finished store to be.
        header: what the store will hold.
        replaces: whether an older store may be replaced.
        lock: the hold on it, where there is one already.
    """

    def __init__(
        self, path: Path, header: Header, *, replaces: bool, lock: Lock | None = None
    ) -> None:
        super().__init__(header, replaces=replaces)
        self.path = path
        self.folder = draft_folder(path)
        self._shards = set(header.shards())
        self._lock = lock

    def hold(self, invitation: str | None = None) -> None:
        """See `Draft`."""
        file = self.folder / "lock"
        with writing(self.path):
            # A draft gets its name with its lock in it, and loses draft.json before its lock.
            if not _is_plain(file) and (self.folder / "draft.json").is_file():
                raise StoreError(
                    f"{file} is missing or no plain file, so nobody can be kept out: put an empty "
                    "file there if no other process writes this store, or start anew with "
                    "--overwrite."
                )
            try:
                lock = Lock(file, self.path, invitation)
            except FileNotFoundError:
                raise _gone(self.path) from None
            if not lock.covers(file):
                lock.release()
                raise _gone(self.path)
        self._lock = lock

    def share(self) -> str:
        """See `Draft`."""
        return self._held().share()

    def alone(self) -> bool:
        """See `Draft`."""
        return self._held().alone()

    def _held(self) -> Lock:
        if self._lock is None:
            raise StoreError(f"{self.path}: the unfinished store is not held for writing.")
        return self._lock

    def close(self) -> None:
        """See `Draft`."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _record_file(self, shard: Shard) -> Path:
        return self.folder / "records" / f"{shard.name}.json"

    def put_record(self, record: ShardRecord) -> None:
        """See `Draft`."""
        with writing(self.path):
            write_durably(self._record_file(record.shard), record.to_text().encode("utf-8"))

    def drop_record(self, shard: Shard) -> None:
        """See `Draft`."""
        with writing(self.path):
            file = self._record_file(shard)
            if file.exists():
                file.unlink()
                fsync(file.parent)

    def records(self) -> dict[Shard, ShardRecord]:
        """See `Draft`."""
        found: dict[Shard, ShardRecord] = {}
        for file in (self.folder / "records").glob("[!.]*.json"):
            try:
                record = ShardRecord.from_text(file.read_bytes(), str(file))
            except (StoreFormatError, OSError):
                continue  # a record that cannot be read vouches for nothing
            if record.shard in self._shards and file == self._record_file(record.shard):
                found[record.shard] = record
        return found

    @property
    @abstractmethod
    def assembled(self) -> Path:
        """What `assemble` makes, a file or a folder, durable already."""

    def publish(self) -> None:
        """See `Draft`."""
        with writing(self.path):
            if self.path.exists() and not self.replaces:
                raise StoreExistsError(
                    f"{self.path} came up while its store was being written, and is left alone. "
                    "Move it away and finish with --resume."
                )
            # A folder cannot be renamed over another: the old one steps aside first.
            if self.path.is_dir():
                self.path.rename(self.folder / "replaced")
            self.assembled.rename(self.path)
            fsync(self.path.parent)
            discard(self.folder)
        self.close()


class FolderBackend(Backend):
    """Creation and removal of drafts that are folders."""

    data: ClassVar[str]
    """Name of the folder in a draft that holds the shards."""
    draft_type: ClassVar[type[FolderDraft]]

    def has_sealed(self, path: Path) -> bool:
        """See `Backend`."""
        with reading(path, "its folder"):
            return path.exists() or path.is_symlink()

    def has_draft(self, path: Path) -> bool:
        """See `Backend`."""
        folder = draft_folder(path)
        with reading(path, "its folder"):
            # Without one of the two it is the rest of a draft that was published or thrown away.
            return (folder / "draft.json").is_file() and (folder / self.data).is_dir()

    def n_bytes(self, path: Path) -> int:
        """See `Backend`."""
        place = path if self.has_sealed(path) else draft_folder(path)
        files = place.rglob("*") if place.is_dir() else (place,)
        return sum(file.stat().st_size for file in files if file.is_file())

    @abstractmethod
    def make_data(self, folder: Path, header: Header) -> None:
        """Make the folder that holds the shards, without any shard."""

    def create_draft(self, path: Path, header: Header, *, replaces: bool) -> FolderDraft:
        """See `Backend`."""
        if not path.parent.is_dir():
            raise StoreError(f"{path}: the folder {path.parent} does not exist; create it first.")
        with writing(path):
            if replaces or not self.has_draft(path):
                self.discard_draft(path)
            _sweep(path)
            working = path.with_name(f".{path.name}.{uuid4().hex}")
            working.mkdir()
            try:
                (working / "lock").touch()
                lock = Lock(working / "lock", path)  # held before anybody can see the draft
                (working / "records").mkdir()
                self.make_data(working / self.data, header)
                draft = canonical(_Begun(header, replaces).to_json())
                write_durably(working / "draft.json", draft.encode("utf-8"))
                fsync_tree(working)
                _give_name(working, path)
            except BaseException:
                shutil.rmtree(working, ignore_errors=True)
                raise
            fsync(path.parent)
            return self.draft_type(path, header, replaces=replaces, lock=lock)

    def open_draft(self, path: Path) -> FolderDraft:
        """See `Backend`."""
        file = draft_folder(path) / "draft.json"
        try:
            text = file.read_bytes()
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error.strerror}).") from None
        try:
            found = _Begun.from_json(parse(text, str(file)), str(file))
        except StoreFormatError as error:
            raise StoreFormatError(f"{error} Start anew with --overwrite.") from None
        return self.draft_type(path, found.header, replaces=found.replaces)

    def discard_draft(self, path: Path) -> None:
        """See `Backend`."""
        folder = draft_folder(path)
        if not folder.exists() and not folder.is_symlink():
            return
        ours = {"draft.json", "records", "lock", self.data, "assembled.h5", "replaced"}
        if not folder.is_dir() or {entry.name for entry in folder.iterdir()} - ours:
            raise StoreExistsError(
                f"{folder} stands where the unfinished store would, and is something else or holds "
                "other things. Move it away."
            )
        lock = Lock(folder / "lock", path) if _is_plain(folder / "lock") else None
        try:
            # A crash between the two renames of a publication: the older store goes back first.
            if (folder / "replaced").exists() and not path.exists():
                (folder / "replaced").rename(path)
                fsync(path.parent)
            discard(folder)
        finally:
            if lock is not None:
                lock.release()


def _give_name(working: Path, path: Path) -> None:
    """Rename a draft that is whole to the name of drafts."""
    try:
        working.rename(draft_folder(path))
    except OSError as error:
        # Two began at the same moment, and a folder is not renamed over one that holds something.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise StoreLockedError(
                f"{path} was begun by another process at the same moment: wait until that is "
                "finished, or stop it."
            ) from None
        raise


def _sweep(path: Path) -> None:
    """Remove what processes left behind that were killed while they made a draft."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        with suppress(OSError, StoreLockedError):  # one that is held is being made just now
            lock = Lock(left / "lock", path)
            shutil.rmtree(left, ignore_errors=True)
            lock.release()


@dataclass(frozen=True)
class _Begun(Record):
    """What `draft.json` says."""

    header: Header
    """Of the store to be."""
    replaces: bool
    """Whether an older store is to be replaced."""


def _is_plain(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _gone(path: Path) -> StoreNotFoundError:
    return StoreNotFoundError(
        f"{path}: the unfinished store has just been finished or thrown away by another process."
    )


def discard(folder: Path) -> None:
    """Remove a draft; whatever a crash leaves of it is no draft any more."""
    (folder / "draft.json").unlink(missing_ok=True)
    shutil.rmtree(folder)
