"""One training a checkpoint at a time."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from cache.locks import Lock
from pipeline.errors import (
    OutputExistsError,
    TrainingError,
)
from pipeline.progress import Snapshot
from pipeline.stages.pretrain import Callbacks, pretrain
from pipeline.training import locking
from pipeline.training.locking import lock_path, sole_training
from tests.commands import refused, refused_at_once
from tests.small_trainings import (
    COUNTS_IN_ALL,
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
        assert "wait until it is finished, or stop that process first" in refused(*command)
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


@pytest.mark.parametrize("kind", ["dangling", "link", "folder"])
def test_what_stands_in_the_place_of_a_lock_is_told_and_left_alone(run: Run, kind: str) -> None:
    file, other = lock_path(run.folder / "m.pth"), run.folder / "other"
    if kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(other)
    if kind == "link":
        other.write_text("own")
    command = ["pretrain", "--train", run.folder / "train", "--out", run.folder / "m.pth"]
    assert f"{file} stands where the lock of this training would" in refused_at_once(*command)
    assert other.exists() == (kind == "link")
    assert kind != "link" or other.read_text() == "own"


@pytest.mark.parametrize("call", ["Path.touch", "Lock"])
def test_a_lock_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(f"pipeline.training.locking.{call}", forbidden)
    with pytest.raises(
        TrainingError, match=r"m\.pth\.lock, the lock .* \(Permission denied\): choo"
    ):
        sole_training(tmp_path / "m.pth").__enter__()
