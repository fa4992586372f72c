"""Stage 1: from images to a checkpoint that `extract` loads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.checkpoints import load_checkpoint
from pipeline.config import ExtractConfig, PretrainConfig
from pipeline.datasets import open_source
from pipeline.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    TrainingError,
)
from pipeline.progress import Snapshot
from pipeline.stages.extract import extract
from pipeline.stages.pretrain import Callbacks
from pipeline.training import loop
from pipeline.training.saving import unfinished_path
from tests.commands import nolb, refused
from tests.small_data import CLASSES, COUNTS, small_checkpoint
from tests.small_trainings import (
    SMALL,
    Run,
    StopError,
    assert_same_weights,
    run_in,
    stop_after,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_in(tmp_path)


# The result


def own_network(num_classes: int = 2) -> nn.Module:
    """A network of a user's own."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "ldam", "schedule": "ldam-drw", "epochs": 10},
        {"loss": "gml", "mixup": 1.0, "channels_last": False},
        {"model": "cifar-resnet20", "mean": (0.1, 0.2, 0.3), "autocast": "bfloat16", "epochs": 1},
        {"model": "torchvision/resnet18", "size": 32, "epochs": 1},
        {"model": "torchvision/squeezenet1_1", "size": 64, "epochs": 1},
        {"model": "timm/resnet10t", "size": 32, "epochs": 1},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "small",
)
def test_extract_runs_the_very_network_that_was_trained(
    run: Run, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[loop.Trainer] = []
    epoch = loop.Trainer.run_epoch
    monkeypatch.setattr(loop.Trainer, "run_epoch", lambda self, *a: trained.append(self) or epoch(self, *a))  # fmt: skip  # noqa: E501
    config = dataclasses.replace(SMALL, **settings)
    out = run(config=config).checkpoint
    sources = {split: run.folder / split for split in ("train", "test")}
    plain = ExtractConfig(device="cpu", workers=0)
    store = extract(out, sources, run.folder / "store.zarr", plain).store
    assert store.class_names == CLASSES
    network = trained[-1].network.eval()
    preprocessing = load_checkpoint(out).preprocessing
    if "mean" in settings:
        assert preprocessing.mean == settings["mean"]
    if "size" in settings:
        assert preprocessing.crop == settings["size"]
    for split in ("train", "test"):
        source = open_source(run.folder / split)
        pixels = np.stack([preprocessing.to_uint8(source.read(i)) for i in range(len(source))])
        with torch.inference_mode():
            logits = network(preprocessing.normalize(torch.from_numpy(pixels))).numpy()
        np.testing.assert_allclose(store[split].logits(), logits, atol=1e-4, rtol=1e-4)
        again = store.classifier.logits(store[split].features())
        np.testing.assert_allclose(again, logits, atol=1e-4, rtol=1e-4)


def test_the_file_tells_what_it_is(run: Run) -> None:
    content = torch.load(run().checkpoint, weights_only=True)
    assert (content["format"], content["backbone"]) == ("nolb classifier", "small-cnn")
    assert content["class_names"] == list(CLASSES)
    assert content["class_counts"] == list(COUNTS)
    assert content["identity"]["lr"] == 0.05
    assert [record["epoch"] for record in content["history"]] == [1, 2, 3]
    model = load_checkpoint(run.folder / "m.pth")
    assert (model.family, model.class_names, model.n_classes) == ("nolb", CLASSES, 3)
    assert not unfinished_path(run.folder / "m.pth").exists()


def test_a_network_of_one_s_own_runs_only_when_it_is_named(run: Run) -> None:
    name = f"{__name__}:own_network"
    out = run(config=dataclasses.replace(SMALL, model=name)).checkpoint
    with pytest.raises(CheckpointError, match=f"allow it with --model nolb:{name}"):
        load_checkpoint(out)
    assert load_checkpoint(out, model=f"nolb:{name}").backbone == name


def test_classes_in_another_order_are_not_extracted(run: Run) -> None:
    out = run().checkpoint
    (run.folder / "names.txt").write_text("cat\nant\nbee\n")
    arguments = ["extract", "--checkpoint", out, "--class-names", run.folder / "names.txt"]
    arguments += ["--train", run.folder / "train", "--test", run.folder / "test"]
    arguments += ["--out", run.folder / "store.zarr", "--workers", "0"]
    order = run.folder / "order.txt"
    order.write_text("1 2 0")
    told = refused(*arguments)
    assert "same classes in another order, beginning with 'ant' instead of 'cat'" in told
    nolb(*arguments, "--class-order", order)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "of version 1"),
        ({"scale": None}, "lacks scale"),
        ({"backbone": "os:system"}, "a file alone has no code run"),
        ({"backbone": "nothing"}, "No backbone is called 'nothing'"),
        ({"class_names": 3}, "lacks its weights or class names"),
        ({"state_dict": {}}, "lacks its weights or class names"),
        ({"preprocessing": {"mean": 1}}, "its preprocessing is unusable"),
        ({"class_names": ["a"]}, "its weights do not fill"),
        ({"scale": "x", "classifier": "cosine"}, "scale"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(
    run: Run, change: dict[str, object], message: str
) -> None:
    out = run().checkpoint
    content = torch.load(out, weights_only=True) | change
    torch.save({key: value for key, value in content.items() if value is not None}, out)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(out)


# What it is told and what it tells


def test_the_last_epoch_is_saved_whatever_the_scores(run: Run) -> None:
    told: list[tuple[int, list[str]]] = []
    report = Callbacks(on_epoch=lambda record, scores: told.append((record.epoch, sorted(scores))))
    sources = {"train": run.folder / "train", "val": run.folder / "test", "test": run.folder / "test"}  # fmt: skip  # noqa: E501
    config = dataclasses.replace(SMALL, evaluate_every=2)
    result = run(config=config, sources=sources, report=report)
    assert told == [(1, []), (2, ["test", "val"]), (3, ["test", "val"])]
    run("alone.pth")
    assert_same_weights(run.folder / "alone.pth", run.folder / "m.pth")
    plain = ExtractConfig(device="cpu", workers=0)
    store = extract(run.folder / "m.pth", sources, run.folder / "store.zarr", plain).store
    predicted = store["test"].logits().argmax(1)
    assert result.scores["test"].accuracy == pytest.approx(
        100 * float((predicted == store["test"].labels).mean())
    )


def test_it_tells_how_far_it_is(run: Run) -> None:
    lines: list[str] = []
    snapshots: list[Snapshot] = []
    run(report=Callbacks(on_begin=lines.append, on_progress=snapshots.append))
    assert [line.split()[0] for line in lines] == ["network", "preprocessing", "images"]
    assert (snapshots[-1].done, snapshots[-1].total, snapshots[-1].fresh) == (39, 39, 39)
    with pytest.raises(StopError):
        run("u.pth", report=stop_after(5))
    snapshots.clear()
    run("u.pth", resume=True, report=Callbacks(on_progress=snapshots.append))
    assert (snapshots[0].done - snapshots[0].fresh, snapshots[-1].fresh) == (13, 26)


def test_it_can_begin_with_a_file_s_weights(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    start = small_checkpoint(run.folder / "start.pth", n_classes=7)
    begun: list[dict[str, torch.Tensor]] = []
    epoch = loop.Trainer.run_epoch

    def noted(self: loop.Trainer, number: int, on_batch: Callable[[int], None]) -> loop.EpochRecord:
        if number == 0:
            begun.append({k: v.clone() for k, v in self.network.state_dict().items()})
        return epoch(self, number, on_batch)

    monkeypatch.setattr(loop.Trainer, "run_epoch", noted)
    run(start=start)
    loaded = load_checkpoint(start).module.state_dict()
    for name, weight in begun[0].items():
        if name.startswith("linear."):
            assert weight.shape[0] == 3
        else:
            assert torch.equal(weight, loaded[name]), name
    with pytest.raises(TrainingError, match=r"first weights \(\w{64} there, drawn now\)"):
        run(resume=True)
    with pytest.raises(ConfigError, match="holds small-cnn, not cifar-resnet20: choose it with"):
        run("b.pth", dataclasses.replace(SMALL, model="cifar-resnet20"), start=start)


def test_a_class_without_images_is_refused(run: Run) -> None:
    names = run.folder / "names.txt"
    names.write_text("ant\nbee\ncat\ndog\n")
    told = refused("pretrain", "--train", run.folder / "train", "--class-names", names,
                   "--out", run.folder / "m.pth")  # fmt: skip
    assert "Class 'dog' has no training image" in told


def test_training_images_are_needed(run: Run) -> None:
    with pytest.raises(DatasetError, match="needs images for train"):
        run(sources={"test": run.folder / "test"})


def test_memory_that_is_used_up_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop.Trainer, "run_epoch", full)
    with pytest.raises(TrainingError, match="memory of cpu is used up: train with a --batch-size"):
        run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"loss": "gml", "schedule": "ldam-drw"}, "loss must be ldam or cross-entropy with"),
        ({"mixup": -1.0}, "mixup must be from 0"),
        ({"lr": 1e300}, "lr must be above 0 and at most"),
        ({"smallest_crop": 0.0}, "smallest_crop must be above 0"),
        ({"memory": "much"}, "much"),
        ({"seed": -1}, "seed must be from 0"),
        ({"device": "gpu"}, "device must be"),
    ],
)
def test_settings_that_no_training_could_use(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**settings)  # type: ignore[arg-type]  # any field


