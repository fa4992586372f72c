"""Zarr 3: a folder of objects; every shard of an array is one object with its own checksums."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from cache.backends.contract import Array, Contents, Sealed, numpy_name, reading
from cache.backends.files import fsync, fsync_tree, writing
from cache.backends.folder import FolderBackend, FolderDraft
from cache.errors import StoreFormatError
from cache.layout import STRING, ArrayLayout, Header
from cache.shards import Shard
from cache.strict_json import JSON

if TYPE_CHECKING:
    from zarr.core.array_spec import ArrayConfigParams  # its only place; nothing at run time

_FILL: dict[str, Any] = {STRING: "", "int64": -1}  # of numbers NaN: what is lost looks like nothing

# Without this an all-zero chunk would not be stored, and could not be told from a lost one.
_WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}


def _group(folder: Path, *, read_only: bool) -> zarr.Group:
    store = LocalStore(folder, read_only=read_only)
    # An array that is opened, not created, takes this setting from the global configuration.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_group(store, mode="r" if read_only else "r+", zarr_format=3)


def _array(group: zarr.Group, path: str) -> zarr.Array[Any]:
    with zarr.config.set({"array.write_empty_chunks": True}):
        found = group[path]
    if not isinstance(found, zarr.Array):
        raise TypeError(f"{path} is a group")
    return found


def _create(group: zarr.Group, array: ArrayLayout) -> zarr.Array[Any]:
    return group.create_array(
        array.path,
        shape=array.shape,
        dtype="str" if array.dtype == STRING else array.dtype,
        chunks=array.chunk,
        shards=array.shard,
        fill_value=_FILL.get(array.dtype, np.nan),
        compressors=[Crc32cCodec()],
        # One folder for an array, so that one fsync makes all its objects' names durable.
        chunk_key_encoding={"name": "default", "separator": "."},
        config=_WRITE_ALL,
        overwrite=True,
    )


def _objects(array: ArrayLayout, shard: Shard) -> list[str]:
    """Return the names of the objects that hold a shard's rows: one, or one for each view."""
    if array.row_axis == 0:
        return [f"c.{shard.index}.0"]
    return [f"c.{view}.{shard.index}.0" for view in range(array.shape[0])]


class ZarrDraft(FolderDraft):
    """The store itself under a working name; a shard is written by adding its objects."""

    def __init__(self, path: Path, header: Header, *, replaces: bool) -> None:
        super().__init__(path, header, replaces=replaces)
        with reading(path, "the unfinished store"):
            group = _group(self.assembled, read_only=False)
            self._arrays = {
                array.path: _array(group, array.path)
                for split in header.splits
                for array in header.shard_arrays(split.name).values()
            }
        self._group = group

    @property
    def assembled(self) -> Path:
        """See :class:`FolderDraft`."""
        return self.folder / ZarrBackend.data

    def write(self, shard: Shard, arrays: Mapping[str, Array]) -> None:
        """See :class:`Draft`."""
        layouts = self.header.shard_arrays(shard.split)
        with writing(self.path):
            for name, values in arrays.items():
                array = layouts[name]
                files = [self.assembled / array.path / key for key in _objects(array, shard)]
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
        """See :class:`Draft`."""
        array = self.header.shard_arrays(shard.split)[name]
        with reading(self.path, str(shard)):
            return np.asarray(self._arrays[array.path][array.index(shard.rows)])

    def assemble(self, contents: Contents) -> Sealed:
        """See :class:`Draft`."""
        with writing(self.path):
            for path, array in self.header.small_arrays().items():
                values = contents.arrays[path]
                texts = np.array(values, dtype=object) if array.dtype == STRING else values
                _create(self._group, array)[...] = texts
            for group, attributes in contents.attributes.items():
                target = self._group[group] if group else self._group
                target.attrs.put(dict(attributes))
            # What a killed process left of an object; zarr gives such files this suffix.
            for orphan in self.assembled.rglob("*.partial"):
                orphan.unlink()
            self._fsync_small_parts()
        return ZarrSealed(self.assembled, self.path)

    def _fsync_small_parts(self) -> None:
        """Make all but the shards durable: those are, and there may be very many of them."""
        for path in self.header.small_arrays():
            fsync_tree(self.assembled / path)
        for group in ("classifier", *(split.name for split in self.header.splits), "."):
            fsync(self.assembled / group / "zarr.json")
            fsync(self.assembled / group)

    def close(self) -> None:
        """See :class:`Draft`."""


class ZarrSealed(Sealed):
    """A finished store.

    Args:
        folder: where it lies.
        path: the name that errors give it.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self._path = path
        if not folder.is_dir():
            raise StoreFormatError(f"{path} is a file; a Zarr store is a folder.")
        if not (folder / "zarr.json").exists():
            raise StoreFormatError(
                f"{path} is a folder, but no Zarr 3 store (it has no zarr.json)."
            )
        with reading(path, "zarr.json"):
            self._group = _group(folder, read_only=True)
        self._opened: dict[str, zarr.Array[Any]] = {}

    def _array(self, path: str) -> zarr.Array[Any]:
        if path not in self._opened:
            with reading(self._path, f"'{path}'"):
                self._opened[path] = _array(self._group, path)
        return self._opened[path]

    def attributes(self, group: str = "") -> dict[str, JSON]:
        """See :class:`Sealed`."""
        with reading(self._path, f"the attributes of '{group}'"):
            found = self._group[group] if group else self._group
            return dict(found.attrs.asdict())

    def shape_and_dtype(self, path: str) -> tuple[tuple[int, ...], str]:
        """See :class:`Sealed`."""
        array = self._array(path)
        is_text = array.dtype.kind in "OTU"
        return tuple(array.shape), STRING if is_text else numpy_name(array.dtype)

    def read(self, array: ArrayLayout, rows: slice) -> Array:
        """See :class:`Sealed`."""
        with reading(self._path, f"rows {rows.start} to {rows.stop - 1} of '{array.path}'"):
            return np.asarray(self._array(array.path)[array.index(rows)])

    def read_texts(self, path: str) -> list[str]:
        """See :class:`Sealed`."""
        with reading(self._path, f"'{path}'"):
            return [str(text) for text in np.asarray(self._array(path)[...]).tolist()]

    def close(self) -> None:
        """See :class:`Sealed`."""
        self._opened.clear()


class ZarrBackend(FolderBackend):
    """Stores in folders with the suffix ".zarr"."""

    data: ClassVar[str] = "store"
    draft_type: ClassVar[type[FolderDraft]] = ZarrDraft

    def make_data(self, folder: Path, header: Header) -> None:
        """See :class:`FolderBackend`."""
        group = zarr.create_group(LocalStore(folder), zarr_format=3)
        for split in header.splits:
            for array in header.shard_arrays(split.name).values():
                _create(group, array)

    def open_sealed(self, path: Path) -> Sealed:
        """See :class:`Backend`."""
        return ZarrSealed(path, path)
