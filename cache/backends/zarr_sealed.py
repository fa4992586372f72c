"""A finished Zarr store, wherever its objects lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr

from cache.backends.contract import Array, Sealed, numpy_name
from cache.backends.places import Place
from cache.backends.zarr_format import (
    METADATA,
    is_ours,
    metadata,
    metadata_digest,
    object_bytes,
    object_names,
    open_array,
    open_group,
    read_all_texts,
    read_rows,
)
from cache.damage import damaged, reading
from cache.layout import STRING, ArrayLayout
from cache.shards import Shard
from cache.strict_json import JSON


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
            metadata(place, ".")
            self._group = open_group(place, read_only=True)
        self._opened: dict[str, zarr.Array[Any]] = {}

    def _array(self, path: str) -> zarr.Array[Any]:
        if path not in self._opened:
            with reading(self._path, f"'{path}'"):
                metadata(self._place, path)
                self._opened[path] = open_array(self._group, path)
        return self._opened[path]

    def attributes(self, group: str = "") -> dict[str, JSON]:
        """See `Sealed`."""
        with reading(self._path, f"the attributes of '{group}'"):
            metadata(self._place, group or ".")
            found = self._group[group] if group else self._group
            attributes = dict(found.attrs.asdict())
            if not group:
                attributes.pop(METADATA, None)
            return attributes

    def shape_and_dtype(self, path: str) -> tuple[tuple[int, ...], str]:
        """See `Sealed`."""
        array = self._array(path)
        is_text = array.dtype.kind in "OTU"
        return tuple(array.shape), STRING if is_text else numpy_name(array.dtype)

    def frame_problems(self) -> list[str]:
        """See `Sealed`."""
        with reading(self._path, "its zarr.json files"):
            root = metadata(self._place, ".")
            digest = root["attributes"].get(METADATA)
            plain = {key: value for key, value in root.items() if key != "attributes"}
            # Some versions of zarr say that nothing is consolidated, others do not mention it.
            plain.pop("consolidated_metadata", None)
        if plain != {"zarr_format": 3, "node_type": "group"}:
            return ["zarr.json is not what was written"]
        if digest != metadata_digest(self._place):
            return ["the zarr.json files of its groups and arrays are not what was written"]
        return []

    def require_layout(self, array: ArrayLayout) -> None:
        """See `Sealed`."""
        with reading(self._path, f"'{array.path}'"):
            ours = is_ours(metadata(self._place, array.path), array)
        if not ours:
            raise damaged(self._path, f"'{array.path}' is not stored as nolb stores it")

    def lost(self, array: ArrayLayout, shard: Shard) -> str | None:
        """See `Sealed`."""
        wanted = object_bytes(array, shard)
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
        """See `Sealed`."""
        with reading(self._path, f"rows {rows.start} to {rows.stop - 1} of '{array.path}'"):
            return read_rows(self._array(array.path), array, rows, view)

    def read_texts(self, path: str) -> list[str]:
        """See `Sealed`."""
        with reading(self._path, f"'{path}'"):
            return read_all_texts(self._place, self._array(path), path)

    def close(self) -> None:
        """See `Sealed`."""
        self._opened.clear()
