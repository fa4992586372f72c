"""Zarr 3: a folder of objects; every shard of an array is one object with its own checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from cache.backends.contract import Array, Contents, Sealed, damaged, numpy_name, reading
from cache.backends.files import fsync, fsync_tree, writing
from cache.backends.folder import FolderBackend, FolderDraft
from cache.backends.locks import Lock
from cache.errors import CorruptStoreError, StoreFormatError
from cache.layout import SPARE, STRING, ArrayLayout, Header
from cache.shards import Shard
from cache.strict_json import JSON, MOST_BYTES

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.array_spec import ArrayConfigParams  # its only place; nothing at run time

_FILL: dict[str, Any] = {STRING: "", "int64": -1}  # of numbers NaN: what is lost looks like nothing

_METADATA = "metadata"  # attribute of the root; no part of what the store says
_CRC, _INDEX_ENTRY = 4, 16  # bytes of a crc32c, and of a chunk's place within its shard

# Without this an all-zero chunk would not be stored, and could not be told from a lost one.
_WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}


def open_group(place: Place, *, read_only: bool) -> zarr.Group:
    """Open the root of a store."""
    store = place.store(read_only=read_only)
    # An array that is opened, not created, takes this setting from the global configuration.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_group(store, mode="r" if read_only else "r+", zarr_format=3)


def open_array(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """Open an array that is there."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        found = group[path]
    if not isinstance(found, zarr.Array):
        raise TypeError(f"{path} is a group")
    return found


def create_array(group: zarr.Group, array: ArrayLayout) -> zarr.Array[Any]:
    """Make an array."""
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


def write_small_parts(group: zarr.Group, place: Place, header: Header, contents: Contents) -> None:
    """Write everything but the shards."""
    for path, array in header.small_arrays().items():
        values = contents.arrays[path]
        texts = np.array(values, dtype=object) if array.dtype == STRING else values
        create_array(group, array)[...] = texts
    # The root comes last: its attributes hold a digest of the others' metadata.
    for name, attributes in sorted(contents.attributes.items(), reverse=True):
        target = group[name] if name else group
        frame = {} if name else {_METADATA: metadata_digest(place)}
        target.attrs.put(dict(attributes) | frame)


def make_arrays(store: ZarrStore, header: Header) -> None:
    """Make the root and the arrays that are filled shard by shard."""
    group = zarr.create_group(store, zarr_format=3)
    for split in header.splits:
        for array in header.shard_arrays(split.name).values():
            create_array(group, array)


def shard_arrays(group: zarr.Group, header: Header) -> dict[str, zarr.Array[Any]]:
    """Open the arrays that are filled shard by shard, by their path."""
    return {
        array.path: open_array(group, array.path)
        for split in header.splits
        for array in header.shard_arrays(split.name).values()
    }


def metadata_digest(place: Place) -> str:
    """Return the sha256 over the zarr.json files of all groups and arrays below the root."""
    digest = hashlib.sha256()
    for name, content in sorted(place.metadata().items()):
        digest.update(b"%d:%b%d:%b" % (len(name), name.encode(), len(content), content))
    return digest.hexdigest()


def _link_or_copy(old: Path, new: Path) -> None:
    try:
        new.hardlink_to(old)
    except OSError:  # another file system, or one without links
        shutil.copyfile(old, new)


def _codecs(array: ArrayLayout) -> list[dict[str, Any]]:
    """Return the codecs of an array as they stand in its zarr.json."""
    checksum = {"name": "crc32c"}
    if array.dtype == STRING:
        return [{"name": "vlen-utf8", "configuration": {}}, checksum]
    plain: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        checksum,
    ]
    if array.shard is None:
        return plain
    settings = {
        "chunk_shape": list(array.chunk), "codecs": plain, "index_codecs": plain,
        "index_location": "end",
    }  # fmt: skip
    return [{"name": "sharding_indexed", "configuration": settings}]


def _named(codecs: Any) -> Any:
    """Fill in the empty configuration that some versions of zarr leave out."""
    return [
        {"name": codec["name"], "configuration": _nested(codec.get("configuration") or {})}
        for codec in codecs
    ]


def _nested(settings: dict[str, Any]) -> dict[str, Any]:
    inner = {key: _named(settings[key]) for key in ("codecs", "index_codecs") if key in settings}
    return settings | inner


