"""HDF5: one immutable file for each shard, merged into a single file when all are there.

A file that grows is unreadable after a kill, so none does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import numpy as np

from cache.backends.contract import Array, Contents, Sealed, numpy_name
from cache.backends.folder import FolderBackend, FolderDraft
from cache.backends.hdf5_frame import (
    Frame,
    chunks_of,
    head_bytes,
    is_head_as_written,
    read_frame,
    why_no_frame,
    write_frame,
)
from cache.damage import damaged, reading
from cache.errors import CorruptStoreError, StoreFormatError
from cache.files import fsync, writing
from cache.layout import SPARE, STRING, ArrayLayout, Header
from cache.shards import Shard
from cache.strict_json import JSON, canonical, parse

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer
    from _typeshed import WriteableBuffer

_REFERENCE = 16  # bytes that stand for a text in an array: its length, its heap's place, its index
_TEXTS_AT_ONCE = 1 << 12
_TEXT = h5py.string_dtype("utf-8")


class _Deferred(io.RawIOBase):
    """A file that keeps its first error to itself.

    HDF5 that cannot write when it closes a file takes the process down with it. So a full disk is
    not told to HDF5, but to us, when it is done.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.error is None:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = error
        if rest:
            self._file.seek(len(rest), io.SEEK_CUR)
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self._file.tell() if size is None else size

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _creating(path: Path, **settings: Any) -> Iterator[h5py.File]:
    """Open a new file for writing; what the disk refused is raised at the end."""
    with closing(_Deferred(path)) as raw:
        with h5py.File(raw, "w", **settings) as file:
            yield file
        if raw.error is not None:
            raise raw.error


def _open(file: Path) -> h5py.File:
    # Our files never change once they have their name, so a reader needs no lock; taking one
    # would fail on read-only and on some network file systems.
    return h5py.File(file, "r", locking=False)


def _create(file: h5py.File, array: ArrayLayout) -> h5py.Dataset:
    if array.dtype == STRING:
        # Fletcher32 would cover only the references to the texts; the header has their sha256.
        return file.create_dataset(array.path, array.shape, _TEXT, chunks=array.chunk)
    fill = -1 if array.dtype == "int64" else np.nan
    return file.create_dataset(
        array.path, array.shape, array.dtype, chunks=array.chunk, fletcher32=True, fillvalue=fill
    )


class Hdf5Draft(FolderDraft):
    """A folder of shard files."""

    @property
    def assembled(self) -> Path:
        """See `FolderDraft`."""
        return self.folder / "assembled.h5"

    def _file(self, shard: Shard) -> Path:
        return self.folder / Hdf5Backend.data / f"{shard.name}.h5"

    def write(self, shard: Shard, arrays: Mapping[str, Array]) -> None:
        """See `Draft`."""
        target = self._file(shard)
        working = target.with_suffix(".working")
        with writing(self.path):
            with _creating(working) as file:
                for name, values in arrays.items():
                    file.create_dataset(name, data=values)
            fsync(working)
            working.replace(target)
            fsync(target.parent)

    def read(self, shard: Shard, name: str) -> Array:
        """See `Draft`."""
        with reading(self.path, str(shard)), _open(self._file(shard)) as file:
            return np.asarray(file[name][...])

    def adopt(self, sealed: Sealed | None, shard: Shard) -> None:
        """See `Draft`."""
        layouts = self.header.shard_arrays(shard.split)
        if sealed is not None:
            arrays = {name: sealed.read(array, shard.rows) for name, array in layouts.items()}
        else:
            arrays = {name: self._without_hdf5(array, shard) for name, array in layouts.items()}
        self.write(shard, arrays)

    @cached_property
    def _old_frame(self) -> Frame | None:
        """Where the shards of the finished store lie."""
        with reading(self.path, "the file"):
            return read_frame(self.path)

    def _without_hdf5(self, array: ArrayLayout, shard: Shard) -> Array:
        """Read a shard of a finished store that HDF5 cannot open."""
        if self._old_frame is None:
            raise damaged(self.path, "the file cannot be opened")
        with reading(self.path, str(shard)), self.path.open("rb") as raw:
            return self._old_frame.read_shard(raw, array, shard)

    def assemble(self, contents: Contents) -> Sealed:
        """See `Draft`."""
        catalogue = "".join(map(str, contents.arrays[SPARE]))
        sharded = [
            array
            for split in self.header.splits
            for array in self.header.shard_arrays(split.name).values()
        ]
        start = head_bytes(catalogue, sharded)
        with writing(self.path):
            with _creating(self.assembled, userblock_size=start) as file:
                self._fill(file, contents)
            write_frame(self.assembled, start, catalogue, chunks_of(self.assembled, sharded))
            fsync(self.assembled)
        return Hdf5Sealed(self.assembled, self.path)

    def _fill(self, file: h5py.File, contents: Contents) -> None:
        """Write everything that plain readers of HDF5 find."""
        for path, array in self.header.small_arrays().items():
            _create(file, array)[...] = contents.arrays[path]
        for split in self.header.splits:
            for name, array in self.header.shard_arrays(split.name).items():
                dataset = _create(file, array)
                for shard in self.header.shards(split.name):
                    dataset[array.index(shard.rows)] = self.read(shard, name)
        for group, attributes in contents.attributes.items():
            target = file[group] if group else file
            for key, value in attributes.items():
                target.attrs[key] = _to_attribute(value)


def _to_attribute(value: JSON) -> Any:
    """Store lists and objects as JSON text: HDF5 has no objects, and no lists above 64 KiB."""
    return canonical(value) if isinstance(value, list | tuple | dict) else value


