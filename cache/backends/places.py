"""Where the objects of a Zarr store lie."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore


class Place(ABC):
    """Where the objects of a Zarr store lie."""

    @abstractmethod
    def store(self, *, read_only: bool) -> ZarrStore:
        """Return the place as zarr knows it."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the bytes of an object, None where there is none; ValueError for no plain file."""

    @abstractmethod
    def read(self, name: str, n_bytes: int | None = None) -> bytes:
        """Return an object, or its first bytes."""

    @abstractmethod
    def metadata(self) -> dict[str, bytes]:
        """Return the zarr.json of every group and array below the root, by name."""


class Folder(Place):
    """A folder of this machine's file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, *, read_only: bool) -> ZarrStore:
        """See `Place`."""
        return LocalStore(self.folder, read_only=read_only)

    def size(self, name: str) -> int | None:
        """See `Place`."""
        try:
            found = (self.folder / name).stat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for without end
            raise ValueError(f"{name} is no plain file")
        return found.st_size

    def read(self, name: str, n_bytes: int | None = None) -> bytes:
        """See `Place`."""
        with (self.folder / name).open("rb") as file:
            return file.read(n_bytes)

    def metadata(self) -> dict[str, bytes]:
        """See `Place`."""
        files = self.folder.glob("*/**/zarr.json")
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in files}
