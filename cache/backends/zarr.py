"""Zarr 3: a folder of objects; every shard of an array is one object with its own checksums."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from cache.backends.contract import Array, Contents, Sealed
from cache.backends.folder import FolderBackend, FolderDraft
from cache.backends.places import Folder
from cache.backends.zarr_format import (
    make_arrays,
    object_names,
    open_group,
    read_shard,
    read_spare,
    shard_arrays,
    write_small_parts,
)
from cache.backends.zarr_sealed import ZarrSealed
from cache.damage import reading
from cache.errors import StoreFormatError
from cache.files import fsync, fsync_tree, writing
from cache.layout import Header
from cache.locks import Lock
from cache.shards import Shard


class ZarrDraft(FolderDraft):
    """The store itself under a working name; a shard is written by adding its objects."""

    def __init__(
        self, path: Path, header: Header, *, replaces: bool, lock: Lock | None = None
    ) -> None:
        super().__init__(path, header, replaces=replaces, lock=lock)
        with reading(path, "the unfinished store"):
            group = open_group(Folder(self.assembled), read_only=False)
            self._arrays = shard_arrays(group, header)
        self._group = group

    @property
    def assembled(self) -> Path:
        """See `FolderDraft`."""
        return self.folder / ZarrBackend.data

    def write(self, shard: Shard, arrays: Mapping[str, Array]) -> None:
        """See `Draft`."""
        layouts = self.header.shard_arrays(shard.split)
        with writing(self.path):
            for name, values in arrays.items():
                array = layouts[name]
                files = [self.assembled / name for name in object_names(array, shard)]
                # The last shard is shorter than its object, so zarr would first read an old one,
                # which may be damaged.
                for file in files:
                    file.unlink(missing_ok=True)
                self._arrays[array.path][array.index(shard.rows)] = values
                # Zarr renames its files into place, but leaves them to the page cache.
                for file in files:
                    fsync(file)
                fsync(self.assembled / array.path)

    def read(self, shard: Shard, name: str) -> Array:
        """See `Draft`."""
        return read_shard(self._arrays, self.header, shard, name, self.path)

    def adopt(self, sealed: Sealed | None, shard: Shard) -> None:  # noqa: ARG002  # files suffice
        """See `Draft`."""
        with writing(self.path):
            for array in self.header.shard_arrays(shard.split).values():
                for name in object_names(array, shard):
                    old, new = self.path / name, self.assembled / name
                    new.unlink(missing_ok=True)
                    if old.is_file():
                        # Objects are replaced, never changed, so both stores may own one.
                        _link_or_copy(old, new)
                        fsync(new)
                fsync(self.assembled / array.path)

    def assemble(self, contents: Contents) -> Sealed:
        """See `Draft`."""
        with writing(self.path):
            write_small_parts(self._group, Folder(self.assembled), self.header, contents)
            # What a killed process left of an object; zarr gives such files this suffix.
            for orphan in self.assembled.rglob("*.partial"):
                orphan.unlink()
            self._fsync_small_parts()
        return ZarrSealed(Folder(self.assembled), self.path)

    def _fsync_small_parts(self) -> None:
        """Make all but the shards durable: those are, and there may be very many of them."""
        for path in self.header.small_arrays():
            fsync_tree(self.assembled / path)
        for group in ("classifier", *(split.name for split in self.header.splits), "."):
            fsync(self.assembled / group / "zarr.json")
            fsync(self.assembled / group)


class ZarrBackend(FolderBackend):
    """Stores in folders with the suffix ".zarr"."""

    data: ClassVar[str] = "store"
    draft_type: ClassVar[type[FolderDraft]] = ZarrDraft

    def make_data(self, folder: Path, header: Header) -> None:
        """See `FolderBackend`."""
        make_arrays(Folder(folder), header)

    def open_sealed(self, path: Path) -> Sealed:
        """See `Backend`."""
        if not path.is_dir():
            raise StoreFormatError(f"{path} is a file; a Zarr store is a folder.")
        if not (path / "zarr.json").exists():
            raise StoreFormatError(
                f"{path} is a folder, but no Zarr 3 store (it has no zarr.json)."
            )
        return ZarrSealed(Folder(path), path)

    def read_spare(self, path: Path) -> str | None:
        """See `Backend`."""
        return read_spare(Folder(path), path)


def _link_or_copy(old: Path, new: Path) -> None:
    try:
        new.hardlink_to(old)
    except OSError:  # another file system, or one without links
        shutil.copyfile(old, new)