def _from_attribute(value: Any, where: str) -> JSON:
    if isinstance(value, np.generic):
        plain: JSON = value.item()
        return plain
    if isinstance(value, str):
        return parse(value, where) if value[:1] in ("{", "[") else value
    raise TypeError(f"{where} is a {type(value).__name__}")


class Hdf5Sealed(Sealed):
    """A finished store.

    Args:
        file: where it lies.
        path: the name that errors give it.
    """

    def __init__(self, file: Path, path: Path) -> None:
        self._path = path
        self._place = file
        if not file.is_file():
            what = "a folder" if file.is_dir() else "no plain file"
            raise StoreFormatError(f"{path} is {what}; an HDF5 store is a file.")
        with reading(path, "the file"):
            self._size = file.stat().st_size
            frame = read_frame(file)
            if frame is None:
                raise why_no_frame(file, path)
            # libhdf5 might loop or fall over bytes of its own that are not as written.
            with file.open("rb") as raw:
                if not frame.is_outside_as_written(raw):
                    raise damaged(path, "its names, texts or tables are not as written")
        self._frame = frame
        with reading(path, "the HDF5 file"):
            self._file = _open(file)
        self._opened: dict[str, h5py.Dataset] = {}

    def _node(self, path: str) -> Any:
        """Return what goes by a name, which must lie in this file: a link could lead out of it."""
        node = self._file
        for name in path.split("/"):
            if not isinstance(node.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"'{name}' is no part of the file")
            node = node[name]
        return node

    def _dataset(self, path: str) -> h5py.Dataset:
        if path not in self._opened:
            dataset = self._node(path)
            if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
                raise ValueError(f"'{path}' does not lie in the file")
            self._opened[path] = dataset
        return self._opened[path]

    def attributes(self, group: str = "") -> dict[str, JSON]:
        """See `Sealed`."""
        with reading(self._path, f"the attributes of '{group}'"):
            found = (self._node(group) if group else self._file).attrs
            return {str(key): _from_attribute(found[key], f"'{key}'") for key in found}

    def shape_and_dtype(self, path: str) -> tuple[tuple[int, ...], str]:
        """See `Sealed`."""
        with reading(self._path, f"'{path}'"):
            dataset = self._dataset(path)
            is_text = h5py.check_string_dtype(dataset.dtype) is not None
            return tuple(dataset.shape), STRING if is_text else numpy_name(dataset.dtype)

    def frame_problems(self) -> list[str]:
        """See `Sealed`."""
        with reading(self._path, "the file"), self._place.open("rb") as raw:
            if not is_head_as_written(raw, self._frame):
                return ["the file's bytes are not those of the sha256 in its first lines"]
        return []

    def require_layout(self, array: ArrayLayout) -> None:
        """See `Sealed`."""
        with reading(self._path, f"'{array.path}'"):
            dataset = self._dataset(array.path)
            filters = (dataset.compression, dataset.scaleoffset, dataset.shuffle)
            plain = filters == (None, None, False)
        if dataset.chunks != array.chunk or not plain:
            raise damaged(self._path, f"'{array.path}' is not stored as nolb stores it")

    def lost(self, array: ArrayLayout, shard: Shard) -> str | None:
        """See `Sealed`."""
        with reading(self._path, f"'{array.path}'"):
            chunks = self._dataset(array.path).id
            ranges = [
                range(0, size, step) for size, step in zip(array.shape, array.chunk, strict=True)
            ]
            ranges[array.row_axis] = range(shard.start, shard.stop, array.chunk[array.row_axis])
            for corner in product(*ranges):
                info = chunks.get_chunk_info_by_coord(corner)
                if info.byte_offset is None or info.byte_offset + info.size > self._size:
                    return "it is not in the file"
        return None

    def read(self, array: ArrayLayout, rows: slice, view: int | None = None) -> Array:
        """See `Sealed`."""
        with reading(self._path, f"rows {rows.start} to {rows.stop - 1} of '{array.path}'"):
            return np.asarray(self._dataset(array.path)[array.index(rows, view)])

    def read_texts(self, path: str) -> list[str]:
        """See `Sealed`."""
        with reading(self._path, f"'{path}'"):
            texts: list[str] = []
            left = self._size
            dataset = self._dataset(path)
            if dataset.shape[0] * _REFERENCE > self._size:
                raise ValueError("there are more texts than the file can hold")
            for start in range(0, dataset.shape[0], _TEXTS_AT_ONCE):
                some = dataset.asstr()[start : start + _TEXTS_AT_ONCE].tolist()
                # Many rows may refer to one long text, so that together they exceed the file.
                left -= sum(map(len, some))
                if left < 0:
                    raise ValueError("the texts are longer than the file")
                texts += map(str, some)
            return texts

    def close(self) -> None:
        """See `Sealed`."""
        self._opened.clear()
        self._file.close()


class Hdf5Backend(FolderBackend):
    """Stores in single files with the suffix ".h5"."""

    data: ClassVar[str] = "shards"
    draft_type: ClassVar[type[FolderDraft]] = Hdf5Draft

    def make_data(self, folder: Path, header: Header) -> None:  # noqa: ARG002  # shards come alone
        """See `FolderBackend`."""
        folder.mkdir()

    def open_sealed(self, path: Path) -> Sealed:
        """See `Backend`."""
        return Hdf5Sealed(path, path)

    def read_spare(self, path: Path) -> str | None:
        """See `Backend`."""
        try:
            with reading(path, "its frame"):
                frame = read_frame(path)
        except (CorruptStoreError, StoreFormatError):
            return None
        return None if frame is None else frame.catalogue
