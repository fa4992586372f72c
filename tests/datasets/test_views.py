"""Views: the random ones depend on seed, sample and number alone, the fixed ones on nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import ExtractConfig
from pipeline.config.extract import MOST_TEST_VIEWS
from pipeline.datasets import Preprocessing, ShiftedViews, ViewSpec
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


def places(views: NDArray[np.uint8], shift: int) -> list[tuple[int, int, bool]]:
    """Where each view of a numbered image has moved to, down and right, and whether mirrored."""
    size = views.shape[1]
    found = (offset(view, size, shift) for view in views)
    return [
        (shift - top, (left - shift) if mirrored else (shift - left), mirrored)
        for top, left, mirrored in found
    ]


def test_test_views_move_the_image_and_its_mirror_image_opposite_ways() -> None:
    views = ShiftedViews(9, shift=2, fill="black").make_all(numbered(8, 8), "x", PLAIN)
    assert places(views, 2) == [
        (0, 0, False), (0, 0, True),
        (0, -2, False), (0, 2, True),
        (-2, 0, False), (2, 0, True),
        (0, 2, False), (0, -2, True),
        (2, 0, False), (-2, 0, True),
    ]  # fmt: skip


def test_a_moved_view_is_the_image_beside_the_colour_of_the_padding() -> None:
    image = numbered(6, 5)
    clean, mirror, left, right = ShiftedViews(3, shift=1, fill="black").make_all(image, "x", PLAIN)
    pixels, black = np.asarray(image), np.zeros((5, 1, 3), np.uint8)
    assert np.array_equal(clean, pixels)
    assert np.array_equal(mirror, pixels[:, ::-1])
    assert np.array_equal(left, np.concatenate([pixels[:, 1:], black], axis=1))
    assert np.array_equal(right, np.concatenate([black, pixels[:, :0:-1]], axis=1))
    preprocessing = Preprocessing(mean=(0.2, 0.5, 0.8), std=PLAIN.std)
    moved = ShiftedViews(3, shift=1).make_all(image, "x", preprocessing)[2]
    assert np.array_equal(moved[:, -1], np.tile(preprocessing.mean_colour(), (5, 1)))


@pytest.mark.parametrize("total", range(2, 19, 2))
def test_every_even_number_of_images_is_balanced(total: int) -> None:
    views = ShiftedViews(total - 1, shift=2, fill="black").make_all(numbered(9, 9), "x", PLAIN)
    found = places(views, 2)
    assert len(set(found)) == total
    assert sum(mirrored for _, _, mirrored in found) == total / 2
    assert np.sum([place[:2] for place in found], axis=0).tolist() == [0, 0]


@given(st.integers(4, 12), st.integers(4, 12), st.none() | st.integers(1, 14), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_the_first_test_view_is_the_mirror_image(w: int, h: int, crop: int | None, k: int) -> None:
    preprocessing = Preprocessing(PLAIN.mean, PLAIN.std, crop=crop)
    image = numbered(w, h)
    clean, mirror, *_ = views = ShiftedViews(17, k).make_all(image, "x", preprocessing)
    assert np.array_equal(clean, preprocessing.to_uint8(image))
    assert np.array_equal(mirror, clean[:, ::-1])
    few = ShiftedViews(4, k).make_all(image, "of another name", preprocessing)
    assert np.array_equal(few, views[:5])  # the same for every sample, and more only come after


def test_the_mirror_view_of_a_symmetric_image_is_the_image() -> None:
    half = np.asarray(numbered(5, 6))
    image = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    clean, mirror = ShiftedViews(1).make_all(image, "x", PLAIN)
    assert np.array_equal(clean, mirror)


def test_test_views_of_larger_images_show_what_the_centre_crop_cuts_away() -> None:
    preprocessing = Preprocessing((1.0, 1.0, 1.0), PLAIN.std, resize=12, crop=8)
    views = ShiftedViews(17, shift=2).make_all(numbered(12, 12), "x", preprocessing)
    assert not (views == 255).any()  # the padding is white
    assert np.array_equal(views[2], np.asarray(numbered(12, 12))[2:10, 4:12])


def test_without_flip_no_test_view_is_mirrored() -> None:
    views = ShiftedViews(8, shift=1, fill="black", flip=False).make_all(numbered(5, 5), "x", PLAIN)
    found = places(views, 1)
    assert not any(mirrored for _, _, mirrored in found)
    assert {place[:2] for place in found} == {(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)}


def test_one_line_tells_every_value_that_matters_to_test_views() -> None:
    assert ShiftedViews(0).describe() == ""
    assert ShiftedViews(1, shift=3).describe() == "1 test views, mirror images"
    assert ShiftedViews(7, fill="black").describe() == (
        "7 test views, mirror images, moves by 2, black padding"
    )
    assert ShiftedViews(2, flip=False).describe() == "2 test views, moves by 2, mean padding"


def test_an_image_is_not_moved_out_of_sight() -> None:
    assert ShiftedViews(1, shift=5).make_all(numbered(9, 5), "x", PLAIN).shape == (2, 5, 9, 3)
    with pytest.raises(
        ConfigError, match=r"by 5 pixels, an image of 9 x 5 is out of sight.*--test"
    ):
        ShiftedViews(2, shift=5).make_all(numbered(9, 5), "x", PLAIN)


@pytest.mark.parametrize("flip", [True, False])
def test_more_test_views_than_there_are_are_refused(flip: bool) -> None:
    most = MOST_TEST_VIEWS[flip]
    config = ExtractConfig(test_views=most, test_view_shift=3, view_fill="black", view_flip=flip)
    assert ShiftedViews.of(config) == ShiftedViews(most, 3, "black", flip)
    for wrong in ({"count": most + 1}, {"count": -1}, {"shift": 0}):
        with pytest.raises(ConfigError, match="not"):
            ShiftedViews(**{"flip": flip, **wrong})  # type: ignore[arg-type]  # a table of cases


def test_colour_and_erased_squares_take_turns() -> None:
    # Grey that no enhancement of brightness keeps, on a field larger than the crop: no padding.
    preprocessing = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    image = Image.fromarray(np.full((12, 12, 3), (200, 100, 50), np.uint8))
    spec = ViewSpec(count=40, padding=0, fill="black", colour=0.5, erase=5)
    views = spec.make_all(image, "a", preprocessing)[1:]
    for view, pixels in enumerate(views):
        colours = np.unique(pixels.reshape(-1, 3), axis=0)
        if view % 2:  # a square of black, at least its quarter within the image, and the rest
            assert colours.tolist() == [[0, 0, 0], [200, 100, 50]]
            rows, columns = np.nonzero((pixels == 0).all(axis=2))
            assert np.array_equal(np.unique(rows), np.arange(rows.min(), rows.max() + 1))
            assert 9 <= len(rows) == len(np.unique(rows)) * len(np.unique(columns)) <= 25
        else:  # one colour, another one
            assert len(colours) == 1
            assert colours[0].tolist() != [200, 100, 50]
    assert len({view.tobytes() for view in views}) > 30
    assert "colour 0.5 or erased 5" in spec.describe()


def test_views_without_changes_of_colour_are_what_they_were() -> None:
    image = numbered(8, 8)
    plain, coloured = ViewSpec(count=6), ViewSpec(count=6, erase=1)
    cut, erased = (spec.make_all(image, "a", PLAIN)[1:] for spec in (plain, coloured))
    assert ((cut != erased).any(axis=3).sum(axis=(1, 2)) <= 1).all()
    assert plain.describe() == "6 views, seed 0, mean padding 4, random crop, horizontal flip 1/2"


@pytest.mark.parametrize("wrong", [{"erase": -1}, {"colour": 1.5}, {"colour": -0.1}])
def test_changes_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ViewSpec(**wrong)  # type: ignore[arg-type]
