"""A store in this process's memory: the reference for the others, and quick for small work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.backends.contract import Array, Backend, Contents, Draft, Sealed, numpy_name
from cache.damage import reading
from cache.errors import StoreExistsError, StoreLockedError
from cache.layout import SPARE, STRING, ArrayLayout, Header
from cache.shards import Shard, ShardRecord
from cache.strict_json import JSON


@dataclass(frozen=True)
class _Finished:
    contents: Contents
    """What joins the shards."""
    arrays: Mapping[str, Array]
    """Path -> all rows."""


class MemoryDraft(Draft):
    """Shards and records in dictionaries."""

    def __init__(self, backend: MemoryBackend, path: Path, header: Header, replaces: bool) -> None:
        super().__init__(header, replaces=replaces)
        self._backend = backend
        self._path = path
        self._shards: dict[Shard, dict[str, Array]] = {}
        self._records: dict[Shard, ShardRecord] = {}
        self._assembled: _Finished | None = None
        self._held = True

    def hold(self, invitation: str | None = None) -> None:
        """See `Draft`."""
        if self._held and invitation is None:
            raise StoreLockedError(f"{self._path} is being written in this process.")
        self._held = True

    def share(self) -> str:
        """See `Draft`."""
        return "this process"

    def alone(self) -> bool:
        """See `Draft`."""
        return False

    def write(self, shard: Shard, arrays: Mapping[str, Array]) -> None:
        """See `Draft`."""
        self._shards[shard] = {name: values.copy() for name, values in arrays.items()}

    def read(self, shard: Shard, name: str) -> Array:
        """See `Draft`."""
        with reading(self._path, str(shard)):
            return self._shards[shard][name].copy()

    def put_record(self, record: ShardRecord) -> None:
        """See `Draft`."""
        self._records[record.shard] = record

    def drop_record(self, shard: Shard) -> None:
        """See `Draft`."""
        self._records.pop(shard, None)

    def records(self) -> dict[Shard, ShardRecord]:
        """See `Draft`."""
        return dict(self._records)

    def adopt(self, sealed: Sealed | None, shard: Shard) -> None:
        """See `Draft`."""
        assert sealed is not None, "memory is never beyond opening"  # noqa: S101  # for mypy
        layouts = self.header.shard_arrays(shard.split)
        self.write(shard, {name: sealed.read(array, shard.rows) for name, array in layouts.items()})

    def assemble(self, contents: Contents) -> Sealed:
        """See `Draft`."""
        arrays = {
            array.path: np.concatenate(
                [self._shards[shard][name] for shard in self.header.shards(split.name)],
                axis=array.row_axis,
            )
            for split in self.header.splits
            for name, array in self.header.shard_arrays(split.name).items()
        }
        for path, array in self.header.small_arrays().items():
            text = array.dtype == STRING
            arrays[path] = np.array(contents.arrays[path], dtype=object if text else array.dtype)
        self._assembled = _Finished(contents, arrays)
        return MemorySealed(self._path, self._assembled)

    def publish(self) -> None:
        """See `Draft`."""
        if self._path in self._backend.sealed and not self.replaces:
            raise StoreExistsError(f"{self._path} came up while its store was being written.")
        assert self._assembled is not None, "assemble comes before publish"  # noqa: S101  # for mypy
        self._backend.sealed[self._path] = self._assembled
        self._backend.drafts.pop(self._path, None)

    def close(self) -> None:
        """See `Draft`."""
        self._held = False


class MemorySealed(Sealed):
    """A finished store."""

    def __init__(self, path: Path, finished: _Finished) -> None:
        self._path = path
        self._finished = finished

    def attributes(self, group: str = "") -> dict[str, JSON]:
        """See `Sealed`."""
        return dict(self._finished.contents.attributes[group])

    def shape_and_dtype(self, path: str) -> tuple[tuple[int, ...], str]:
        """See `Sealed`."""
        array = self._finished.arrays[path]
        return array.shape, STRING if array.dtype == object else numpy_name(array.dtype)

    def frame_problems(self) -> list[str]:
        """See `Sealed`."""
        return []

    def require_layout(self, array: ArrayLayout) -> None:
        """See `Sealed`."""

    def lost(self, array: ArrayLayout, shard: Shard) -> None:
        """See `Sealed`."""

    def read(self, array: ArrayLayout, rows: slice, view: int | None = None) -> Array:
        """See `Sealed`."""
        return np.array(self._finished.arrays[array.path][array.index(rows, view)])

    def read_texts(self, path: str) -> list[str]:
        """See `Sealed`."""
        return [str(text) for text in self._finished.arrays[path].tolist()]

    def close(self) -> None:
        """See `Sealed`."""


class MemoryBackend(Backend):
    """Stores of this process, under names with the suffix ".memory"."""

    def __init__(self) -> None:
        self.sealed: dict[Path, _Finished] = {}
        self.drafts: dict[Path, MemoryDraft] = {}

    def has_sealed(self, path: Path) -> bool:
        """See `Backend`."""
        return path in self.sealed

    def has_draft(self, path: Path) -> bool:
        """See `Backend`."""
        return path in self.drafts

    def create_draft(self, path: Path, header: Header, *, replaces: bool) -> Draft:
        """See `Backend`."""
        self.discard_draft(path)
        self.drafts[path] = MemoryDraft(self, path, header, replaces)
        return self.drafts[path]

    def open_draft(self, path: Path) -> Draft:
        """See `Backend`."""
        return self.drafts[path]

    def discard_draft(self, path: Path) -> None:
        """See `Backend`."""
        if path in self.drafts:
            self.drafts[path].hold()
            del self.drafts[path]

    def open_sealed(self, path: Path) -> Sealed:
        """See `Backend`."""
        return MemorySealed(path, self.sealed[path])

    def read_spare(self, path: Path) -> str | None:
        """See `Backend`."""
        return str(self.sealed[path].arrays[SPARE][0])

    def n_bytes(self, path: Path) -> int:
        """See `Backend`."""
        return sum(array.nbytes for array in self.sealed[path].arrays.values())
