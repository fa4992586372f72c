from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DatasetError, UnreadableImageError
from pipeline.lookup import ImageLookup
from pipeline.reporting import make_thumbnails


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_small_images_stay_exact_and_large_ones_shrink_without_metadata(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (400, 200)).save(tmp_path / "large.jpg", exif=exif)
    found = make_thumbnails(ImageLookup(tmp_path), ["small.png", "large.jpg", "lost.png"])
    np.testing.assert_array_equal(np.asarray(decoded(found.uris["small.png"])), pixels)
    large = decoded(found.uris["large.jpg"])
    assert large.size == (96, 48)
    assert not large.getexif()
    assert found.unreadable == {"lost.png": "no such file"}


def test_ids_cannot_leave_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    for sample_id in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(UnreadableImageError, match="leaves the folder"):
            ImageLookup(inside).read(sample_id)


def test_a_named_data_set_is_found_by_its_ids() -> None:
    lookup = ImageLookup("digits-lt:test")
    from pipeline.datasets import open_source

    source = open_source("digits-lt:test")
    np.testing.assert_array_equal(
        np.asarray(lookup.read(source.ids[5])), np.asarray(source.read(5))
    )
    with pytest.raises(UnreadableImageError, match="no such sample"):
        lookup.read("digits/99999")


def test_a_file_or_nothing_is_no_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png 0")
    with pytest.raises(DatasetError, match="give the folder"):
        ImageLookup(tmp_path / "list.txt")
    with pytest.raises(DatasetError, match="no such folder"):
        ImageLookup(tmp_path / "nowhere")
