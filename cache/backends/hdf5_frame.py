"""What stands around the HDF5 part of a store's file: enough to trust it, or to do without it.

libhdf5 believes what it reads. A few zeroed bytes among texts of variable length make it loop
without end, and most of its tables have no checksum. So it is given no file of ours before every
byte that it could stumble over has been compared with a sha256.

    head    a user block: two lines about the file, a line about the frame, the frame, zeros
    HDF5    from a power of two on
    tail    the frame once more, and the line about it

The frame says where the chunks of the shards lie, what the bytes between them are, and what the
catalogue says. Files of frame 1 have no such thing: their head is only the sha256 of the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product, repeat
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from cache.backends.contract import Array
from cache.errors import StoreFormatError
from cache.layout import ArrayLayout
from cache.shards import Shard
from cache.strict_json import JSON, Fields, canonical, parse

FRAME = 2
OURS = b"nolb store"
"""How a file of ours begins."""

SMALLEST = 512  # the smallest user block that HDF5 knows, and all of the head of frame 1

_BLOCK = 1 << 20
_CHECKSUM = 4  # bytes of the Fletcher-32 sum after every chunk
_DIGITS = 20  # of a place in a file, and the comma after it
_ROOM = 1024  # for the lines of the head, and for the names of the frame's fields
_LINE = re.compile(rb"nolb frame (\d{1,9}), (\d{1,9}) bytes, sha256 ([0-9a-f]{64})\n")
_LONGEST_LINE = 128


@dataclass(frozen=True)
class Chunks:
    """Where the chunks of an array lie."""

    n_bytes: int
    """Of each, with its checksum."""
    places: tuple[int, ...]
    """First byte of each, counted from the start of the file; the last axis runs fastest."""


@dataclass(frozen=True)
class Frame:
    """What is known about the file without HDF5."""

    start: int
    """First byte of the HDF5 part."""
    stop: int
    """Byte after its last."""
    outside: str
    """sha256 of the bytes of the HDF5 part that lie in no chunk of a shard."""
    catalogue: str
    """The second copy of the catalogue."""
    chunks: Mapping[str, Chunks] = field(hash=False)
    """Path of each array that is stored in shards -> where it lies."""

    def text(self) -> bytes:
        """Return the frame as it stands in the file."""
        chunks: dict[str, JSON] = {
            path: {"bytes": of.n_bytes, "places": list(of.places)}
            for path, of in self.chunks.items()
        }
        fields = dict(vars(self)) | {"chunks": chunks}
        return canonical(fields).encode("utf-8")

    @classmethod
    def from_text(cls, text: bytes, where: str) -> Frame:
        """Read what `text` wrote; `where` names it in the error.

        Raises:
            StoreFormatError: the text is no frame.
        """
        found = Fields(
            parse(text, where), where, ("start", "stop", "outside", "catalogue", "chunks")
        )
        chunks = {
            path: _chunks_from(value, where) for path, value in found.mapping("chunks").items()
        }
        start, stop = found.count("start"), found.count("stop")
        return cls(start, stop, found.text("outside"), found.text("catalogue"), chunks)

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
        of, axis = self.chunks[array.path], array.row_axis
        step = array.chunk[axis]
        grid = tuple(-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True))
        touched = slice(shard.start // step, -(-shard.stop // step))
        places = np.reshape(np.array(of.places, np.int64), grid)[array.index(touched)]
        values = np.empty(array.shape_of(places.shape[axis] * step), array.dtype)
        little = np.dtype(array.dtype).newbyteorder("<")
        for at in np.ndindex(places.shape):
            raw.seek(int(places[at]))
            content = np.frombuffer(raw.read(of.n_bytes)[:-_CHECKSUM], little)
            target = tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, array.chunk, strict=True))
            values[target] = content.reshape(array.chunk)
        rows: Array = values[array.index(slice(0, shard.n_rows))]
        return rows


def _chunks_from(value: JSON, where: str) -> Chunks:
    found = Fields(value, where, ("bytes", "places"))
    places = found.items("places")
    if not all(type(place) is int and place >= 0 for place in places):
        raise StoreFormatError(f"{where}: a place is no number of a byte.")
    return Chunks(found.count("bytes"), tuple(place for place in places if isinstance(place, int)))


def head_bytes(catalogue: str, arrays: Collection[ArrayLayout]) -> int:
    """Return the size of the head, known before the file is made: a power of two."""
    n_chunks = sum(
        int(np.prod([-(-n // c) for n, c in zip(each.shape, each.chunk, strict=True)]))
        for each in arrays
    )
    frame = len(canonical(catalogue).encode("utf-8")) + n_chunks * _DIGITS
    return max(SMALLEST, 1 << (frame + (1 + len(arrays)) * _ROOM).bit_length())


def write_frame(file: Path, start: int, catalogue: str, arrays: Collection[ArrayLayout]) -> None:
    """Put head and tail around a file that HDF5 has closed; its first `start` bytes are free."""
    with h5py.File(file, "r", locking=False) as whole:
        chunks = {each.path: chunks_of(file, whole[each.path]) for each in arrays}
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


def chunks_of(file: Path, dataset: h5py.Dataset) -> Chunks:
    """Ask HDF5 where the chunks of an array lie."""
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
            f"{file}: the file has frame {min(versions)}, but this nolb reads frames up to "
            f"{FRAME}. Install the nolb that wrote it, or extract again."
        )
    return None


def _head_line(raw: BinaryIO) -> bytes:
    raw.seek(0)
    return raw.read(SMALLEST)


def _tail_line(raw: BinaryIO, size: int) -> bytes:
    raw.seek(max(0, size - _LONGEST_LINE))
    last = raw.read(_LONGEST_LINE)
    found = _LINE.search(last)
    return last[found.start() :] if found and found.end() == len(last) else b""


def is_head_as_written(raw: BinaryIO, frame: Frame | None) -> bool:
    """Compare the head with what must stand there: after reading the whole file."""
    head = _first_head(raw) if frame is None else _head(raw, frame)
    raw.seek(0)
    return raw.read(len(head)) == head


def _head(raw: BinaryIO, frame: Frame) -> bytes:
    """Return the head of a file whose other bytes are in their place."""
    text = frame.text()
    about = (
        f"nolb store, HDF5 from byte {frame.start} on\nsha256 {_digest_from(raw, frame.start)}\n"
    )
    return (about.encode("ascii") + _line(text) + text).ljust(frame.start, b"\0")


def _first_head(raw: BinaryIO) -> bytes:
    """Return the head of a file of frame 1."""
    digest = _digest_from(raw, SMALLEST)
    text = f"nolb store, HDF5 from byte {SMALLEST} on\nsha256 {digest}\n"
    return text.encode("ascii").ljust(SMALLEST, b"\0")


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