def _object_bytes(array: ArrayLayout, shard: Shard) -> int:
    """Return the size of a shard's object: its chunks and their index, each with a crc32c."""
    assert array.shard is not None, "only sharded arrays have shards"  # noqa: S101
    rows = array.chunk[array.row_axis]
    chunk_bytes = int(np.prod(array.chunk)) * np.dtype(array.dtype).itemsize
    n_chunks = array.shard[array.row_axis] // rows
    written = -(-shard.n_rows // rows)
    return written * (chunk_bytes + _CRC) + n_chunks * _INDEX_ENTRY + _CRC


def object_names(array: ArrayLayout, shard: Shard) -> list[str]:
    """Return the names of the objects that hold a shard's rows: one, or one for each view."""
    if array.row_axis == 0:
        return [f"{array.path}/c.{shard.index}.0"]
    return [f"{array.path}/c.{view}.{shard.index}.0" for view in range(array.shape[0])]


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
        """See :class:`FolderDraft`."""
        return self.folder / ZarrBackend.data

    def write(self, shard: Shard, arrays: Mapping[str, Array]) -> None:
        """See :class:`Draft`."""
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
        """See :class:`Draft`."""
        array = self.header.shard_arrays(shard.split)[name]
        with reading(self.path, str(shard)):
            return np.asarray(self._arrays[array.path][array.index(shard.rows)])

    def adopt(self, sealed: Sealed | None, shard: Shard) -> None:  # noqa: ARG002 - files suffice
        """See :class:`Draft`."""
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
        """See :class:`Draft`."""
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


def read_spare(place: Place, path: Path) -> str | None:
    """Return the second copy of the catalogue, which needs nothing else of the store."""
    try:
        with reading(path, "the spare catalogue"):
            array = zarr.open_array(place.store(read_only=True), path=SPARE, mode="r")
            return "".join(map(str, np.asarray(array[...]).tolist()))
    except CorruptStoreError:
        return None


class Place(ABC):
    """Where the objects of a Zarr store lie."""

    @abstractmethod
    def store(self, *, read_only: bool) -> ZarrStore:
        """Return the place as zarr knows it."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the bytes of an object, None where there is none; ValueError for no plain file."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return an object."""

    @abstractmethod
    def metadata(self) -> dict[str, bytes]:
        """Return the zarr.json of every group and array below the root, by name."""


class Folder(Place):
    """A folder of this machine's file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, *, read_only: bool) -> ZarrStore:
        """See :class:`Place`."""
        return LocalStore(self.folder, read_only=read_only)

    def size(self, name: str) -> int | None:
        """See :class:`Place`."""
        try:
            found = (self.folder / name).stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for without end
            raise ValueError(f"{name} is no plain file")
        return found.st_size

    def read(self, name: str) -> bytes:
        """See :class:`Place`."""
        return (self.folder / name).read_bytes()

    def metadata(self) -> dict[str, bytes]:
        """See :class:`Place`."""
        files = self.folder.glob("*/**/zarr.json")
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in files}


class ZarrSealed(Sealed):
    """A finished store.

    Args:
        place: where it lies.
        path: the name that errors give it.
    """

    def __init__(self, place: Place, path: Path) -> None:
        self._path = path
        self._place = place
        with reading(path, "zarr.json"):
            self._metadata(".")
            self._group = open_group(place, read_only=True)
        self._opened: dict[str, zarr.Array[Any]] = {}

    def _array(self, path: str) -> zarr.Array[Any]:
        if path not in self._opened:
            with reading(self._path, f"'{path}'"):
                self._metadata(path)
                self._opened[path] = open_array(self._group, path)
        return self._opened[path]

    def _metadata(self, path: str) -> bytes:
        """Return a zarr.json, if it is a file of a size that ours can have."""
        name = "zarr.json" if path == "." else f"{path}/zarr.json"
        size = self._place.size(name)
        if size is None or size > MOST_BYTES:
            raise ValueError(f"{name} is missing or larger than ours")
        return self._place.read(name)

    def attributes(self, group: str = "") -> dict[str, JSON]:
        """See :class:`Sealed`."""
        with reading(self._path, f"the attributes of '{group}'"):
            self._metadata(group or ".")
            found = self._group[group] if group else self._group
            attributes = dict(found.attrs.asdict())
            if not group:
                attributes.pop(_METADATA, None)
            return attributes

    def shape_and_dtype(self, path: str) -> tuple[tuple[int, ...], str]:
        """See :class:`Sealed`."""
        array = self._array(path)
        is_text = array.dtype.kind in "OTU"
        return tuple(array.shape), STRING if is_text else numpy_name(array.dtype)

    def frame_problems(self) -> list[str]:
        """See :class:`Sealed`."""
        with reading(self._path, "its zarr.json files"):
            root = json.loads(self._metadata("."))
            digest = root["attributes"].get(_METADATA)
            plain = {key: value for key, value in root.items() if key != "attributes"}
            # Some versions of zarr say that nothing is consolidated, others do not mention it.
            plain.pop("consolidated_metadata", None)
        if plain != {"zarr_format": 3, "node_type": "group"}:
            return ["zarr.json is not what was written"]
        if digest != metadata_digest(self._place):
            return ["the zarr.json files of its groups and arrays are not what was written"]
        return []

    def require_layout(self, array: ArrayLayout) -> None:
        """See :class:`Sealed`."""
        with reading(self._path, f"'{array.path}'"):
            found = json.loads(self._metadata(array.path))
            outer = array.shard or array.chunk
            same = (
                found["chunk_grid"]["configuration"]["chunk_shape"] == list(outer)
                and found["chunk_key_encoding"]["configuration"]["separator"] == "."
                and _named(found["codecs"]) == _named(_codecs(array))
            )  # fmt: skip
        if not same:
            raise damaged(self._path, f"'{array.path}' is not stored as nolb stores it")

    def lost(self, array: ArrayLayout, shard: Shard) -> str | None:
        """See :class:`Sealed`."""
        wanted = _object_bytes(array, shard)
        for name in object_names(array, shard):
            try:
                found = self._place.size(name)
            except ValueError as error:
                return str(error)
            if found is None:
                return f"{name} is missing"
            if found != wanted:
                return f"{name} has {found:,} bytes instead of {wanted:,}"
        return None

    def read(self, array: ArrayLayout, rows: slice, view: int | None = None) -> Array:
        """See :class:`Sealed`."""
        with reading(self._path, f"rows {rows.start} to {rows.stop - 1} of '{array.path}'"):
            index = array.index(rows) if view is None else (view, rows)
            return np.asarray(self._array(array.path)[index])

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
        make_arrays(LocalStore(folder), header)

    def open_sealed(self, path: Path) -> Sealed:
        """See :class:`Backend`."""
        if not path.is_dir():
            raise StoreFormatError(f"{path} is a file; a Zarr store is a folder.")
        if not (path / "zarr.json").exists():
            raise StoreFormatError(
                f"{path} is a folder, but no Zarr 3 store (it has no zarr.json)."
            )
        return ZarrSealed(Folder(path), path)

    def read_spare(self, path: Path) -> str | None:
        """See :class:`Backend`."""
        return read_spare(Folder(path), path)
