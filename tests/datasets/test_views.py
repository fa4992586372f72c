"""Views: seeded, independent of everything but seed, sample and number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets import Preprocessing, ViewSpec
from pipeline.errors import ConfigError

PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def numbered(width: int, height: int) -> Image.Image:
    """An image whose pixels name their place (row + 1, column + 1), so that none is black."""
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1]
    return Image.fromarray(np.stack([rows, columns, rows], axis=2).astype(np.uint8))


def offset(view: NDArray[np.uint8], size: int, padding: int) -> tuple[int, int, bool]:
    """Top, left and mirrored of a square view, from the places that its pixels name."""
    row, column = np.argwhere(view[..., 0] > 0)[0]
    top = int(view[row, column, 0]) - 1 + padding - row
    line = view[row, :, 1].astype(int)
    inside = np.flatnonzero(line)
    mirrored = bool(line[inside[0]] > line[inside[-1]])
    if mirrored:
        inside, line = np.flatnonzero(line[::-1]), line[::-1]
    return int(top), int(line[inside[0]] - 1 + padding - inside[0]), mirrored


def test_a_view_is_a_shifted_perhaps_mirrored_image_on_black() -> None:
    image, spec = numbered(8, 8), ViewSpec(count=40, padding=3, fill="black")
    padded = np.pad(np.asarray(image), ((3, 3), (3, 3), (0, 0)))
    for view in range(40):
        made = spec.make(image, "a", view, PLAIN)
        top, left, mirrored = offset(made, 8, 3)
        expected = padded[top : top + 8, left : left + 8]
        assert np.array_equal(made, expected[:, ::-1] if mirrored else expected)


def test_mean_padding_is_what_normalisation_turns_into_zeros() -> None:
    preprocessing = Preprocessing(mean=(0.2, 0.5, 0.8), std=(0.25, 0.25, 0.25))
    white = Image.new("RGB", (4, 4), "white")
    views = ViewSpec(count=30, padding=3).make_all(white, "x", preprocessing)[1:]
    normalized = preprocessing.normalize(torch.from_numpy(views)).permute(0, 2, 3, 1).numpy()
    border = (views != 255).any(axis=3)
    assert border.any()
    # Half a grey level of rounding: 0.5 / 255 / 0.25 = 0.0078.
    assert np.abs(normalized[border]).max() <= 0.0079


def test_all_offsets_and_both_directions_come_about_equally_often() -> None:
    image, spec, n = numbered(8, 8), ViewSpec(count=1, padding=1, fill="black"), 1800
    drawn = [offset(spec.make(image, f"{i}.png", 0, PLAIN), 8, 1) for i in range(n)]
    # 3 x 3 offsets x 2 directions: 100 each, standard deviation sqrt(1800/18 * 17/18) = 9.7.
    counts = [drawn.count((t, le, m)) for t in range(3) for le in range(3) for m in (False, True)]
    assert sum(counts) == n
    assert all(abs(count - 100) < 5 * 9.7 for count in counts)


def test_offsets_are_pinned_so_that_stores_can_be_extended_by_later_versions() -> None:
    spec, image = ViewSpec(count=4, seed=7, padding=4, fill="black"), numbered(32, 32)
    drawn = [offset(spec.make(image, "apple/1.png", view, PLAIN), 32, 4) for view in range(4)]
    # blake2b("7/VIEW/apple/1.png", 16 bytes) as a little-endian number: its remainder by 9 is the
    # top, that of the quotient by 9 the left, the next quotient's parity says whether mirrored.
    assert drawn == [(8, 3, True), (4, 2, False), (7, 2, False), (7, 0, True)]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 5), st.none() | st.integers(1, 24))
@settings(max_examples=60, deadline=None)
def test_all_at_once_equals_one_by_one(w: int, h: int, padding: int, crop: int | None) -> None:
    preprocessing = Preprocessing(PLAIN.mean, PLAIN.std, crop=crop)
    spec, image = ViewSpec(count=3, seed=w, padding=padding), numbered(w, h)
    together = spec.make_all(image, "x", preprocessing)
    clean = preprocessing.to_uint8(image)
    assert together.shape == (4, *clean.shape)
    assert np.array_equal(together[0], clean)
    for view in range(3):
        assert np.array_equal(together[1 + view], spec.make(image, "x", view, preprocessing))


def test_resized_images_are_cropped_from_the_whole_not_from_the_centre() -> None:
    preprocessing = Preprocessing(PLAIN.mean, PLAIN.std, resize=16, crop=8)
    spec = ViewSpec(count=60, padding=0, flip=False)
    views = spec.make_all(numbered(64, 64), "x", preprocessing)[1:]
    assert views.shape == (60, 8, 8, 3)
    # Corners lie anywhere in the 16 x 16 image, not at the centre crop's (4, 4) alone.
    assert len({tuple(view[0, 0]) for view in views}) > 20


def test_no_padding_and_no_flip_leave_the_image() -> None:
    spec = ViewSpec(count=1, padding=0, flip=False)
    assert np.array_equal(spec.make(numbered(5, 4), "x", 0, PLAIN), np.asarray(numbered(5, 4)))


def test_seed_sample_and_number_each_change_the_view() -> None:
    image = numbered(32, 32)

    def drawn(seed: int, sample: str, first: int) -> list[bytes]:
        spec = ViewSpec(count=8, seed=seed)
        return [spec.make(image, sample, first + i, PLAIN).tobytes() for i in range(8)]

    assert drawn(0, "a", 0) == drawn(0, "a", 0)
    assert drawn(0, "a", 0) != drawn(1, "a", 0)
    assert drawn(0, "a", 0) != drawn(0, "b", 0)
    assert drawn(0, "a", 0) != drawn(0, "a", 8)


def test_one_line_tells_every_value() -> None:
    assert ViewSpec(12, seed=3).describe() == (
        "12 views, seed 3, mean padding 4, random crop, horizontal flip 1/2"
    )
    assert "black padding 4" in ViewSpec(1, fill="black").describe()
    assert ViewSpec(1, flip=False).describe().endswith("no flip")
    assert ViewSpec(0).describe() == ""


@pytest.mark.parametrize("values", [{"count": -1}, {"padding": -1}])
def test_negative_sizes_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be 0 or more; got -1"):
        ViewSpec(**values)  # type: ignore[arg-type]  # a table of cases
