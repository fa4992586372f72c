"""Real files: the numbers that their authors' own code computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.backbones import Tap
from pipeline.checkpoints import load_checkpoint
from pipeline.datasets import open_source

LDMLR = "checkpoints/ldmlr_cifar100-lt001_resnet32_ce-mixup.checkpoint"


@pytest.mark.parametrize("case", ["ldam-ce-dataparallel", "ldam-ldam-gpu0"])
@torch.inference_mode()
def test_ldam_drw_computes_what_its_own_code_does(shared: Path, case: str) -> None:
    folder = shared / "fixtures" / "peers" / case
    tolerance = json.loads((folder / "card.json").read_text())["suggested_atol"]
    expected = np.load(folder / "expected.npz")
    images = torch.from_numpy(np.load(folder / "images.npz")["images"])
    model = load_checkpoint(folder / "ckpt.best.pth.tar")
    assert (model.family, model.backbone) == ("ldam-drw", "cifar-resnet32")
    with Tap(model.module, model.classifier_name) as tap:
        features, logits = tap(model.preprocessing.normalize(images))
    for computed, name in (
        (features.numpy(), "features"),
        (logits.numpy(), "logits"),
        (model.classifier.logits(features.numpy()), "logits"),
    ):
        np.testing.assert_allclose(computed, expected[name], rtol=0, atol=tolerance[name])


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
