"""Stage 1: from images to a checkpoint that `extract` loads, whatever happens on the way."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from cache.locks import Lock
from pipeline.checkpoints import load_checkpoint
from pipeline.cli import main
from pipeline.config import ExtractConfig, PretrainConfig
from pipeline.datasets import open_source
from pipeline.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    OutputExistsError,
    TrainingError,
)
from pipeline.progress import Snapshot
from pipeline.stages.extract import extract
from pipeline.stages.pretrain import Callbacks, Pretraining, pretrain
from pipeline.training import locking, loop
from pipeline.training.locking import lock_path, sole_training
from pipeline.training.saving import unfinished_path
from tests.small_data import CLASSES, COUNTS, image_folder, small_checkpoint

SMALL = PretrainConfig(
    model="small-cnn", epochs=3, batch_size=4, lr=0.05, padding=1, device="cpu", workers=0
)

COUNTS_IN_ALL = sum(COUNTS)
"""Training images, which an epoch shows once each."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Two folders of images; calling it trains."""

    folder: Path

    def __call__(self, out: str = "m.pth", config: PretrainConfig = SMALL, **kw: object) -> Pretraining:  # fmt: skip  # noqa: E501
        sources = kw.pop("sources", {"train": self.folder / "train"})
        return pretrain(sources, self.folder / out, config, **kw)  # type: ignore[arg-type]  # any keyword


@pytest.fixture
def run(tmp_path: Path) -> Run:
    image_folder(tmp_path / "train")
    image_folder(tmp_path / "test", (2, 2, 2), seed=1)
    return Run(tmp_path)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


def assert_same_weights(a: Path, b: Path) -> None:
    others = weights_of(b)
    found = weights_of(a)
    assert found.keys() == others.keys()
    for name, weight in found.items():
        assert torch.equal(weight, others[name]), name


class StopError(Exception):
    """Ends a training like a crash would."""


