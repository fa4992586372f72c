"""HDF5: one immutable file for each shard, merged into a single file when all are there.

A file that grows is unreadable after a kill, so none does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from cache.backends.contract import Array, Contents, Sealed, numpy_name, reading
from cache.backends.files import fsync, writing
from cache.backends.folder import FolderBackend, FolderDraft
from cache.errors import StoreFormatError
from cache.layout import STRING, ArrayLayout, Header
from cache.shards import Shard
from cache.strict_json import JSON, canonical, parse

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_TEXT = h5py.string_dtype("utf-8")


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
        """See :class:`FolderDraft`."""
        return self.folder / "assembled.h5"

    def _file(self, shard: Shard) -> Path:
        return self.folder / Hdf5Backend.data / f"{shard.name}.h5"

    def write(self, shard: Shard, arrays: Mapping[str, Array]) -> None:
        """See :class:`Draft`."""
        target = self._file(shard)
        working = target.with_suffix(".working")
        with writing(self.path):
            with h5py.File(working, "w") as file:
                for name, values in arrays.items():
                    file.create_dataset(name, data=values)
            fsync(working)
            working.replace(target)
            fsync(target.parent)

    def read(self, shard: Shard, name: str) -> Array:
        """See :class:`Draft`."""
        with reading(self.path, str(shard)), _open(self._file(shard)) as file:
            return np.asarray(file[name][...])

    def assemble(self, contents: Contents) -> Sealed:
        """See :class:`Draft`."""
        with writing(self.path), h5py.File(self.assembled, "w") as file:
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
        with writing(self.path):
            fsync(self.assembled)
        return Hdf5Sealed(self.assembled, self.path)

    def close(self) -> None:
        """See :class:`Draft`."""


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
        if file.is_dir():
            raise StoreFormatError(f"{path} is a folder; an HDF5 store is a file.")
        with reading(path, "the file"), file.open("rb") as raw:
            signature = raw.read(len(_SIGNATURE))
        if signature != _SIGNATURE:
            raise StoreFormatError(f"{path} is no HDF5 file, whatever its suffix says.")
        with reading(path, "the HDF5 file"):
            self._file = _open(file)

    def attributes(self, group: str = "") -> dict[str, JSON]:
        """See :class:`Sealed`."""
        with reading(self._path, f"the attributes of '{group}'"):
            found = self._file[group or "/"].attrs
            return {str(key): _from_attribute(found[key], f"'{key}'") for key in found}

    def shape_and_dtype(self, path: str) -> tuple[tuple[int, ...], str]:
        """See :class:`Sealed`."""
        with reading(self._path, f"'{path}'"):
            dataset = self._file[path]
            is_text = h5py.check_string_dtype(dataset.dtype) is not None
            return tuple(dataset.shape), STRING if is_text else numpy_name(dataset.dtype)

    def read(self, array: ArrayLayout, rows: slice) -> Array:
        """See :class:`Sealed`."""
        with reading(self._path, f"rows {rows.start} to {rows.stop - 1} of '{array.path}'"):
            return np.asarray(self._file[array.path][array.index(rows)])

    def read_texts(self, path: str) -> list[str]:
        """See :class:`Sealed`."""
        with reading(self._path, f"'{path}'"):
            return [str(text) for text in self._file[path].asstr()[...].tolist()]

    def close(self) -> None:
        """See :class:`Sealed`."""
        self._file.close()


class Hdf5Backend(FolderBackend):
    """Stores in single files with the suffix ".h5"."""

    data: ClassVar[str] = "shards"
    draft_type: ClassVar[type[FolderDraft]] = Hdf5Draft

    def make_data(self, folder: Path, header: Header) -> None:  # noqa: ARG002 - shards come alone
        """See :class:`FolderBackend`."""
        folder.mkdir()

    def open_sealed(self, path: Path) -> Sealed:
        """See :class:`Backend`."""
        return Hdf5Sealed(path, path)
