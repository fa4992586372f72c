"""Files of nolb's own: any model that its name builds again comes back weight by weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import Classifier
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.checkpoints.own import content_of, write_file
from pipeline.errors import CheckpointError
from pipeline.pretrained import load_pretrained
from tests.checkpoints.peer_files import FAMILIES, save
from tests.small_data import small_checkpoint


def saved_again(model: TrainedModel, path: Path, model_option: str = "auto") -> TrainedModel:
    write_file(path, content_of(model, ()))
    return load_checkpoint(path, model=model_option)


def require_same(one: TrainedModel, other: TrainedModel) -> None:
    assert one.backbone_digest() == other.backbone_digest()
    assert one.classifier.digest() == other.classifier.digest()
    assert one.preprocessing == other.preprocessing
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    images = one.preprocessing.normalize(pixels)
    with torch.inference_mode():
        assert torch.equal(one.module(images), other.module(images))


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("RIDE")])
def test_each_kind_of_file_comes_back(tmp_path: Path, name: str) -> None:
    make, family, _ = FAMILIES[name]
    path = save(make(), tmp_path / "model.pth")
    model = load_checkpoint(path, model="lade:lade" if family == "lade" else "auto")
    require_same(model, saved_again(model, tmp_path / "again.pth"))


def test_several_experts_are_no_network_of_one_name(tmp_path: Path) -> None:
    model = load_checkpoint(save(FAMILIES["RIDE"][0](), tmp_path / "ride.pth"))
    with pytest.raises(CheckpointError, match=r"ride-resnet8-3x48 again .*: leave --save-model"):
        content_of(model, ())


@pytest.mark.parametrize(
    "head",
    [
        Classifier(np.eye(3, 128, dtype=np.float32), None, 1.0, normalized=False),
        Classifier(np.eye(3, 128, dtype=np.float32), None, 16.0, normalized=True),
    ],
    ids=["no bias", "cosine"],
)
def test_heads_that_are_not_the_networks_own(tmp_path: Path, head: Classifier) -> None:
    model = load_checkpoint(small_checkpoint(tmp_path / "model.pth")).with_classifier(head)
    require_same(model, saved_again(model, tmp_path / "again.pth"))


def test_a_factory_runs_only_where_it_is_named_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saved_nets.py").write_text(
        "from pipeline.backbones import find_backbone\n\n"
        "def small(num_classes=3):\n"
        "    return find_backbone('small-cnn').build(num_classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    name = "saved_nets:small"
    model = load_pretrained(name)
    require_same(model, saved_again(model, tmp_path / "own.pth", f"nolb:{name}"))
    with pytest.raises(CheckpointError, match="a file alone has no code run"):
        load_checkpoint(tmp_path / "own.pth")


def test_what_it_was_trained_on_is_kept(tmp_path: Path) -> None:
    model = load_checkpoint(small_checkpoint(tmp_path / "model.pth"))
    assert saved_again(model, tmp_path / "unknown.pth").training_images == ""
    known = replace(model, training_images="0123")
    assert saved_again(known, tmp_path / "known.pth").training_images == "0123"


def test_classes_are_named_or_numbered(tmp_path: Path) -> None:
    model = load_checkpoint(small_checkpoint(tmp_path / "model.pth"))
    assert saved_again(model, tmp_path / "numbers.pth").class_names == ("0", "1", "2")
    write_file(tmp_path / "names.pth", content_of(model, ["ant", "bee", "cat"]))
    assert load_checkpoint(tmp_path / "names.pth").class_names == ("ant", "bee", "cat")