def stop_after(batches: int, error: type[BaseException] = StopError) -> Callbacks:
    seen: list[Snapshot] = []

    def on_progress(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        if len(seen) == batches:
            raise error

    return Callbacks(on_progress=on_progress)


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
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 1
    assert "same classes in another order, beginning with 'ant' instead of 'cat'" in result.stderr
    result = CliRunner().invoke(main, [*map(str, arguments), "--class-order", str(order)])
    assert result.exit_code == 0, result.stderr


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


# The same again


@pytest.mark.parametrize("settings", [{"mixup": 0.5}, {"memory": "1B"}, {"memory": "1B", "workers": 2}])  # fmt: skip  # noqa: E501
def test_one_seed_gives_one_network(run: Run, settings: dict[str, object]) -> None:
    config = dataclasses.replace(SMALL, **settings)
    torch.manual_seed(1)
    run("a.pth", config)
    torch.manual_seed(2)
    run("b.pth", dataclasses.replace(config, memory="1GiB", workers=0))
    assert_same_weights(run.folder / "a.pth", run.folder / "b.pth")
    run("c.pth", dataclasses.replace(config, seed=1))
    name = "conv1.weight"
    assert not torch.equal(
        weights_of(run.folder / "a.pth")[name], weights_of(run.folder / "c.pth")[name]
    )


@pytest.mark.parametrize("stop", [1, 3, 5, 8, 11])
def test_a_stopped_training_goes_on_to_the_same_weights(run: Run, stop: int) -> None:
    config = dataclasses.replace(SMALL, mixup=1.0)  # 4 batches an epoch, 12 in all
    whole = run("whole.pth", config)
    with pytest.raises(StopError):
        run(config=config, report=stop_after(stop))
    assert not (run.folder / "m.pth").exists()
    result = run(config=config, resume=True)
    assert result.computed == 3 - stop // 4 + (stop % 4 == 0)
    assert [r.loss for r in result.history] == [r.loss for r in whole.history]
    assert_same_weights(run.folder / "whole.pth", run.folder / "m.pth")
    assert not unfinished_path(run.folder / "m.pth").exists()


def train_and_tell(folder: Path, name: str, batches: Connection) -> None:
    """Train in a process of its own, and send a word after every batch."""
    torch.set_num_threads(1)
    config = dataclasses.replace(SMALL, epochs=40, mixup=1.0)
    report = Callbacks(on_progress=lambda snapshot: batches.send(snapshot.done))
    pretrain({"train": folder / "train"}, folder / name, config, resume=True, report=report)


def train_apart(folder: Path, name: str, batches: int) -> int:
    """Train in another process, killed after some batches and a fraction of one; its exit code."""
    # A server that has imported torch already forks each process in a moment.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    told, telling = context.Pipe(duplex=False)
    process = context.Process(target=train_and_tell, args=(folder, name, telling))
    process.start()
    telling.close()
    try:
        for _ in range(batches):
            told.recv()
        time.sleep(np.random.default_rng(batches).uniform(0, 0.005))
        process.kill()
    except EOFError:
        pass  # it has ended by itself
    process.join(timeout=300)
    assert process.exitcode is not None
    return process.exitcode


def test_killed_at_any_instant_it_ends_with_the_same_weights(run: Run) -> None:
    assert train_apart(run.folder, "whole.pth", 1000) == 0
    generator = np.random.default_rng(0)
    codes = []
    while not codes or codes[-1] != 0:  # 160 batches, four an epoch
        codes.append(train_apart(run.folder, "m.pth", int(generator.integers(10, 50))))
        assert codes[-1] in {0, -signal.SIGKILL}
    assert len(codes) >= 4
    assert_same_weights(run.folder / "whole.pth", run.folder / "m.pth")


def test_ctrl_c_says_how_to_go_on(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt, match="after 1 of 3 epochs; go on with --resume"):
        run(report=stop_after(6, KeyboardInterrupt))
    assert run(resume=True).computed == 2


def test_a_training_that_is_complete_is_left_alone(run: Run) -> None:
    first = run()
    before = (run.folder / "m.pth").read_bytes()
    again = run(resume=True)
    assert (again.computed, again.history) == (0, first.history)
    assert (run.folder / "m.pth").read_bytes() == before


def test_ended_between_its_last_epoch_and_its_result(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip  # noqa: E501
    run("whole.pth")

    def crash(*_: object) -> None:
        raise StopError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipeline.stages.pretrain._classifier", crash)
        with pytest.raises(StopError):
            run()
    sources = {split: run.folder / split for split in ("train", "test")}
    result = run(resume=True, sources=sources)
    assert result.computed == 0
    assert result.scores["test"].n_samples == 6
    assert_same_weights(run.folder / "whole.pth", run.folder / "m.pth")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.01}, r"lr \(0.05 there, 0.01 now\)"),
        ({"seed": 3, "mixup": 1.0}, r"mixup \(0.0 there, 1.0 now\), seed \(0 there, 3 now\)"),
        ({"epochs": 9}, r"epochs \(3 there, 9 now\)"),
    ],
)
def test_going_on_with_other_settings_names_them(
    run: Run, change: dict[str, object], named: str
) -> None:
    other = dataclasses.replace(SMALL, **change)
    with pytest.raises(StopError):
        run(report=stop_after(6))
    with pytest.raises(TrainingError, match=f"{named}. Go on with those"):
        run(config=other, resume=True)
    run(resume=True)
    with pytest.raises(TrainingError, match=named):
        run(config=other, resume=True)


def test_going_on_with_other_images_is_refused(run: Run) -> None:
    with pytest.raises(StopError):
        run(report=stop_after(6))
    (run.folder / "train/ant/0.png").unlink()
    with pytest.raises(TrainingError, match="training images"):
        run(resume=True)


