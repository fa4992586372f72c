from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from pipeline.config import ExtractConfig
from pipeline.datasets import Preprocessing
from pipeline.errors import ExportError
from pipeline.exporting import model_of_identity
from pipeline.stages.extract import extract
from tests.exporting.exported import Small, small_extraction


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small_extraction(tmp_path_factory.mktemp("small"))


def test_preprocessing_set_by_hand_at_extraction_is_the_exports(small: Small) -> None:
    by_hand = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    identity = dataclasses.replace(small.store.identity, preprocessing=by_hand.to_json())
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
