"""A training that is repeated, or goes on after whatever happened, ends at the same weights."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import (
    OutputExistsError,
    TrainingError,
)
from pipeline.stages.pretrain import Callbacks, pretrain
from pipeline.training.saving import unfinished_path
from tests.small_data import small_checkpoint
from tests.small_trainings import (
    SMALL,
    Run,
    StopError,
    assert_same_weights,
    run_in,
    stop_after,
    weights_of,
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_in(tmp_path)


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