def test_settings_that_change_no_weight_may_change(run: Run) -> None:
    with pytest.raises(StopError):
        run(report=stop_after(6))
    free = dataclasses.replace(SMALL, memory="1B", workers=0, evaluate_every=1)
    assert run(config=free, resume=True).computed == 2
    run("whole.pth")
    assert_same_weights(run.folder / "whole.pth", run.folder / "m.pth")


def test_what_exists_is_not_touched_unasked(run: Run) -> None:
    run()
    with pytest.raises(OutputExistsError, match=r"exists already: give another name or --overwr"):
        run()
    other = dataclasses.replace(SMALL, seed=1)
    with pytest.raises(StopError):
        run("u.pth", report=stop_after(6))
    with pytest.raises(OutputExistsError, match="unfinished training: go on with --resume, or"):
        run("u.pth")
    assert run("u.pth", other, overwrite=True).computed == 3
    before = (run.folder / "m.pth").read_bytes()
    with pytest.raises(StopError):  # the old one stays until the new one is complete
        run(config=other, overwrite=True, report=stop_after(6))
    assert (run.folder / "m.pth").read_bytes() == before
    run(config=other, resume=True)
    assert_same_weights(run.folder / "u.pth", run.folder / "m.pth")


@pytest.mark.parametrize("kw", [{"overwrite": True}, {"resume": True}])
def test_a_file_of_another_kind_is_never_replaced(run: Run, kw: dict[str, object]) -> None:
    small_checkpoint(run.folder / "m.pth")
    before = (run.folder / "m.pth").read_bytes()
    with pytest.raises(OutputExistsError, match="something else"):
        run(**kw)
    assert (run.folder / "m.pth").read_bytes() == before


# One at a time


def train_and_wait(folder: Path, name: str, other: Connection, n_threads: int) -> None:
    """Train in a process of its own, and wait for a word in the midst of the second epoch."""
    torch.set_num_threads(n_threads)  # those of the test: bits depend on them

    def on_progress(snapshot: Snapshot) -> None:
        if snapshot.fresh == COUNTS_IN_ALL + SMALL.batch_size:
            other.send(os.getpid())
            other.recv()

    report = Callbacks(on_progress=on_progress)
    pretrain({"train": folder / "train"}, folder / name, SMALL, report=report)


