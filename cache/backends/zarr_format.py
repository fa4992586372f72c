"""How a store is written down in Zarr 3: its groups and arrays, and each shard's objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from cache.backends.contract import Array, Contents
from cache.backends.places import Place
from cache.damage import reading
from cache.errors import CorruptStoreError
from cache.layout import SPARE, STRING, ArrayLayout, Header
from cache.shards import Shard
from cache.strict_json import MOST_BYTES

if TYPE_CHECKING:
    from zarr.core.array_spec import ArrayConfigParams  # its only place; nothing at run time

_FILL: dict[str, Any] = {STRING: "", "int64": -1}  # of numbers NaN: what is lost looks like nothing

METADATA = "metadata"
"""Attribute of the root with `metadata_digest`; no part of what the store says."""

_CRC, _INDEX_ENTRY = 4, 16  # bytes of a crc32c, and of a chunk's place within its shard
_COUNT = 4  # bytes of a number of texts, and of the length of one

# Without this an all-zero chunk would not be stored, and could not be told from a lost one.
_WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}


def open_group(place: Place, *, read_only: bool) -> zarr.Group:
    """Open the root of a store."""
    store = place.store(read_only=read_only)
    # An array that is opened, not created, takes this setting from the global configuration.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_group(store, mode="r" if read_only else "r+", zarr_format=3)


def open_array(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """Open an array that is there.

    Raises:
        KeyError: it is not.
        TypeError: a group goes by its name.
    """
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
        frame = {} if name else {METADATA: metadata_digest(place)}
        target.attrs.put(dict(attributes) | frame)


def make_arrays(place: Place, header: Header) -> None:
    """Make the root and the arrays that are filled shard by shard."""
    group = zarr.create_group(place.store(read_only=False), zarr_format=3)
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


def read_rows(
    found: zarr.Array[Any], layout: ArrayLayout, rows: slice, view: int | None = None
) -> Array:
    """Return rows of a numeric array, of one view where there are views."""
    return np.asarray(found[layout.index(rows, view)])


def read_shard(
    arrays: Mapping[str, zarr.Array[Any]], header: Header, shard: Shard, name: str, path: Path
) -> Array:
    """Return one array of a shard of the unfinished store `path`.

    Raises:
        CorruptStoreError: it cannot be read.
    """
    layout = header.shard_arrays(shard.split)[name]
    with reading(path, str(shard)):
        return read_rows(arrays[layout.path], layout, shard.rows)


def read_all_texts(place: Place, found: zarr.Array[Any], path: str) -> list[str]:
    """Return a whole array of texts.

    A chunk begins with the number of its texts, and the codec makes room for as many as it says: of
    any other object that came into its place, for billions. So the number is looked at first.

    Raises:
        ValueError: an object is missing, or no chunk of this array.
    """
    layout = ArrayLayout(path, tuple(found.shape), STRING, chunk=tuple(found.chunks))
    if not is_ours(metadata(place, path), layout):
        raise ValueError(f"'{path}' is not stored as nolb stores it")
    (n_texts,), (rows,) = layout.shape, layout.chunk
    for index in range(-(-n_texts // rows)):
        name = f"{path}/c.{index}"
        size = place.size(name)
        # Each text takes the bytes of its length at least.
        if size is None or size < _COUNT * (1 + rows) + _CRC:
            raise ValueError(f"{name} is missing or cut short")
        if int.from_bytes(place.read(name, _COUNT), "little") != rows:
            raise ValueError(f"{name} is no chunk of {rows} texts")
    return [str(text) for text in np.asarray(found[...]).tolist()]


def metadata(place: Place, path: str) -> dict[str, Any]:
    """Return what a zarr.json holds, "." being the root's.

    Raises:
        ValueError: it is missing, larger than ours, no plain file, or no JSON object.
    """
    name = "zarr.json" if path == "." else f"{path}/zarr.json"
    size = place.size(name)
    if size is None or size > MOST_BYTES:
        raise ValueError(f"{name} is missing or larger than ours")
    found = json.loads(place.read(name))
    if not isinstance(found, dict):
        raise ValueError(f"{name} is no object")
    return found


def metadata_digest(place: Place) -> str:
    """Return the sha256 over the zarr.json files of all groups and arrays below the root."""
    digest = hashlib.sha256()
    for name, content in sorted(place.metadata().items()):
        digest.update(b"%d:%b%d:%b" % (len(name), name.encode(), len(content), content))
    return digest.hexdigest()


def read_spare(place: Place, path: Path) -> str | None:
    """Return the second copy of the catalogue, which needs nothing else of the store."""
    try:
        with reading(path, "the spare catalogue"):
            metadata(place, SPARE)
            array = zarr.open_array(place.store(read_only=True), path=SPARE, mode="r")
            return "".join(read_all_texts(place, array, SPARE))
    except CorruptStoreError:
        return None


def is_ours(metadata: Mapping[str, Any], array: ArrayLayout) -> bool:
    """Tell whether an array with this zarr.json is stored the way that we write it."""
    return bool(
        metadata["chunk_grid"]["configuration"]["chunk_shape"] == list(array.shard or array.chunk)
        and metadata["chunk_key_encoding"]["configuration"]["separator"] == "."
        and _named(metadata["codecs"]) == _named(_codecs(array))
    )


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


def object_bytes(array: ArrayLayout, shard: Shard) -> int:
    """Return the size of a shard's object: its chunks and their index, each with a crc32c."""
    assert array.shard is not None, "only sharded arrays have shards"  # noqa: S101  # for mypy
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
