"""JPEG files of the plain kind, told from the others by their headers, without decoding.

Decoders agree on the plain kind but for rounding: 8 bits, three components of luminance and
chrominance with a usual subsampling, complete up to the end marker. Of grey, CMYK, RGB or
arithmetically coded files, of cut ones and of other formats each decoder makes what it can. Pillow
reads the same headers, but does not say how a frame is coded or whether the file is complete.
"""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

START, END = b"\xff\xd8", b"\xff\xd9"
"""Markers that a file begins and ends with."""

FRAMES = {0xC0, 0xC1, 0xC2}
"""SOF0 to SOF2: baseline, extended and progressive, with Huffman codes."""

OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
"""Lossless, hierarchical and arithmetically coded files."""

SCAN, JFIF, ADOBE = 0xDA, 0xE0, 0xEE

YCBCR = 1
"""Adobe's number for luminance and chrominance; 0 is RGB or CMYK, 2 is YCCK."""

LUMINANCE = {0x11, 0x21, 0x12, 0x22, 0x41}
"""Sampling factors (horizontal, vertical) of luminance where chrominance has 1 x 1: 4:4:4, 4:2:2,
4:4:0, 4:2:0 and 4:1:1."""


class PlainJpeg(NamedTuple):
    """A file of the plain kind."""

    content: bytes
    """All its bytes."""

    size: tuple[int, int]
    """(height, width) by its header."""


def read_plain_jpeg(file: str | BytesIO) -> PlainJpeg | None:
    """The JPEG file of the plain kind that lies there; `None` for any other, and for none."""
    if isinstance(file, BytesIO):
        content = file.getvalue()
    else:
        try:
            with Path(file).open("rb") as opened:
                content = opened.read(len(START))
                if content == START:  # another format need not be read whole
                    content += opened.read()
        except OSError:
            return None
    size = frame_size(content)
    return None if size is None else PlainJpeg(content, size)


def frame_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) that the header of a plain JPEG file states; `None` for any other file."""
    # Some writers fill up with zeros. A marker cannot stand within coded pixels, so a file that
    # ends with this one is not cut short.
    if not (content.startswith(START) and content.rstrip(b"\0").endswith(END)):
        return None
    frame = b""
    jfif, adobe = False, None
    place = len(START)
    while (segment := _segment(content, place)) is not None:
        marker, body = segment
        place += 4 + len(body)
        if marker in OTHER_FRAMES or (marker in FRAMES and frame):
            return None
        if marker in FRAMES:
            frame = body
        elif marker == JFIF and body.startswith(b"JFIF\0"):
            jfif = True
        elif marker == ADOBE and body.startswith(b"Adobe") and len(body) >= 12:  # noqa: PLR2004  up to the colour transform
            adobe = body[11]
        elif marker == SCAN:
            return _plain_size(frame, jfif=jfif, adobe=adobe)
    return None


def _segment(content: bytes, place: int) -> tuple[int, bytes] | None:
    """Marker and body of the segment at a place; `None` where no whole one begins."""
    if place + 4 > len(content) or content[place] != START[0]:
        return None
    marker, length = struct.unpack(">xBH", content[place : place + 4])
    body = content[place + 4 : place + 2 + length]
    return (marker, body) if length >= 2 and len(body) == length - 2 else None  # noqa: PLR2004  the length counts itself


def _plain_size(frame: bytes, *, jfif: bool, adobe: int | None) -> tuple[int, int] | None:
    """(height, width) of a frame header of luminance and chrominance in a usual subsampling."""
    if len(frame) != 6 + 3 * 3:  # six bytes, and three for each component
        return None
    bits, height, width, _ = struct.unpack(">BHHB", frame[:6])
    names, samplings = frame[6::3], frame[7::3]
    # What the components are, in libjpeg's order of belief: a JFIF header, Adobe's, the names.
    coloured = jfif or names == b"\1\2\3" if adobe is None else adobe == YCBCR
    usual = samplings[0] in LUMINANCE and samplings[1:] == b"\x11\x11"
    plain = bits == 8 and coloured and names != b"RGB" and usual  # noqa: PLR2004
    return (height, width) if plain and height and width else None
