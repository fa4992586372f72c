"""BatchNorm statistics of training images as they are, drawn one by one or class by class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from cache import open_store
from pipeline.checkpoints import TrainedModel
from pipeline.checkpoints.own import FORMAT, HISTORY, VERSION, write_file
from pipeline.config import ExtractConfig
from pipeline.datasets import ArraySource
from pipeline.datasets.splitting import balanced_rows, shuffled_rows
from pipeline.errors import CheckpointError, DatasetError
from pipeline.extracting.identities import record_of_identity
from pipeline.extracting.plan import prepare_model
from pipeline.extracting.recalibration import recalibrate
from pipeline.heads import load_head
from pipeline.progress import Snapshot
from pipeline.stages.extract import extract
from tests.checkpoints.peer_files import FAMILIES, save
from tests.commands import nolb
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


@pytest.mark.parametrize("sampler", ["instance", "class-balanced"])
def test_first_layer_statistics_by_hand(
    model: TrainedModel, sampler: Literal["instance", "class-balanced"]
) -> None:
    train = images((20, 5, 2))
    config = ExtractConfig(recalibrate_bn=32, recalibrate_bn_sampler=sampler, batch_size=8)
    done = recalibrate(model, train, config, CPU)
    draws = {
        "instance": shuffled_rows(27, 32, seed=0),
        "class-balanced": balanced_rows(train.labels, 32, seed=0),
    }
    rows = draws[sampler]
    pixels = torch.from_numpy(np.stack([np.asarray(train.read(int(row))) for row in rows]))
    maps = model.module.conv1(model.preprocessing.normalize(pixels)).reshape(4, 8, 16, -1)
    means, variances = maps.mean((1, 3)), maps.transpose(1, 2).flatten(2).var(dim=2)
    torch.testing.assert_close(done.module.bn1.running_mean, means.mean(0))
    torch.testing.assert_close(done.module.bn1.running_var, variances.mean(0))


def test_the_arithmetic_is_that_of_the_extraction(model: TrainedModel) -> None:
    means = {}
    for autocast in ("none", "bfloat16"):
        config = ExtractConfig(
            recalibrate_bn=27, batch_size=9, autocast=autocast, channels_last=autocast != "none"
        )
        means[autocast] = recalibrate(
            model, images((20, 5, 2)), config, CPU
        ).module.bn2.running_mean
    assert not torch.equal(means["none"], means["bfloat16"])
    torch.testing.assert_close(means["bfloat16"], means["none"], rtol=0.05, atol=0.02)


def test_progress_is_told_batch_by_batch(model: TrainedModel) -> None:
    told: list[Snapshot] = []
    config = ExtractConfig(recalibrate_bn=30, batch_size=8)
    recalibrate(model, images((20, 5, 2)), config, CPU, told.append)
    assert [(each.done, each.total) for each in told] == [(8, 24), (16, 24), (24, 24)]
    assert {each.step for each in told} == {"BatchNorm"}


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
    config = ExtractConfig(
        recalibrate_bn=300, recalibrate_bn_sampler="class-balanced", batch_size=100
    )
    few = recalibrate(model, images((90, 9, 3)), config, CPU).module.bn1.running_mean
    even = recalibrate(model, images((90, 90, 90)), config, CPU).module.bn1.running_mean
    natural = recalibrate(model, images((290, 9, 3)), ExtractConfig(recalibrate_bn=0), CPU)
    assert torch.allclose(few, even, atol=0.05)
    assert natural is model


def test_every_image_comes_once_before_any_comes_again() -> None:
    rows = shuffled_rows(7, 17, seed=3)
    assert sorted(rows[:7]) == sorted(rows[7:14]) == list(range(7))
    assert len(set(rows[14:])) == 3
    assert rows[:7].tolist() != list(range(7))
    assert np.array_equal(shuffled_rows(7, 17, seed=3), rows)
    assert not np.array_equal(shuffled_rows(7, 17, seed=4), rows)
    assert len(shuffled_rows(7, 0, seed=3)) == 0


@pytest.mark.parametrize(("n", "batch_size"), [(1, 8), (6, 1)])
def test_single_images_have_no_variance(model: TrainedModel, n: int, batch_size: int) -> None:
    config = ExtractConfig(recalibrate_bn=n, batch_size=batch_size)
    with pytest.raises(DatasetError, match="give a larger --recalibrate-bn or --batch-size"):
        recalibrate(model, images((3, 3, 3)), config, CPU)


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
        said, *backbone = plain.identity.differences(other.identity)
        assert said == (
            "model.recalibrated: this none, "
            "that batch_size 4, images 12, sampler 'instance', seed 0"
        )
        assert [line.partition(":")[0] for line in backbone] == ["backbone"]
        words = record_of_identity(other.identity).describe()
        assert words.endswith("BatchNorm over 12 training images in batches of 4, seed 0")
        assert not np.allclose(plain["test"].features(), other["test"].features())


def test_the_saved_model_predicts_and_the_checkpoint_does_not(tmp_path: Path) -> None:
    small_checkpoint(tmp_path / "model.pth")
    for seed, name in enumerate(("train", "test")):
        image_folder(tmp_path / name, seed=seed)
    store, head, saved = (tmp_path / name for name in ("d.zarr", "h.safetensors", "saved.pth"))
    options = [
        "extract", "--checkpoint", tmp_path / "model.pth", "--train", tmp_path / "train", "--test",
        tmp_path / "test", "--out", store, "--recalibrate-bn", 12, "--workers", 0,
    ]  # fmt: skip
    assert "--resume --save-model FILE" in nolb(*options).output.replace("\n", " ")
    nolb("fit-head", store, "--epochs", 2, "--out", head)
    predict = ("predict", head, tmp_path / "test", "--format", "jsonl", "--checkpoint")
    assert "--save-model FILE" in nolb(*predict, tmp_path / "model.pth", code=1).output
    said = nolb(*options, "--resume", "--save-model", saved).output
    assert "give it to predict and export as --checkpoint" in said
    lines = nolb(*predict, saved).output.splitlines()
    found = [max(each["new"] for each in json.loads(line)["candidates"]) for line in lines]
    with open_store(store) as opened:
        logits = load_head(head).logits(opened["test"].features())
    # The images of a folder come in the order of the store.
    np.testing.assert_allclose(found, softmax(logits, axis=1).max(axis=1), rtol=1e-4)


def test_a_place_or_a_model_that_cannot_be_saved_is_told_before_the_work(tmp_path: Path) -> None:
    small_checkpoint(tmp_path / "model.pth")
    image_folder(tmp_path / "train")
    save(FAMILIES["RIDE"][0](), tmp_path / "ride.pth")
    write_file(tmp_path / "trained.pth", {"format": FORMAT, "version": VERSION, HISTORY: []})
    for model, out, reason in (
        ("model.pth", "model.pth", "--save-model and --checkpoint are one file"),
        ("model.pth", "d.zarr", "--save-model and --out are one file"),
        ("model.pth", "ride.pth", "something else than what would replace it"),
        ("model.pth", "trained.pth", "something else than what would replace it"),
        ("ride.pth", "saved.pth", "cannot be saved"),
    ):
        code = 2 if "are one file" in reason else 1
        result = nolb(
            "extract", "--checkpoint", tmp_path / model, "--save-model", tmp_path / out, "--train",
            tmp_path / "train", "--test", 0.3, "--out", tmp_path / "d.zarr", "--resume", code=code,
        )  # fmt: skip
        assert reason in result.output
        assert not (tmp_path / "d.zarr").exists()