@contextmanager
def training_apart(folder: Path, name: str) -> Iterator[tuple[BaseProcess, Connection]]:
    """Another process in the midst of its second epoch; it goes on once it is told to."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    arguments = (folder, name, theirs, torch.get_num_threads())
    process = context.Process(target=train_and_wait, args=arguments)
    process.start()
    theirs.close()
    try:
        assert ours.recv() == process.pid
        yield process, ours
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_second_training_of_one_checkpoint_is_refused_and_the_first_goes_on(
    run: Run, how: dict[str, bool]
) -> None:
    run("whole.pth")
    with training_apart(run.folder, "m.pth") as (first, connection):
        before = {each: each.read_bytes() for each in run.folder.glob("m.pth*")}
        with pytest.raises(TrainingError, match=f"is being written by process {first.pid} on "):
            run(**how)
        command = ["pretrain", "--train", run.folder / "train", "--out", run.folder / "m.pth"]
        command += [f"--{name}" for name in how]
        refused = CliRunner().invoke(main, list(map(str, command)))
        assert refused.exit_code == 1
        assert "wait until it is finished, or stop that process first" in refused.stderr
        assert {each: each.read_bytes() for each in run.folder.glob("m.pth*")} == before
        connection.send("go on")
        first.join(timeout=300)
        assert first.exitcode == 0
    assert_same_weights(run.folder / "whole.pth", run.folder / "m.pth")
    assert [each.name for each in run.folder.glob("m.pth*")] == ["m.pth"]


def test_the_lock_of_a_killed_training_keeps_nobody_out(run: Run) -> None:
    run("whole.pth")
    with training_apart(run.folder, "m.pth") as (first, _):
        first.kill()
        first.join()
    assert lock_path(run.folder / "m.pth").exists()
    assert run(resume=True).computed == 2
    assert_same_weights(run.folder / "whole.pth", run.folder / "m.pth")
    assert [each.name for each in run.folder.glob("m.pth*")] == ["m.pth"]


def test_trainings_of_two_checkpoints_run_side_by_side(run: Run) -> None:
    with training_apart(run.folder, "m.pth"):
        assert run("n.pth").computed == 3


def test_a_training_that_fails_leaves_no_lock(run: Run) -> None:
    with pytest.raises(StopError):
        run(report=stop_after(6))
    assert sorted(each.name for each in run.folder.glob("m.pth*")) == ["m.pth.unfinished"]
    with pytest.raises(OutputExistsError):
        run()
    assert not lock_path(run.folder / "m.pth").exists()


@pytest.mark.parametrize("opened", [False, True], ids=["before", "after"])
def test_a_lock_is_held_by_its_name_even_if_the_last_holder_ends_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    # The last holder removes the file before, or after, this one has opened it.
    calls = []

    def slow(file: Path, out: Path) -> Lock:
        calls.append(file)
        if len(calls) == 1 and not opened:
            file.unlink()
        lock = Lock(file, out)
        if len(calls) == 1:
            file.unlink()
        return lock

    monkeypatch.setattr(locking, "Lock", slow)
    out = tmp_path / "m.pth"
    with sole_training(out):
        assert calls == [lock_path(out)] * 2
        with pytest.raises(TrainingError, match=f"{out} is being written by process {os.getpid()}"):
            sole_training(out).__enter__()
    assert list(tmp_path.iterdir()) == []


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
    arguments = ["pretrain", "--train", str(run.folder / "train"), "--class-names", str(names)]
    result = CliRunner().invoke(main, [*arguments, "--out", str(run.folder / "m.pth")])
    assert result.exit_code == 1
    assert "Class 'dog' has no training image" in result.output


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


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["pretrain", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_trains_and_says_how(run: Run) -> None:
    out, data = run.folder / "m.pth", run.folder
    recipe = run.folder / "recipe.yaml"
    recipe.write_text("pretrain:\n  model: small-cnn\n  epochs: 2\n  lr: 5.0e-2\n")
    arguments = ["--train", data / "train", "--test", data / "test", "--out", out]
    arguments += ["--config", recipe, "--batch-size", 4, "--device", "cpu", "--json", "-"]
    code, text, told = invoke(*arguments)
    assert code == 0, told
    result = json.loads(text)
    assert (result["computed"], len(result["history"])) == (2, 2)
    assert set(result["scores"]) == {"test"}
    assert "epoch 2/2  loss" in told
    assert f"Next: nolb extract --checkpoint {out}" in told
    code, _, told = invoke(*arguments)
    assert (code, "exists already" in told) == (1, True)
    code, _, told = invoke(*arguments, "--resume")
    assert (code, "is complete already" in told) == (0, True)
    code, _, told = invoke(*arguments, "--resume", "--lr", 1)
    assert (code, "lr (0.05 there, 1.0 now)" in told) == (1, True)
    assert invoke(*arguments, "--resume", "--overwrite")[0] == 2


def test_the_command_trains_from_a_list_with_a_share_for_validation(run: Run) -> None:
    lines = [
        f"{path.relative_to(run.folder / 'train')} {CLASSES.index(path.parent.name)}"
        for path in sorted((run.folder / "train").rglob("*.png"))
    ]
    (run.folder / "list.txt").write_text("\n".join(lines))
    code, text, told = invoke(
        *("--train", run.folder / "list.txt", "--root", run.folder / "train", "--val", 0.4),
        *("--out", run.folder / "m.pth", "--model", "small-cnn", "--epochs", 1, "--batch-size", 4),
    )
    assert code == 0, told
    assert "val" in text
