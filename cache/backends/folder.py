"""The unfinished store as a folder beside the finished one; Zarr and HDF5 share it.

NAME.partial/
    draft.json      the header, and whether an older store is to be replaced
    records/        one JSON file for each complete shard
    DATA            the shards, as the backend keeps them
    replaced        the older store, for the instant between two renames
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from cache.backends.contract import Backend, Draft
from cache.backends.files import fsync, fsync_tree, write_durably, writing
from cache.errors import StoreError, StoreExistsError, StoreFormatError
from cache.layout import Header
from cache.shards import Shard, ShardRecord
from cache.strict_json import Fields, canonical, parse


def draft_folder(path: Path) -> Path:
    """Return the folder in which the unfinished store ``path`` lives."""
    return path.with_name(f"{path.name}.partial")


class FolderDraft(Draft):
    """Records and publication of a draft that is a folder.

    Args:
        path: the finished store to be.
        header: what the store will hold.
        replaces: whether an older store may be replaced.
    """

    def __init__(self, path: Path, header: Header, *, replaces: bool) -> None:
        super().__init__(header, replaces=replaces)
        self.path = path
        self.folder = draft_folder(path)
        self._shards = set(header.shards())

    def _record_file(self, shard: Shard) -> Path:
        return self.folder / "records" / f"{shard.name}.json"

    def put_record(self, record: ShardRecord) -> None:
        """See :class:`Draft`."""
        with writing(self.path):
            write_durably(self._record_file(record.shard), record.to_text().encode("utf-8"))

    def drop_record(self, shard: Shard) -> None:
        """See :class:`Draft`."""
        with writing(self.path):
            file = self._record_file(shard)
            if file.exists():
                file.unlink()
                fsync(file.parent)

    def records(self) -> dict[Shard, ShardRecord]:
        """See :class:`Draft`."""
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
        """What :meth:`assemble` makes, a file or a folder, durable already."""

    def publish(self) -> None:
        """See :class:`Draft`."""
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


class FolderBackend(Backend):
    """Creation and removal of drafts that are folders."""

    data: ClassVar[str]
    """Name of the folder in a draft that holds the shards."""
    draft_type: ClassVar[type[FolderDraft]]

    def has_sealed(self, path: Path) -> bool:
        """See :class:`Backend`."""
        return path.exists() or path.is_symlink()

    def has_draft(self, path: Path) -> bool:
        """See :class:`Backend`."""
        folder = draft_folder(path)
        # Without one of the two it is the rest of a draft that was published or thrown away.
        return (folder / "draft.json").is_file() and (folder / self.data).is_dir()

    @abstractmethod
    def make_data(self, folder: Path, header: Header) -> None:
        """Make the folder that holds the shards, without any shard."""

    def create_draft(self, path: Path, header: Header, *, replaces: bool) -> FolderDraft:
        """See :class:`Backend`."""
        if not path.parent.is_dir():
            raise StoreError(f"{path}: the folder {path.parent} does not exist; create it first.")
        with writing(path):
            if replaces or not self.has_draft(path):
                self.discard_draft(path)
            working = path.with_name(f".{path.name}.{uuid4().hex}")
            working.mkdir()
            try:
                (working / "records").mkdir()
                self.make_data(working / self.data, header)
                draft = canonical({"header": header.to_json(), "replaces": replaces})
                write_durably(working / "draft.json", draft.encode("utf-8"))
                fsync_tree(working)
                working.rename(draft_folder(path))
            except BaseException:
                shutil.rmtree(working, ignore_errors=True)
                raise
            fsync(path.parent)
            return self.draft_type(path, header, replaces=replaces)

    def open_draft(self, path: Path) -> FolderDraft:
        """See :class:`Backend`."""
        file = draft_folder(path) / "draft.json"
        try:
            text = file.read_bytes()
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error.strerror}).") from None
        try:
            found = Fields(parse(text, str(file)), str(file), ("header", "replaces"))
            header = Header.from_json(found.mapping("header"), str(draft_folder(path)))
            replaces = found.flag("replaces")
        except StoreFormatError as error:
            raise StoreFormatError(f"{error} Start anew with --overwrite.") from None
        return self.draft_type(path, header, replaces=replaces)

    def discard_draft(self, path: Path) -> None:
        """See :class:`Backend`."""
        folder = draft_folder(path)
        if not folder.exists():
            return
        ours = {"draft.json", "records", self.data, "assembled.h5", "replaced"}
        if not folder.is_dir() or {entry.name for entry in folder.iterdir()} - ours:
            raise StoreExistsError(
                f"{folder} stands where the unfinished store would, and holds other things. "
                "Move it away."
            )
        # A crash between the two renames of a publication: the older store goes back first.
        if (folder / "replaced").exists() and not path.exists():
            (folder / "replaced").rename(path)
            fsync(path.parent)
        discard(folder)


def discard(folder: Path) -> None:
    """Remove a draft; whatever a crash leaves of it is no draft any more."""
    (folder / "draft.json").unlink(missing_ok=True)
    shutil.rmtree(folder)
