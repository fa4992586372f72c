"""BatchNorm statistics of class-balanced training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cache import open_store
from pipeline.checkpoints import TrainedModel
from pipeline.config import ExtractConfig
from pipeline.datasets import ArraySource
from pipeline.datasets.splitting import balanced_rows
from pipeline.errors import CheckpointError
from pipeline.recalibration import recalibrate
from pipeline.stages.extract import extract, prepare_model
from tests.small_data import image_folder, small_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    return prepare_model(small_checkpoint(tmp_path / "model.pth"))


def images(counts: tuple[int, ...]) -> ArraySource:
    """Class c has bright images of its own level, so that statistics tell classes apart."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = generator.integers(0, 60, (len(labels), 8, 8, 3))
    pixels = (noise + 90 * labels[:, None, None, None]).astype(np.uint8)
    return ArraySource(pixels, labels, [f"c{c}" for c in range(len(counts))])


def test_first_layer_statistics_by_hand(model: TrainedModel) -> None:
    train = images((20, 5, 2))
    config = ExtractConfig(recalibrate_bn=32, batch_size=8)
    done = recalibrate(model, train, config, CPU)
    rows = balanced_rows(train.labels, 32, seed=0)
    pixels = torch.from_numpy(np.stack([np.asarray(train.read(int(row))) for row in rows]))
    maps = model.module.conv1(model.preprocessing.normalize(pixels)).reshape(4, 8, 16, -1)
    means, variances = maps.mean((1, 3)), maps.transpose(1, 2).flatten(2).var(dim=2)
    torch.testing.assert_close(done.module.bn1.running_mean, means.mean(0))
    torch.testing.assert_close(done.module.bn1.running_var, variances.mean(0))


def test_only_the_statistics_change(model: TrainedModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    done = recalibrate(model, images((20, 5, 2)), ExtractConfig(recalibrate_bn=30), CPU)
    after = done.module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[1] for name in changed} <= {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    assert changed
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(module.training for module in done.module.modules())
    assert done.module.bn1.momentum == model.module.bn1.momentum


def test_classes_count_alike(model: TrainedModel) -> None:
    """Statistics of a long-tailed source are those of the same source made balanced."""
    config = ExtractConfig(recalibrate_bn=300, batch_size=100)
    few = recalibrate(model, images((90, 9, 3)), config, CPU).module.bn1.running_mean
    even = recalibrate(model, images((90, 90, 90)), config, CPU).module.bn1.running_mean
    natural = recalibrate(model, images((290, 9, 3)), ExtractConfig(recalibrate_bn=0), CPU)
    assert torch.allclose(few, even, atol=0.05)
    assert natural is model


def test_a_network_without_statistics_is_refused(model: TrainedModel) -> None:
    for name in ("bn1", "bn2"):
        setattr(model.module, name, nn.Identity())
    with pytest.raises(CheckpointError, match="keeps no BatchNorm statistics"):
        recalibrate(model, images((3, 3, 3)), ExtractConfig(recalibrate_bn=9), CPU)


def test_is_part_of_the_identity(tmp_path: Path) -> None:
    checkpoint = small_checkpoint(tmp_path / "model.pth")
    folders = {
        name: image_folder(tmp_path / name, seed=s) for s, name in enumerate(("train", "test"))
    }
    for out, n in (("plain.zarr", 0), ("shifted.zarr", 12)):
        config = ExtractConfig(recalibrate_bn=n, batch_size=4)
        extract(checkpoint, folders, tmp_path / out, config).store.close()
    with (
        open_store(tmp_path / "plain.zarr") as plain,
        open_store(tmp_path / "shifted.zarr") as other,
    ):
        differing = [line.partition(":")[0] for line in plain.identity.differences(other.identity)]
        assert differing == ["model", "backbone"]
        assert "BatchNorm over 12 class-balanced training images" in other.identity.model
        assert not np.allclose(plain["test"].features(), other["test"].features())
