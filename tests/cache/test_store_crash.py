"""A process may die between any two steps; whatever it leaves resumes to the same bytes."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from cache import (
    IncompleteStoreError,
    StoreError,
    StoreExistsError,
    create_store,
    open_store,
    resume_store,
    verify_store,
)
from tests.cache.store_making import make_spec, make_store, tree, write, write_missing


class Killed(BaseException):
    """Stands for kill -9."""


class Killer:
    """Dies at the n-th step that changes the disk; a dead process changes nothing any more.

    Steps that zarr takes in threads of its own are left alone: it renames what it has written.
    An fsync changes nothing that another process could see.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.last: int | None = None
        for owner, name in (
            (Path, "rename"),
            (Path, "replace"),
            (Path, "unlink"),
            (Path, "mkdir"),
            (shutil, "rmtree"),
        ):
            monkeypatch.setattr(owner, name, self.guarded(getattr(owner, name)))

    def guarded(self, step):
        def take(*args, **kwargs):
            if threading.current_thread() is not threading.main_thread():
                return step(*args, **kwargs)
            if self.last is not None and self.steps >= self.last:
                raise Killed
            self.steps += 1
            return step(*args, **kwargs)

        return take

    def at(self, last: int | None) -> None:
        self.steps, self.last = 0, last


@pytest.fixture
def killer(monkeypatch):
    return Killer(monkeypatch)


SPEC = make_spec(n_train=5, n_views=0, shard_rows=5)  # one shard of train, two of test


def extract(path: Path, *, overwrite: bool = False) -> None:
    """What the pipeline does: go on where something was begun, else begin."""
    try:
        writer = resume_store(path, SPEC)
    except StoreError:
        writer = create_store(path, SPEC, overwrite=overwrite)
    with writer:
        write_missing(writer, seed=1)
        writer.seal().close()


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_killed_at_any_step_it_resumes_to_equal_bytes(tmp_path, killer, suffix):
    whole = tmp_path / f"whole{suffix}"
    killer.at(None)
    extract(whole)
    steps = killer.steps
    assert steps > 12

    for step in range(steps):
        path = tmp_path / f"killed-{step}{suffix}"
        killer.at(step)
        with pytest.raises(Killed):
            extract(path)
        killer.at(None)
        if path.exists():  # under its name a store is complete, whatever happened
            assert verify_store(path) == []
            with pytest.raises(StoreExistsError, match="complete already"):
                resume_store(path, SPEC)
        else:
            extract(path)
        assert not path.with_name(f"{path.name}.partial").exists()
        assert tree(path) == tree(whole), f"killed at step {step}"


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_killed_while_overwriting_one_of_the_two_stores_is_whole(tmp_path, killer, suffix):
    old, new = tmp_path / f"old{suffix}", tmp_path / f"new{suffix}"
    make_store(old, SPEC, seed=0).close()
    extract(new)
    killer.at(None)
    path = tmp_path / f"x{suffix}"
    copy(old, path)
    extract(path, overwrite=True)
    windows = 0

    # Nothing touches the old store until sealing, the last half of the steps: a sample is enough.
    steps = [*range(0, killer.steps // 2, 7), *range(killer.steps // 2, killer.steps)]
    for step in steps:
        path = tmp_path / f"x-{step}{suffix}"
        copy(old, path)
        killer.at(step)
        with pytest.raises(Killed):
            extract(path, overwrite=True)
        killer.at(None)
        if path.exists():
            assert tree(path) in (tree(old), tree(new))
        else:  # between the two renames that a folder needs
            windows += 1
            with pytest.raises(IncompleteStoreError, match="--resume"):
                open_store(path)
        extract(path, overwrite=True)
        assert tree(path) == tree(new), f"killed at step {step}"
        assert not path.with_name(f"{path.name}.partial").exists()
    assert windows <= 1


def test_what_a_killed_write_of_zarr_leaves_is_swept(tmp_path):
    path = tmp_path / "x.zarr"
    with create_store(path, SPEC) as writer:
        orphan = tmp_path / "x.zarr.partial/store/train/features/c.0.0.5f0c.partial"
        orphan.write_bytes(b"half a shard")
        write_missing(writer)
        writer.seal().close()
    assert not [name for name in tree(path) if "partial" in name]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_beginning_anew_between_the_two_renames_brings_the_old_store_back(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    make_store(path, SPEC, seed=0).close()
    before = tree(path)
    create_store(path, SPEC, overwrite=True).close()
    path.rename(tmp_path / f"x{suffix}.partial" / "replaced")
    with create_store(path, SPEC, overwrite=True):
        assert tree(path) == before


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_data_is_durable_before_it_is_recorded(tmp_path, monkeypatch, suffix):
    synced: list[Path] = []

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell which file a descriptor stands for")
    with create_store(tmp_path / f"x{suffix}", SPEC) as writer:
        monkeypatch.setattr("os.fsync", note)
        write(writer, writer.missing()[0])
    working = tmp_path / f"x{suffix}.partial"
    record = next(i for i, path in enumerate(synced) if path.parent == working / "records")
    before = [str(path.relative_to(working)) for path in synced[:record]]
    if suffix == ".zarr":
        assert before == [
            *("store/train/features/c.0.0", "store/train/features"),
            *("store/train/logits/c.0.0", "store/train/logits"),
        ]
    else:
        assert before == ["shards/train-00000.working", "shards"]
    # The record itself: first its bytes, then, once it has its name, the folder.
    assert synced[record].name.startswith(".train-00000.json.")
    assert synced[record + 1 :] == [working / "records"]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_everything_is_durable_before_it_gets_its_name(tmp_path, monkeypatch, suffix):
    synced: set[Path] = set()
    path = tmp_path / f"x{suffix}"

    def note(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell which file a descriptor stands for")
    monkeypatch.setattr("os.fsync", note)
    make_store(path, SPEC).close()
    working = tmp_path / f"x{suffix}.partial"
    if suffix == ".h5":
        assert working / "assembled.h5" in synced
    else:
        named = {working / "store" / entry.relative_to(path) for entry in path.rglob("*")}
        # The metadata of arrays is made durable under the draft's first name.
        assert {p.name for p in named - synced} <= {"zarr.json"}
    assert tmp_path in synced