def test_an_unknown_network_is_told_before_the_images_are_decoded(run: Run) -> None:
    with pytest.raises(ConfigError, match="No backbone is called 'resnet'"):
        run(config=dataclasses.replace(SMALL, model="resnet"))


# The command


def test_the_command_trains_and_says_how(run: Run) -> None:
    out, data = run.folder / "m.pth", run.folder
    recipe = run.folder / "recipe.yaml"
    recipe.write_text("pretrain:\n  model: small-cnn\n  epochs: 2\n  lr: 5.0e-2\n")
    arguments = ["pretrain", "--train", data / "train", "--test", data / "test", "--out", out]
    arguments += ["--config", recipe, "--batch-size", 4, "--device", "cpu", "--json", "-"]
    done = nolb(*arguments)
    result = json.loads(done.stdout)
    assert (result["computed"], len(result["history"])) == (2, 2)
    assert set(result["scores"]) == {"test"}
    assert "epoch 2/2  loss" in done.stderr
    assert f"next           nolb extract --checkpoint {out}" in done.stderr
    assert "exists already" in refused(*arguments)
    assert "is complete already" in nolb(*arguments, "--resume").stderr
    assert "lr (0.05 there, 1.0 now)" in refused(*arguments, "--resume", "--lr", 1)
    nolb(*arguments, "--resume", "--overwrite", code=2)


def test_the_command_trains_from_a_list_with_a_share_for_validation(run: Run) -> None:
    lines = [
        f"{path.relative_to(run.folder / 'train')} {CLASSES.index(path.parent.name)}"
        for path in sorted((run.folder / "train").rglob("*.png"))
    ]
    (run.folder / "list.txt").write_text("\n".join(lines))
    done = nolb(
        *(
            "pretrain",
            "--train",
            run.folder / "list.txt",
            "--root",
            run.folder / "train",
            "--val",
            0.4,
        ),
        *("--out", run.folder / "m.pth", "--model", "small-cnn", "--epochs", 1, "--batch-size", 4),
    )
    assert "val" in done.stdout
