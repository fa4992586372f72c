"""Geometry and normalisation against torchvision's own transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from pipeline.datasets import Preprocessing
from pipeline.errors import ConfigError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
side = st.integers(1, 40)


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@given(side, side, st.none() | side, st.none() | side)
@settings(max_examples=150, deadline=None)
def test_equals_torchvision(width: int, height: int, resize: int | None, crop: int | None) -> None:
    image = picture(width, height)
    steps = [transforms.Resize(resize)] if resize else []
    steps += [transforms.CenterCrop(crop)] if crop else []
    theirs = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    ours = Preprocessing(MEAN, STD, resize, crop)
    pixels = ours.to_uint8(image)
    assert pixels.dtype == np.uint8
    tensor = ours.normalize(torch.from_numpy(pixels.copy())[None])[0]
    # Values up to 2.7 in float32, rounded three times: 3 * 2^-23 * 2.7 = 1e-6.
    torch.testing.assert_close(tensor, theirs(image), rtol=0, atol=1e-6)


def test_normalises_known_pixels() -> None:
    pixels = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    x = Preprocessing((0.5, 0.0, 0.1), (0.5, 0.25, 1.0)).normalize(pixels)
    # (0 - .5)/.5 = -1, (1 - 0)/.25 = 4, (.2 - .1)/1 = .1
    assert x.shape == (1, 3, 1, 1)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.flatten(), torch.tensor([-1.0, 4.0, 0.1]))


def test_bgr_is_the_rgb_input_with_its_planes_in_reverse() -> None:
    pixels = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    rgb, bgr = Preprocessing(MEAN, STD), Preprocessing(MEAN, STD, channels="BGR")
    assert torch.equal(bgr.normalize(pixels), rgb.normalize(pixels)[:, [2, 1, 0]])


def test_the_input_pixels_stay_as_they_are() -> None:
    pixels = torch.full((1, 2, 2, 3), 7, dtype=torch.uint8)
    Preprocessing(MEAN, STD).normalize(pixels)
    assert torch.all(pixels == 7)


def test_one_line_tells_every_value() -> None:
    assert Preprocessing(MEAN, STD, 256, 224, "BGR").describe() == (
        "resize 256 bilinear antialias, centre crop 224, BGR, x/255, "
        "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"
    )
    assert Preprocessing(MEAN, STD).describe().startswith("no resize, no crop, RGB")


def test_the_line_tells_how_it_resizes() -> None:
    squashed = Preprocessing(MEAN, STD, 256, 224, interpolation="bicubic", squash=True)
    assert squashed.describe().startswith("resize 256x256 bicubic antialias, centre crop 224")


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("size", [(31, 77), (90, 40), (64, 64)])
def test_bicubic_and_squashing_are_torchvisions(size: tuple[int, int], squash: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    image = Image.fromarray(pixels)
    theirs = transforms.Compose(
        [
            transforms.Resize((48, 48) if squash else 48, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(40),
        ]
    )
    ours = Preprocessing(MEAN, STD, 48, 40, interpolation="bicubic", squash=squash)
    assert np.array_equal(ours.to_uint8(image), np.asarray(theirs(image)))


def test_lists_from_json_are_the_same_preprocessing() -> None:
    listed = Preprocessing(list(MEAN), list(STD))  # type: ignore[arg-type]  # JSON has no tuples
    assert listed == Preprocessing(MEAN, STD)
    assert hash(listed) == hash(Preprocessing(MEAN, STD))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean needs three finite numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean needs three finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std divides the image and must be above 0"),
        ({"resize": 0}, "resize is a side in pixels"),
        ({"crop": -1}, "crop is a side in pixels"),
        ({"channels": "GRB"}, "must be RGB or BGR"),
        ({"interpolation": "nearest"}, "must be bilinear or bicubic; got 'nearest'"),
        ({"squash": True}, "set resize too"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**{"mean": MEAN, "std": STD, **values})  # type: ignore[arg-type]  # on purpose
