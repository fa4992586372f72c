"""Where stores live: the suffix of a path chooses the backend."""

from __future__ import annotations

from pathlib import Path

from cache.backends.contract import Backend
from cache.backends.hdf5 import Hdf5Backend
from cache.backends.memory import MemoryBackend
from cache.backends.remote import RemoteBackend, url_of
from cache.backends.zarr import ZarrBackend
from cache.errors import StoreFormatError

BACKENDS: dict[str, Backend] = {
    ".zarr": ZarrBackend(),
    ".h5": Hdf5Backend(),
    ".memory": MemoryBackend(),
}
"""Suffix -> backend. A new kind of store is a module here, a line in this table and a test."""

REMOTE: Backend = RemoteBackend()
"""Behind URLs, which must end in .zarr."""


def backend_for(path: Path) -> Backend:
    """Return the backend of a path.

    Raises:
        StoreFormatError: no backend has the path's suffix.
    """
    if path.suffix == ".partial":
        raise StoreFormatError(
            f"{path} is the working form of a store; name the store itself, {path.with_suffix('')}."
        )
    if url_of(path) is not None:
        if path.suffix != ".zarr":
            raise StoreFormatError(f"{url_of(path)}: a store behind a URL is a Zarr store, .zarr.")
        return REMOTE
    if path.suffix not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise StoreFormatError(
            f"{path}: the suffix '{path.suffix}' stands for no kind of store; use one of {known}."
        )
    return BACKENDS[path.suffix]
