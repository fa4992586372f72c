"""The real run: a published checkpoint on the images that it was trained on."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest

from cache import Store
from pipeline.config import ExtractConfig, FitConfig
from pipeline.stages.evaluate import evaluate
from pipeline.stages.extract import extract
from pipeline.stages.fit_head import fit_head


@pytest.fixture(scope="module")
def cifar(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    data = shared / "data/cifar100-lt001"
    checkpoint = shared / "checkpoints/ldmlr_cifar100-lt001_resnet32_ce-mixup.checkpoint"
    sources = {"train": data / "train", "test": data / "test"}
    out = tmp_path_factory.mktemp("real") / "cifar.zarr"
    return extract(checkpoint, sources, out, ExtractConfig(device="cpu")).store


def test_the_old_head_scores_what_its_authors_model_does(cifar: Store) -> None:
    old = evaluate(cifar)
    assert old.accuracy == pytest.approx(41.28, abs=0.02)
    assert old.lowest_recall == 0
    assert old.substituted_zeros == 10
    # The prototype's figures for the two means, zeros as 0.1 %.
    assert old.geometric_mean == pytest.approx(16.44, abs=0.05)
    assert old.harmonic_mean == pytest.approx(0.91, abs=0.01)


def test_gml_lifts_the_worst_class(cifar: Store) -> None:
    runs = [
        evaluate(cifar, fit_head(cifar, dataclasses.replace(FitConfig(), seed=seed)).head)
        for seed in range(5)
    ]
    assert statistics.fmean(scores.harmonic_mean for scores in runs) >= 36
    assert statistics.fmean(scores.lowest_recall for scores in runs) >= 8
    assert statistics.fmean(scores.accuracy for scores in runs) >= 46
