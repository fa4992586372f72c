"""What a backend must do: keep unfinished stores, publish them at once, read finished ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.closable import Closable
from cache.layout import ArrayLayout, Header
from cache.shards import Shard, ShardRecord
from cache.strict_json import JSON

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Contents:
    """What joins the shards when a store is finished."""

    attributes: Mapping[str, Mapping[str, JSON]]
    """Group ("" is the root) -> its attributes."""
    arrays: Mapping[str, Array | Sequence[str]]
    """Path from the root -> values, for every small array of the layout."""


class Sealed(Closable):
    """A finished store, open for reading.

    Whatever cannot be read, or disagrees with its checksum, raises CorruptStoreError.
    """

    @abstractmethod
    def attributes(self, group: str = "") -> dict[str, JSON]:
        """Return the attributes of a group, "" being the root."""

    @abstractmethod
    def shape_and_dtype(self, path: str) -> tuple[tuple[int, ...], str]:
        """Return what the array says about itself; the type is a numpy name or "string"."""

    @abstractmethod
    def frame_problems(self) -> list[str]:
        """Say what is wrong with the bytes that hold no values: after reading all of them."""

    @abstractmethod
    def require_layout(self, array: ArrayLayout) -> None:
        """Refuse an array that is stored in another way than ours: CorruptStoreError.

        A stranger's array could name another file as its place, or unpack to any size.
        """

    @abstractmethod
    def lost(self, array: ArrayLayout, shard: Shard) -> str | None:
        """Say what is wrong with the place of a shard's bytes, without reading them."""

    @abstractmethod
    def read(self, array: ArrayLayout, rows: slice, view: int | None = None) -> Array:
        """Return the rows of a numeric array in one pass, as an own array.

        Args:
            array: which.
            rows: a range of samples.
            view: of an array (V, N, D), give this (n, D) of it only.
        """

    @abstractmethod
    def read_texts(self, path: str) -> list[str]:
        """Return a whole array of strings."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files."""


class Draft(Closable):
    """An unfinished store; it survives its process.

    Different shards may be written by different processes: no two of them share an object.
    """

    def __init__(self, header: Header, *, replaces: bool) -> None:
        self.header = header
        self.replaces = replaces
        """Whether `publish` may take the place of an older store."""

    @abstractmethod
    def write(self, shard: Shard, arrays: Mapping[str, Array]) -> None:
        """Write a shard's arrays, by their name within the split; durable on return."""

    @abstractmethod
    def read(self, shard: Shard, name: str) -> Array:
        """Return what was written; raises CorruptStoreError where it cannot be read."""

    @abstractmethod
    def put_record(self, record: ShardRecord) -> None:
        """Record a shard as complete; atomic, durable on return."""

    @abstractmethod
    def drop_record(self, shard: Shard) -> None:
        """Forget that a shard is complete; nothing happens where it is not."""

    @abstractmethod
    def records(self) -> dict[Shard, ShardRecord]:
        """Return what is recorded now; records that cannot be read count as absent."""

    @abstractmethod
    def hold(self, invitation: str | None = None) -> None:
        """Keep others from writing the store, until `close` or the end of the process.

        Where the place has no locks (object stores), only the throwing away of the draft by
        another process is noticed, when the next record is put.

        Args:
            invitation: what `share` returned to the process that holds it already.

        Raises:
            StoreLockedError: another process writes it.
            StoreNotFoundError: the draft has gone since it was opened.
        """

    @abstractmethod
    def adopt(self, sealed: Sealed | None, shard: Shard) -> None:
        """Take a shard's bytes over from the finished store at the same path, as they are.

        They may be damaged: nothing is recorded, and whoever calls this looks at them.
        """

    @abstractmethod
    def share(self) -> str:
        """Let other processes write too; return the invitation that they need."""

    @abstractmethod
    def alone(self) -> bool:
        """Tell whether all processes that were let in are known to have gone."""

    @abstractmethod
    def assemble(self, contents: Contents) -> Sealed:
        """Join shards and `contents` under a working name; durable on return.

        After a crash it is called again.
        """

    @abstractmethod
    def publish(self) -> None:
        """Put the assembled store under its own name and remove the draft.

        An older store stays untouched up to the one rename that replaces it.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of files and of the hold; the draft stays."""


class Backend(ABC):
    """One kind of place in which stores live, chosen by the suffix of their path."""

    @abstractmethod
    def has_sealed(self, path: Path) -> bool:
        """Tell whether anything stands under the name of the store."""

    @abstractmethod
    def has_draft(self, path: Path) -> bool:
        """Tell whether an unfinished store stands there."""

    @abstractmethod
    def create_draft(self, path: Path, header: Header, *, replaces: bool) -> Draft:
        """Make an unfinished store, atomically, and hold it.

        With `replaces` an older draft is thrown away, and an older store will be replaced by
        `Draft.publish`.
        """

    @abstractmethod
    def open_draft(self, path: Path) -> Draft:
        """Open an unfinished store, to look at it or, after `Draft.hold`, to go on."""

    @abstractmethod
    def discard_draft(self, path: Path) -> None:
        """Remove an unfinished store; StoreLockedError where somebody is writing it."""

    @abstractmethod
    def open_sealed(self, path: Path) -> Sealed:
        """Open a finished store.

        Raises:
            StoreFormatError: what stands there is of another kind.
            CorruptStoreError: it is of the right kind, but damaged.
        """

    @abstractmethod
    def read_spare(self, path: Path) -> str | None:
        """Return the second copy of the catalogue, however damaged the rest of the store is.

        None where it cannot be read.
        """

    @abstractmethod
    def n_bytes(self, path: Path) -> int:
        """Return what the store, finished or not, takes up."""


def numpy_name(dtype: np.dtype[Any]) -> str:
    """Return the type's name, without its byte order."""
    return dtype.newbyteorder("=").name
