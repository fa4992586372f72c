"""What can be saved of a damaged HDF5 store that has no frame, as those of frame 1.

libhdf5 then has to say where the chunks lie, and damaged tables may take its process down with it,
or hold it without end. So it is asked in a process of its own.

It is not asked for texts of variable length. HDF5 keeps them in heaps, and libhdf5 loops without
end over a heap of which a part was zeroed: an object of size 0 ends where it begins.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import h5py

from cache.backends.hdf5_frame import Frame, chunks_of, read_frame
from cache.errors import StoreFormatError
from cache.layout import SPARE

_MARK = b"GCOL\x01"  # the signature of a heap and its version
_HEADER = 16  # signature, version, 3 bytes, and the size of the heap
_OBJECT = struct.Struct("<HHIQ")  # index, references, 4 bytes, and the size of an object
_ALIGNED = 8
_BLOCK = 1 << 24
_LARGEST = 1 << 30  # of a heap: the longest text of ours takes a sixteenth of it

_SHARDED = ("features", "views", "logits")
_PATIENCE = 120.0  # seconds: the million chunks of a terabyte take some ten

REFERENCE = struct.Struct("<IQI")
"""What stands for a text in an array: its bytes, the place of its heap, and its index there."""


def frame_of(file: Path) -> Frame | None:
    """Return the frame of a file, or one that is made out now; None where that cannot be done.

    Raises:
        StoreFormatError: it has a frame of a version that is not known here.
    """
    frame = read_frame(file)
    if frame is not None or not h5py.is_hdf5(file):
        return frame
    try:
        done = subprocess.run(  # noqa: S603  # ourselves
            # -P: a module in the working folder may be called as ours are.
            [sys.executable, "-P", "-c", f"from {__name__} import answer; answer()",
             file.absolute()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True, check=True, timeout=_PATIENCE,
        )  # fmt: skip
        return Frame.from_text(done.stdout, f"{file}: its frame")
    except (OSError, subprocess.SubprocessError, StoreFormatError):
        return None


def answer() -> None:
    """What the other process does: print the frame of the file that its command names."""
    sys.stdout.buffer.write(_made_out(Path(sys.argv[1])).text())


def _made_out(file: Path) -> Frame:
    """The frame that a file without one would have, but for the digest, which nothing confirms."""
    with h5py.File(file, "r", locking=False) as whole, file.open("rb") as raw:
        _, reference = whole[SPARE].id.read_direct_chunk((0,))
        start = whole.userblock_size
        chunks = {
            f"{split}/{name}": chunks_of(file, whole[split][name])
            for split in whole if isinstance(whole[split], h5py.Group)
            for name in _SHARDED if name in whole[split]
        }  # fmt: skip
        return Frame(start, raw.seek(0, 2), "", text_of(raw, reference, start), chunks)


def do_heaps_end(raw: BinaryIO) -> bool:
    """Tell whether every heap of a file that has no sha256 ends where it says; it reads all of it.

    So libhdf5 will not loop over one. Whatever else is damaged it has to find out itself.
    """
    size = raw.seek(0, io.SEEK_END)
    for start in range(0, size, _BLOCK):
        raw.seek(start)
        block = raw.read(_BLOCK + len(_MARK) - 1)
        at = block.find(_MARK)
        while at >= 0:
            try:
                deque(_objects(_heap_at(raw, start + at)), maxlen=0)
            except ValueError:
                return False
            at = block.find(_MARK, at + 1)
    return True


def text_of(raw: BinaryIO, reference: bytes, base: int) -> str:
    """Return the text that a reference stands for, read without libhdf5.

    Args:
        raw: the file.
        reference: as it stands in a chunk of texts.
        base: first byte of the HDF5 part, from which places are counted.

    Raises:
        ValueError: it is not there.
    """
    length, place, wanted = REFERENCE.unpack(reference)
    heap = _heap_at(raw, base + place)
    for index, begin, size in _objects(heap):
        if index == wanted and length <= size:
            return heap[begin : begin + length].decode("utf-8")
    raise ValueError("a text is not where its array says")


def _heap_at(raw: BinaryIO, place: int) -> bytes:
    """Return the bytes of a heap, and none where there is no heap: libhdf5 says so in words."""
    raw.seek(place)
    header = raw.read(_HEADER)
    length = int.from_bytes(header[8:], "little")
    if not header.startswith(_MARK) or not _HEADER <= length <= _LARGEST:
        return b""
    heap = header + raw.read(length - _HEADER)
    return heap if len(heap) == length else b""


def _objects(heap: bytes) -> Iterator[tuple[int, int, int]]:
    """Index, first byte and size of every object, in the steps that libhdf5 takes.

    Raises:
        ValueError: the steps do not lead to the end.
    """
    at = _HEADER
    while at + _OBJECT.size <= len(heap):
        index, _, _, size = _OBJECT.unpack_from(heap, at)
        # Object 0 is the free space, whose size counts its own header.
        taken = _OBJECT.size + -(-size // _ALIGNED) * _ALIGNED if index else size
        if taken == 0 or at + taken > len(heap):
            raise ValueError("an object of the heap does not end")
        yield index, at + _OBJECT.size, size
        at += taken
