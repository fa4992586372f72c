"""Peers' files through `extract`: old logits come out as stored features times the stored head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.backbones import Tap
from pipeline.checkpoints import load_checkpoint
from pipeline.config import ExtractConfig
from pipeline.datasets import ArraySource
from pipeline.errors import CheckpointError
from pipeline.extracting.identities import record_of_identity
from pipeline.stages.extract import Extraction, extract
from tests.checkpoints.peer_files import (
    C,
    lade,
    ldam,
    mislas,
    ride_assigned,
    save,
    transposed,
    weights,
)

COUNTS = (9, 8, 6, 5, 3, 2, 1)
NAMES = tuple("abcdefg")


def images(counts: tuple[int, ...], seed: int) -> ArraySource:
    pixels = np.random.default_rng(seed).integers(0, 256, (sum(counts), 16, 16, 3), np.uint8)
    return ArraySource(pixels, np.repeat(np.arange(C), counts), NAMES)


def run(
    file: Path, model: str = "auto", counts: tuple[int, ...] = COUNTS, logits: str = "full"
) -> Extraction:
    config = ExtractConfig(model=model, device="cpu", workers=0, logits=logits, crop=16, resize=16)  # type: ignore[arg-type]  # one of two
    sources = {"train": images(counts, 0), "test": images((1,) * C, 1)}
    return extract(file, sources, file.with_suffix(".memory"), config, overwrite=True)


@pytest.mark.parametrize("logits", ["full", "recompute"])
def test_lades_rule_takes_the_prior_from_the_training_images(tmp_path: Path, logits: str) -> None:
    file = save(lade(weights("bbn-resnet32", "fc")), tmp_path / "lade.pth")
    extraction = run(file, "lade:ce", logits=logits)
    store = extraction.store
    plain = load_checkpoint(file, model="lade:ce")
    pixels = torch.from_numpy(np.stack([images((1,) * C, 1).read(i) for i in range(C)]))
    with torch.inference_mode(), Tap(plain.module, plain.classifier_name) as tap:
        features, wanted = tap(plain.preprocessing.normalize(pixels))
    prior = np.log(np.array(COUNTS) / sum(COUNTS))
    np.testing.assert_allclose(store["test"].features(), features.numpy(), atol=1e-5)
    np.testing.assert_allclose(store["test"].logits(), wanted.numpy() - prior, atol=1e-4)
    assert record_of_identity(store.identity).name == "lade:ce,bbn-resnet32"
    assert "log prior" in str(store.provenance["notes"])
    # Other training counts are another old head.
    other = run(file, "lade:ce", counts=COUNTS[::-1]).store
    assert other.identity.classifier != store.identity.classifier
    assert other.identity.backbone == store.identity.backbone


def test_mislas_is_extracted_in_the_order_of_the_labels_or_not_at_all(tmp_path: Path) -> None:
    file = save(mislas(weights("resnet10", "fc")), tmp_path / "mislas.pth")
    upwards = COUNTS[::-1]
    store = run(file, counts=upwards).store
    plain = load_checkpoint(file).classifier
    np.testing.assert_array_equal(store.classifier.weight, plain.weight[::-1])
    # The same images with their labels in the order of the rows, as --class-order gives them.
    same = run(file, counts=COUNTS).store
    np.testing.assert_array_equal(same.classifier.weight, plain.weight)
    with pytest.raises(CheckpointError, match="--class-order FILE"):
        run(file, counts=(3, 5, 4, 5, 3, 2, 1))


@pytest.mark.parametrize("name", ["ride", "ldam"])
def test_cosine_heads_recompute_from_the_store(tmp_path: Path, name: str) -> None:
    content = {"ride": ride_assigned(), "ldam": ldam(transposed(weights(), "linear"))}[name]
    store = run(save(content, tmp_path / f"{name}.pth")).store
    features, logits = store["test"].features(), store["test"].logits()
    np.testing.assert_allclose(store.classifier.logits(features), logits, rtol=1e-4, atol=1e-5)
    if name == "ride":
        lengths = np.linalg.norm(features.reshape(C, 3, 48), axis=2)
        np.testing.assert_allclose(lengths, 1, rtol=1e-5)
        assert store.classifier.scale == 10
