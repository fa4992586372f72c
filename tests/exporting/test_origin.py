from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import ExtractConfig
from pipeline.config.extract import MOST_TEST_VIEWS
from pipeline.datasets import Preprocessing, ShiftedViews, ViewSpec
from pipeline.datasets.views import Fill
from pipeline.errors import ExportError
from pipeline.exporting import model_of_identity, views_of_identity
from pipeline.exporting.origin import printed_preprocessing
from pipeline.stages.extract import extract
from tests.exporting.exported import Small, small_extraction

channel = st.floats(0.001, 1, allow_nan=False)


@given(
    mean=st.tuples(channel, channel, channel),
    std=st.tuples(channel, channel, channel),
    resize=st.none() | st.integers(1, 999),
    crop=st.none() | st.integers(1, 999),
    channels=st.sampled_from(["RGB", "BGR"]),
)
def test_preprocessing_comes_back_from_what_it_prints(**values: object) -> None:
    preprocessing = Preprocessing(**values)  # type: ignore[arg-type]  # drawn by name
    assert printed_preprocessing(preprocessing.describe()) == preprocessing


def test_other_words_are_refused() -> None:
    with pytest.raises(ExportError, match="cannot be rebuilt"):
        printed_preprocessing("as usual")


@pytest.mark.parametrize("training", [ViewSpec(), ViewSpec(3, colour=0.4, erase=2)])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("fill", ["mean", "black"])
@pytest.mark.parametrize("shift", [1, 3])
def test_test_views_come_back_from_what_a_store_says(
    small: Small, training: ViewSpec, flip: bool, fill: Fill, shift: int
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8))
    preprocessing = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for count in range(1 + MOST_TEST_VIEWS[flip]):
        views = ShiftedViews(count, shift, fill, flip)
        words = "; ".join(filter(None, (training.describe(), views.describe())))
        found = views_of_identity(dataclasses.replace(small.store.identity, views=words))
        assert found.describe() == views.describe()
        pixels = [each.make_all(picture, "x", preprocessing) for each in (views, found)]
        assert np.array_equal(*pixels)


@pytest.mark.parametrize("words", ["18 test views, mirror images, moves by 2, mean padding", "9 test views", "7 test views, by chance", "3 test views, mirror images, moves by 0, mean padding"])  # fmt: skip  # noqa: E501
def test_test_views_in_other_words_are_refused(small: Small, words: str) -> None:
    identity = dataclasses.replace(small.store.identity, views=words)
    with pytest.raises(ExportError, match="cannot be made again: extract the store again"):
        views_of_identity(identity)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small_extraction(tmp_path_factory.mktemp("small"))


def test_preprocessing_set_by_hand_at_extraction_is_the_exports(small: Small) -> None:
    by_hand = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    identity = dataclasses.replace(small.store.identity, preprocessing=by_hand.describe())
    model = model_of_identity(small.checkpoint, identity, small.head.class_counts)
    assert model.preprocessing == by_hand


def test_a_file_that_was_saved_again_is_the_same_model(small: Small, tmp_path: Path) -> None:
    content = torch.load(small.checkpoint, weights_only=True)
    torch.save(content | {"note": 1}, tmp_path / "again.pth")
    model = model_of_identity(tmp_path / "again.pth", small.store.identity, small.head.class_counts)
    assert model.sha256 != small.store.identity.checkpoint


def test_another_checkpoint_is_refused_by_what_differs(small: Small, tmp_path: Path) -> None:
    content = torch.load(small.checkpoint, weights_only=True)
    content["state_dict"]["conv1.weight"] += 1
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ExportError, match="backbone"):
        model_of_identity(tmp_path / "other.pth", small.store.identity, small.head.class_counts)


def test_statistics_that_no_file_holds_are_told(small: Small) -> None:
    sources = {name: small.folder / name for name in ("train", "test")}
    config = ExtractConfig(device="cpu", workers=0, recalibrate_bn=6)
    store = extract(small.checkpoint, sources, small.folder / "bn.zarr", config).store
    with pytest.raises(ExportError, match=r"with --recalibrate-bn, .* extract --save-model"):
        model_of_identity(small.checkpoint, store.identity, store.class_counts.tolist())
