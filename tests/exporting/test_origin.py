from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets import Preprocessing
from pipeline.errors import ExportError
from pipeline.exporting import model_of_identity
from pipeline.exporting.origin import printed_preprocessing
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
