"""What stands around the HDF5 part of a store's file: enough to trust it, or to do without it.

libhdf5 believes what it reads. A few zeroed bytes among texts of variable length make it loop
without end, and most of its tables have no checksum. So it is given no file of ours before every
byte that it could stumble over has been compared with a sha256.

    head    a user block: two lines about the file, a line about the frame, the frame, zeros
    HDF5    from a power of two on
    tail    the frame once more, and the line about it

The frame says where the chunks of the shards lie, what the bytes between them are, and what the
catalogue says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product, repeat
from math import prod
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from cache.backends.contract import Array
from cache.errors import CorruptStoreError, StoreError, StoreFormatError
from cache.layout import ArrayLayout
from cache.records import Count, Record
from cache.shards import Shard
from cache.strict_json import canonical, parse

FRAME = 2
_OURS = b"nolb store, HDF5 from byte "  # how a file of ours begins
_SMALLEST = 512  # bytes of the smallest user block that HDF5 knows
_BLOCK = 1 << 20
_CHECKSUM = 4  # bytes of the Fletcher-32 sum after every chunk
_DIGITS = 20  # of a place in a file, and the comma after it
_ROOM = 1024  # for the lines of the head, and for the names of the frame's fields
_LINE = re.compile(rb"nolb frame (\d{1,9}), (\d{1,9}) bytes, sha256 ([0-9a-f]{64})\n")
_LONGEST_LINE = 128


@dataclass(frozen=True)
class Chunks(Record):
    """Where the chunks of an array lie."""

    n_bytes: Count
    """Of each, with its checksum."""
    places: tuple[Count, ...]
    """First byte of each, counted from the start of the file; the last axis runs fastest."""


@dataclass(frozen=True)
class Frame(Record):
    """What is known about the file without HDF5."""

    start: Count
    """First byte of the HDF5 part."""
    stop: Count
    """Byte after its last."""
    outside: str
    """sha256 of the bytes of the HDF5 part that lie in no chunk of a shard."""
    catalogue: str
    """The second copy of the catalogue."""
    chunks: Mapping[str, Chunks] = field(hash=False)
    """Path of each array that is stored in shards -> where it lies."""

    def text(self) -> bytes:
        """Return the frame as it stands in the file."""
        return canonical(self.to_json()).encode("utf-8")

    @classmethod
    def from_text(cls, text: bytes, where: str) -> Frame:
        """Read what `text` wrote; `where` names it in the error.

        Raises:
            StoreFormatError: the text is no frame.
        """
        return cls.from_json(parse(text, where), where)

    def is_outside_as_written(self, raw: BinaryIO) -> bool:
        """Compare all bytes that lie in no chunk of a shard."""
        spans = sorted(
            (place, place + of.n_bytes) for of in self.chunks.values() for place in of.places
        )
        try:
            return _digest_outside(raw, self.start, self.stop, spans) == self.outside
        except ValueError:
            return False

    def read_shard(self, raw: BinaryIO, array: ArrayLayout, shard: Shard) -> Array:
        """Return the rows of a shard, read without HDF5; whoever calls this compares them.

        Raises:
            ValueError: the frame speaks of another array, or the file ends before its bytes.
        """
        n_bytes, little = self.chunks[array.path].n_bytes, np.dtype(array.dtype).newbyteorder("<")
        values = np.empty(array.shape_of(shard.n_rows), array.dtype)
        for corner, place in self._chunks_of(array, shard):
            raw.seek(place)
            content = np.frombuffer(raw.read(n_bytes)[:-_CHECKSUM], little).reshape(array.chunk)
            first = list(corner)
            first[array.row_axis] -= shard.start
            target = values[tuple(slice(i, i + c) for i, c in zip(first, array.chunk, strict=True))]
            target[...] = content[tuple(map(slice, target.shape))]  # the last chunk may be longer
        return values

    def _chunks_of(self, array: ArrayLayout, shard: Shard) -> Iterator[tuple[tuple[int, ...], int]]:
        """First element and first byte of each chunk of a shard."""
        places = self.chunks[array.path].places
        grid = tuple(-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True))
        if len(places) != prod(grid):
            raise ValueError(f"the frame has other chunks of '{array.path}'")
        ranges = [range(0, n, c) for n, c in zip(array.shape, array.chunk, strict=True)]
        ranges[array.row_axis] = range(shard.start, shard.stop, array.chunk[array.row_axis])
        for corner in product(*ranges):
            at = tuple(first // c for first, c in zip(corner, array.chunk, strict=True))
            yield corner, places[int(np.ravel_multi_index(at, grid))]


def head_bytes(catalogue: str, arrays: Collection[ArrayLayout]) -> int:
    """Return the size of the head, known before the file is made: a power of two."""
    n_chunks = sum(
        int(np.prod([-(-n // c) for n, c in zip(each.shape, each.chunk, strict=True)]))
        for each in arrays
    )
    frame = len(canonical(catalogue).encode("utf-8")) + n_chunks * _DIGITS
    return max(_SMALLEST, 1 << (frame + (1 + len(arrays)) * _ROOM).bit_length())


def write_frame(file: Path, start: int, catalogue: str, chunks: Mapping[str, Chunks]) -> None:
    """Put head and tail around a file that HDF5 has closed; its first `start` bytes are free."""
    with file.open("r+b") as raw:
        stop = raw.seek(0, 2)
        spans = sorted((place, place + of.n_bytes) for of in chunks.values() for place in of.places)
        outside = _digest_outside(raw, start, stop, spans)
        frame = Frame(start, stop, outside, catalogue, chunks)
        text = frame.text()
        raw.seek(stop)
        raw.write(text + _line(text))
        head = _head(raw, frame)
        raw.seek(0)
        raw.write(head)


def chunks_of(file: Path, arrays: Collection[ArrayLayout]) -> dict[str, Chunks]:
    """Ask HDF5 where the chunks of arrays lie."""
    with h5py.File(file, "r", locking=False) as whole:
        return {each.path: _chunks_in(file, whole[each.path]) for each in arrays}


def _chunks_in(file: Path, dataset: h5py.Dataset) -> Chunks:
    corners = product(*map(range, repeat(0), dataset.shape, dataset.chunks))
    infos = [dataset.id.get_chunk_info_by_coord(corner) for corner in corners]
    _, content = dataset.id.read_direct_chunk(infos[0].chunk_offset)
    with file.open("rb") as raw:
        # Some versions of HDF5 count from the start of the file, others from their own part's.
        for base in (0, dataset.file.userblock_size):
            raw.seek(infos[0].byte_offset + base)
            if raw.read(infos[0].size) == content:
                return Chunks(infos[0].size, tuple(info.byte_offset + base for info in infos))
    raise RuntimeError(f"HDF5 does not say where the chunks of {dataset.name} lie")


def read_frame(file: Path) -> Frame | None:
    """Return the frame of a file, from its head or else its tail; None where neither is whole.

    Raises:
        StoreFormatError: it has a frame of a version that is not known here.
    """
    versions = set()
    with file.open("rb") as raw:
        size = raw.seek(0, 2)
        for line, place in ((_head_line(raw), None), (_tail_line(raw, size), size)):
            found = _LINE.search(line)
            if found is None:
                continue
            version, n_bytes, digest = int(found[1]), int(found[2]), found[3].decode()
            versions.add(version)
            raw.seek(max(0, found.end() if place is None else place - len(found[0]) - n_bytes))
            text = raw.read(n_bytes) if version == FRAME and n_bytes <= size else b""
            if hashlib.sha256(text).hexdigest() == digest:
                try:
                    return Frame.from_text(text, f"{file}: its frame")
                except StoreFormatError:
                    continue
    if versions and FRAME not in versions:
        raise StoreFormatError(
            f"{file}: the file has frame {min(versions)}, but this nolb reads frame {FRAME}. "
            "Install the nolb that wrote it, or extract again."
        )
    return None


def why_no_frame(file: Path, path: Path) -> StoreError:
    """Return the error for a file without a frame, which `path` names.

    One of ours lost both copies; before the first release there were none.
    """
    with file.open("rb") as raw:
        begins = raw.read(_SMALLEST)
    if begins.startswith(_OURS) and not begins.startswith(b"%b%d on\n" % (_OURS, _SMALLEST)):
        return CorruptStoreError(
            f"{path} is damaged (both copies of its frame are lost): restore it from a copy, or "
            "move it away and extract again."
        )
    return StoreFormatError(
        f"{path}: this is no nolb store, or one from before the first release: move it away and "
        "extract again."
    )


def _head_line(raw: BinaryIO) -> bytes:
    raw.seek(0)
    return raw.read(_SMALLEST)


def _tail_line(raw: BinaryIO, size: int) -> bytes:
    raw.seek(max(0, size - _LONGEST_LINE))
    last = raw.read(_LONGEST_LINE)
    found = _LINE.search(last)
    return last[found.start() :] if found and found.end() == len(last) else b""


def is_head_as_written(raw: BinaryIO, frame: Frame) -> bool:
    """Compare the head with what must stand there: after reading the whole file."""
    head = _head(raw, frame)
    raw.seek(0)
    return raw.read(len(head)) == head


def _head(raw: BinaryIO, frame: Frame) -> bytes:
    """Return the head of a file whose other bytes are in their place."""
    text = frame.text()
    digest = _digest_from(raw, frame.start)
    about = b"%b%d on\nsha256 %b\n" % (_OURS, frame.start, digest.encode("ascii"))
    return (about + _line(text) + text).ljust(frame.start, b"\0")


def _line(text: bytes) -> bytes:
    digest = hashlib.sha256(text).hexdigest()
    return f"nolb frame {FRAME}, {len(text)} bytes, sha256 {digest}\n".encode("ascii")


def _digest_from(raw: BinaryIO, start: int) -> str:
    """Return the sha256 of all bytes from one on."""
    digest = hashlib.sha256()
    raw.seek(start)
    while block := raw.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _digest_outside(raw: BinaryIO, start: int, stop: int, spans: Sequence[tuple[int, int]]) -> str:
    """Return the sha256 of the bytes from `start` to `stop` that lie in none of the spans.

    Raises:
        ValueError: the spans overlap or leave the range, or the file ends before it.
    """
    digest = hashlib.sha256()
    for begin, end in _between(start, stop, spans):
        raw.seek(begin)
        left = end - begin
        while left:
            block = raw.read(min(left, _BLOCK))
            if not block:
                raise ValueError("the file is cut short")
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _between(start: int, stop: int, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges that sorted spans leave."""
    for begin, end in (*spans, (stop, stop)):
        if not start <= begin <= end <= stop:
            raise ValueError("spans overlap, or leave the range")
        if start < begin:
            yield start, begin
        start = end
