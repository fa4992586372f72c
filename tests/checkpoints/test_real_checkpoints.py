"""Real checkpoints, and what their peers' own code computes from them.

The cases lie in ../shared/fixtures/peers: files that each peer's script saved, the images, and the
features and logits of the peer's own network, with the tolerance that their rounding asks for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name the field uses
from numpy.typing import NDArray

from pipeline.backbones import Tap
from pipeline.backbones.ride_resnet import ExpertNetwork
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.registry import detected
from pipeline.datasets import open_source
from pipeline.errors import UndecidedError

LDMLR = "checkpoints/ldmlr_cifar100-lt001_resnet32_ce-mixup.checkpoint"

CASES: dict[str, tuple[str, str, str]] = {
    "balms-cifar-r32/final_model_checkpoint.pth": ("auto", "balms", "cifar-resnet32"),
    "balms-cifar-r32/latest_model_checkpoint.pth": ("auto", "balms", "cifar-resnet32"),
    "bot-dive-fc/best_model.pth": ("auto", "bagoftricks", "cifar-resnet32"),
    "bot-fcnorm-ldam/best_model.pth": ("auto", "bagoftricks", "cifar-resnet32"),
    "gpaco-cifar-r32/moco_ckpt.pth.tar": ("auto", "gpaco", "cifar-resnet32"),
    "lade-cifar-ce-pcsoftmax/final_model_checkpoint.pth": ("lade:ce", "lade", "bbn-resnet32"),
    "lade-cifar-ce-pcsoftmax/latest_model_checkpoint.pth": ("lade:ce", "lade", "bbn-resnet32"),
    "lade-cifar-lade/final_model_checkpoint.pth": ("lade:lade", "lade", "bbn-resnet32"),
    "lade-cifar-lade/latest_model_checkpoint.pth": ("lade:lade", "lade", "bbn-resnet32"),
    "ldam-ce-dataparallel/ckpt.best.pth.tar": ("auto", "ldam-drw", "cifar-resnet32"),
    "ldam-ldam-gpu0/ckpt.best.pth.tar": ("auto", "ldam-drw", "cifar-resnet32"),
    "mislas-stage1/model_best.pth.tar": ("auto", "mislas", "cifar-resnet32"),
    "mislas-stage2/model_best.pth.tar": ("auto", "mislas", "cifar-resnet32"),
    "mislas-stage2/variants/modern/model_best.pth.tar": ("auto", "mislas", "cifar-resnet32"),
    "paco-cifar-r32/moco_ckpt.pth.tar": ("auto", "paco", "cifar-resnet32"),
    "ride-cifar-r32-3experts/model_best.pth": ("auto", "ride", "ride-resnet32-3x48"),
    "ride-cifar-r32-ea/model_best.pth": ("auto", "ride", "ride-resnet32-3x48"),
}
"""By file: what has to be named, family, backbone."""

LAYOUTS: dict[str, tuple[str, str, int]] = {
    "keys-cb-imagenetlt-x50/keys_crt.json": (
        "classifier-balancing", "torchvision/resnext50_32x4d", 2048,
    ),
    "keys-cb-imagenetlt-x50/keys_lws.json": (
        "classifier-balancing", "torchvision/resnext50_32x4d", 2048,
    ),
    "keys-mislas-imagenet-r50/keys_stage1.json": ("mislas", "torchvision/resnet50", 2048),
    "keys-mislas-imagenet-r50/keys_stage2.json": ("mislas", "torchvision/resnet50", 2048),
    "keys-mislas-places-r152/keys_stage1.json": ("mislas", "torchvision/resnet152", 2048),
    "keys-mislas-places-r152/keys_stage2.json": ("mislas", "torchvision/resnet152", 2048),
    "keys-paco-imagenetlt-x50/keys.json": ("paco", "torchvision/resnext50_32x4d", 2048),
    "keys-paco-places-r152/keys.json": ("paco", "torchvision/resnet152", 2048),
    "keys-ride-imagenetlt-x50-3experts/keys.json": ("ride", "ride-resnext50-3x1536", 3 * 1536),
}  # fmt: skip
"""By list of keys: family, backbone, width of the features."""


def case(shared: Path, file: str) -> tuple[TrainedModel, dict[str, Any], dict[str, NDArray[Any]]]:
    """The loaded model, its card, and the images and expected arrays."""
    folder = shared / "fixtures" / "peers" / file.split("/", 1)[0]
    card = json.loads((folder / "card.json").read_text())
    with np.load(folder / "expected.npz") as expected, np.load(folder / "images.npz") as images:
        arrays = {**expected, **images}
    model = load_checkpoint(folder.parent / file, model=CASES[file][0])
    if model.rule is not None:
        model = model.for_training_counts(np.array(card["train_class_counts"]))
    return model, card, arrays


@pytest.mark.parametrize("file", CASES)
@torch.inference_mode()
def test_every_peer_computes_what_its_own_code_does(shared: Path, file: str) -> None:
    model, card, arrays = case(shared, file)
    assert (model.family, model.backbone) == CASES[file][1:]
    images = model.preprocessing.normalize(torch.from_numpy(arrays["images"]))
    with Tap(model.module, model.classifier_name) as tap:
        features, logits = tap(images)
    expected = arrays["features"]
    if isinstance(model.module, ExpertNetwork):
        # Cosine heads: what is stored are each expert's normalised features, side by side.
        unit = F.normalize(torch.from_numpy(expected), dim=2).flatten(1).numpy()
        np.testing.assert_allclose(features.numpy(), unit, rtol=0, atol=1e-6)
        features_as_given = model.module.expert_features(images)
    else:
        features_as_given = features
    tolerance = card["suggested_atol"]
    all_experts = arrays.get("logits_all_experts", arrays["logits"])
    for computed, wanted, name in (
        (features_as_given.numpy(), expected, "features"),
        (logits.numpy(), all_experts, "logits"),
        (model.classifier.logits(features.numpy()), all_experts, "logits"),
    ):
        np.testing.assert_allclose(computed, wanted, rtol=0, atol=tolerance[name])


def test_expert_assignment_is_left_out_and_told(shared: Path) -> None:
    model, _, _ = case(shared, "ride-cifar-r32-ea/model_best.pth")
    assert model.left_out
    assert all(name.startswith("backbone.expert_help_pred_") for name in model.left_out)
    assert any("all experts" in note for note in model.notes)


@pytest.mark.parametrize("file", [file for file in CASES if file.startswith("lade")])
def test_a_file_of_lade_asks_for_its_rule(shared: Path, file: str) -> None:
    with pytest.raises(UndecidedError) as caught:
        load_checkpoint(shared / "fixtures" / "peers" / file)
    for name in ("--model lade:ce", "--model lade:lade", "--model lade:balanced-softmax"):
        assert name in str(caught.value)


@pytest.mark.parametrize("file", LAYOUTS)
def test_every_key_of_the_large_layouts_is_mapped(shared: Path, file: str) -> None:
    family, backbone, width = LAYOUTS[file]
    layout = json.loads((shared / "fixtures" / "peers" / file).read_text())
    n_weights = 0

    def value(entry: Any) -> Any:
        nonlocal n_weights
        if isinstance(entry, dict):
            return None if "type" in entry else {key: value(each) for key, each in entry.items()}
        n_weights += 1
        shape, kind = entry
        # Each weight its own number, so that one in another's place would be seen.
        return torch.full(shape, n_weights, dtype=getattr(torch, kind))

    payload = Payload(file, "", {key: value(entry) for key, entry in layout.items()})
    found, _ = detected(payload)
    model = found.load(payload, None)
    assert (model.family, model.backbone, model.feature_width) == (family, backbone, width)
    assert model.preprocessing.resize == 256
    loaded = model.module.state_dict()
    assert all(tensor.isfinite().all() for tensor in loaded.values())
    # One number a weight: as many different numbers as weights before the head came through.
    numbers = [
        float(tensor.flatten()[0])
        for name, tensor in loaded.items()
        if not name.startswith(f"{model.classifier_name}.")
    ]
    assert len(set(numbers)) == len(numbers)
    state = payload.mapping("state_dict") or {}
    beside_head = len(numbers) + len(model.left_out)
    if family == "paco":
        assert beside_head == len(state) - 2  # linear.weight, linear.bias
    elif family == "ride":
        assert beside_head == len(state) - 3  # a weight for each of three experts
    assert (model.rule is not None) == (family == "mislas")


@torch.inference_mode()
def test_ldmlr_is_as_accurate_as_it_was_measured_to_be(shared: Path) -> None:
    model = load_checkpoint(shared / LDMLR)
    assert (model.family, model.backbone, model.n_classes) == ("ldmlr", "cifar-resnet32", 100)
    source = open_source(shared / "data" / "cifar100-lt001" / "test")
    rows = np.arange(0, len(source), 25)
    pixels = np.stack([model.preprocessing.to_uint8(source.read(row)) for row in rows])
    logits = model.module(model.preprocessing.normalize(torch.from_numpy(pixels)))
    correct = int((logits.argmax(1).numpy() == source.labels[rows]).sum())
    # On all 10,000 images: 4,128 correct, 41.28 %. Of every 25th, 155 of 400. One image may
    # turn where two logits agree to float32 rounding.
    assert abs(correct - 155) <= 1
