"""`nolb inspect`: what a file holds and what would become of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.checkpoints import inspect_checkpoint
from pipeline.errors import CheckpointError
from tests.checkpoints.peer_files import (
    ONE_EACH,
    C,
    lade,
    paco,
    part,
    ride_assigned,
    save,
    weights,
)
from tests.commands import nolb, refused


@pytest.mark.parametrize("name", ONE_EACH)
def test_every_kind_of_file_is_described(tmp_path: Path, name: str) -> None:
    make, family, backbone = ONE_EACH[name]
    found = inspect_checkpoint(save(make(), tmp_path / "x.pth"))
    assert (found.family, found.backbone, found.n_classes) == (family, backbone, C)
    assert found.evidence
    assert found.stored_as is not None
    assert found.stored_as.startswith(f"weight ({C}, {found.feature_width}) on ")
    assert bool(found.choices) == bool(found.problem) == (family == "lade")
    assert json.loads(json.dumps(found.to_json()))["backbone"] == backbone


def test_the_command_says_it_in_words(tmp_path: Path) -> None:
    text = nolb("inspect", save(ride_assigned(), tmp_path / "x.pth")).stdout
    lines = {line[:14].strip(): line[15:] for line in text.splitlines()}
    assert lines["not loaded"].startswith("argparse.Namespace, ")
    assert lines["family"].startswith("ride: backbone.linears of 3 experts, weight (48, 7) with")
    assert lines["backbone"] == "ride-resnet8-3x48, features of width 144"
    assert lines["classes"] == "7"
    assert lines["classifier"] == "mean over 3 experts of 30 * cosine"
    assert lines["stored as"] == "weight (7, 144) on features, without bias, scale 10"
    assert lines["preprocessing"].startswith("no resize, no crop, RGB, x/255, mean (0.4914, ")
    assert lines["same again"] == "--model ride:ride-resnet8-3x48"


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    text = nolb("inspect", save(paco(weights()), tmp_path / "x.pth")).stdout
    # ResNet-20 has 19 convolutions of 1 + 5 entries each before its classifier: 114 in the key
    # encoder, and 2 + 2 of the projections, 3 of the queue, 2 of linear_k.
    assert (
        "left out       123 that neither features nor logits need: queue, queue_l, queue_ptr, "
        in text
    )
    # 114 and the classifier's 2.
    assert "loaded         116 weights" in text


def test_an_open_question_is_shown_with_its_answers(tmp_path: Path) -> None:
    file = save(lade(weights("bbn-resnet32", "fc")), tmp_path / "x.pth")
    text = nolb("inspect", file).stdout
    assert text.count("\nchoose         --model lade:") == 3
    assert "backbone       bbn-resnet32, features of width 128" in text
    text = nolb("inspect", file, "--model", "lade:ce").stdout
    assert "needs          The training images' class counts" in text
    assert "same again     --model lade:ce,bbn-resnet32" in text


def test_json_goes_to_standard_output_alone(tmp_path: Path) -> None:
    file = save(weights(), tmp_path / "x.pth")
    result = nolb("inspect", file, "--json", "-")
    content = json.loads(result.stdout)
    assert (content["family"], content["n_classes"]) == ("plain", C)
    assert content["n_weights"] == 116
    assert "backbone       cifar-resnet20" in result.stderr


def test_a_file_that_nothing_fits_is_described_as_far_as_it_goes(tmp_path: Path) -> None:
    file = save({"encoder": part(weights(), "layer1"), "epoch": 3}, tmp_path / "x.pth")
    text = nolb("inspect", file, code=1).stdout
    assert "holds          at its top level: encoder with 36 tensors, epoch" in text
    assert "problem " in text
    assert "no family recognises it" in text
    state = weights()
    del state["bn1.weight"]
    text = nolb("inspect", save(state, file), "--model", "plain:cifar-resnet20", code=1).stdout
    assert "1 missing: bn1.weight" in text


def test_what_is_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        inspect_checkpoint(tmp_path / "x.pth")
    assert refused("inspect", tmp_path / "x.pth").startswith("nolb: ")
    file = save(weights(), tmp_path / "x.pth")
    told = refused("inspect", file, "--model", "nothing")
    assert "No checkpoint family is called 'nothing'" in told
