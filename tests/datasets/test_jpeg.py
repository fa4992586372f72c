"""Which JPEG files are of the plain kind, told by their headers."""

from __future__ import annotations

import contextlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.decoding import read_rgb
from pipeline.datasets.jpeg import frame_size, read_plain_jpeg
from pipeline.errors import UnreadableImageError

HEIGHT, WIDTH = 9, 14


def encoded(mode: str = "RGB", kind: str = "JPEG", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def with_byte(content: bytes, marker: bytes, offset: int, value: int) -> bytes:
    """One byte behind the start of a marker changed."""
    changed = bytearray(content)
    changed[content.index(marker) + offset] = value
    return bytes(changed)


def with_adobe(content: bytes, transform: int) -> bytes:
    """An Adobe segment in place of the JFIF one, which stands first and is 18 bytes long."""
    segment = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return content[:2] + segment + content[20:]


def rotated() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6  # a quarter turn
    return tags


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"progressive": True},
        {"optimize": True},
        {"quality": 5},
        {"comment": b"\xff\xd9 within a comment"},
        {"exif": rotated()},  # the tag is ignored wherever images are decoded
    ],
)
def test_plain_files_tell_their_size(options: dict[str, Any]) -> None:
    assert frame_size(encoded(**options)) == (HEIGHT, WIDTH)


def test_adobe_s_luminance_and_chrominance_are_plain_and_its_rgb_is_not() -> None:
    assert frame_size(with_adobe(encoded(), transform=1)) == (HEIGHT, WIDTH)
    assert frame_size(with_adobe(encoded(), transform=0)) is None


def test_zeros_behind_the_end_are_ignored() -> None:
    assert frame_size(encoded() + bytes(7)) == (HEIGHT, WIDTH)


SOF0, SOF2 = b"\xff\xc0", b"\xff\xc2"


def named_rgb() -> bytes:
    """A JFIF file, hence of luminance and chrominance, whose components are called R, G and B."""
    content = encoded()
    for offset, letter in zip((10, 13, 16), b"RGB", strict=True):
        content = with_byte(content, SOF0, offset, letter)
    return content


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("grey", encoded("L")),
        ("CMYK", encoded("CMYK")),
        ("RGB", encoded(keep_rgb=True)),
        ("RGB by name alone", named_rgb()),
        ("PNG", encoded(kind="PNG")),
        ("nothing", b""),
        ("markers alone", b"\xff\xd8\xff\xd9"),
        ("bytes behind the end", encoded() + b"more"),
        # Behind a frame's marker: two bytes of length, then bits, height, width, components.
        ("12 bits", with_byte(encoded(), SOF0, 4, 12)),
        ("arithmetic codes", with_byte(encoded(), SOF0, 1, 0xC9)),
        ("lossless", with_byte(encoded(), SOF0, 1, 0xC3)),
        ("no height", with_byte(with_byte(encoded(), SOF0, 5, 0), SOF0, 6, 0)),
        ("an odd subsampling", with_byte(encoded(), SOF0, 11, 0x31)),
        ("chrominance finer than luminance", with_byte(encoded(), SOF0, 14, 0x22)),
        ("a segment beyond the end", with_byte(encoded(), SOF0, 2, 0xFF)),
        ("two frames", encoded(progressive=True).replace(b"\xff\xdb", SOF2)),
    ],
)
def test_all_others_are_left_to_the_readers(what: str, content: bytes) -> None:
    assert frame_size(content) is None, what


def test_a_file_that_is_cut_anywhere_is_not_plain() -> None:
    content = encoded()
    for stop in range(len(content)):
        assert frame_size(content[:stop]) is None, stop


@given(st.data())
def test_no_damage_makes_it_raise_or_invent_a_size(data: st.DataObject) -> None:
    content = bytearray(encoded())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    size = frame_size(bytes(content))
    if size is not None and max(size) < 1000:
        with contextlib.suppress(UnreadableImageError):  # where it can be decoded, it has that size
            image = read_rgb(BytesIO(content))
            assert (image.height, image.width) == size


def test_it_reads_paths_and_contents(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.jpg", tmp_path / "other.jpg"
    plain.write_bytes(encoded())
    other.write_bytes(encoded(kind="PNG"))
    for file in (str(plain), BytesIO(encoded())):
        found = read_plain_jpeg(file)
        assert found is not None
        assert found.content == encoded()
        assert found.size == (HEIGHT, WIDTH)
    assert read_plain_jpeg(str(other)) is None
    assert read_plain_jpeg(str(tmp_path / "missing.jpg")) is None
    assert read_plain_jpeg(str(tmp_path)) is None
