"""Full, read-only and forbidden disks, clocks that go backwards: a clear error, nothing lost."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache import (
    IncompleteStoreError,
    StoreError,
    describe_store,
    open_store,
    resume_store,
    verify_store,
)
from pipeline.config import ExtractConfig
from pipeline.errors import OutputError
from pipeline.stages.export import export
from tests.cache.store_making import make_spec, make_store, tree
from tests.exporting.exported import small_extraction
from tests.small_data import small_inputs
from tests.small_extractions import Run

CONFIG = ExtractConfig(device="cpu", workers=0, views=2, batch_size=3, shard_rows=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(small_inputs(tmp_path_factory.mktemp("inputs")), CONFIG)


class Disk:
    """A tmpfs that can be full or read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return (
            shutil.which("mount") is not None
            and not subprocess.run(command, capture_output=True, check=False).returncode
        )


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = Disk(folder)
    if not made.mount("size=4m"):
        pytest.skip("mounting a small file system needs root")
    yield made
    subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True)


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("free", [0, 12, 40, 90])
def test_a_full_disk_stops_the_run_and_loses_nothing(run, disk, tmp_path, suffix, free):
    whole, out = tmp_path / f"whole.{suffix}", disk.folder / f"x.{suffix}"
    run(whole).store.close()
    disk.mount(f"remount,size={free * 1024 or 4096}")
    with pytest.raises(StoreError, match=r"No space left on device.*make room"):
        run(out)
    assert not out.exists()
    disk.mount("remount,size=4m")
    resumed = run(out, resume=True)
    resumed.store.close()
    if free == 90:  # some shards fitted, and are not computed again
        assert resumed.computed < 19
    assert tree(out) == tree(whole)
    assert [entry.name for entry in disk.folder.iterdir()] == [out.name]


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_a_read_only_file_system_is_read_and_never_written(run, disk, suffix):
    out = disk.folder / f"x.{suffix}"
    make_store(out).close()
    before = tree(out)
    disk.mount("remount,ro")
    with open_store(out) as store:
        assert store["train"].features().shape == (23, 4)
    assert verify_store(out) == []
    assert describe_store(out).complete
    with pytest.raises(StoreError, match=r"cannot be written \(Read-only file system\)"):
        run(disk.folder / f"y.{suffix}")
    disk.mount("remount,rw")
    assert tree(out) == before


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_an_unfinished_store_on_a_read_only_file_system(run, disk, suffix):
    out = disk.folder / f"x.{suffix}"
    disk.mount("remount,size=90k")
    with pytest.raises(StoreError, match="No space left"):
        run(out)
    disk.mount("remount,ro,size=90k")
    with pytest.raises(IncompleteStoreError, match="--resume"):
        open_store(out)
    with pytest.raises(StoreError, match=r"cannot be written \(Read-only file system\)"):
        run(out, resume=True)
    disk.mount("remount,rw,size=4m")
    run(out, resume=True).store.close()
    assert verify_store(out) == []


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt2", "m.pth"])
def test_an_export_to_a_full_disk_is_one_sentence(disk, tmp_path, name):
    small = small_extraction(tmp_path)
    disk.mount("remount,size=8k")
    formats = {".safetensors": "safetensors", ".pt2": "torch-export", ".pth": "checkpoint"}
    format_name = formats[Path(name).suffix]
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\): make"):
        export(
            small.store, small.head, small.checkpoint, disk.folder / name, format=format_name,
            temperatures=None, side=small.side,
        )  # fmt: skip
    assert list(disk.folder.iterdir()) == []


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that this process may look into and not write to."""
    if os.geteuid() != 0:
        pytest.skip("giving up one's rights for a while needs root")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    os.seteuid(0)
    shutil.rmtree(folder)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_no_permission_to_write(nobody, suffix):
    make_store(nobody / f"x{suffix}").close()
    os.seteuid(65534)
    with open_store(nobody / f"x{suffix}") as store:
        assert store["test"].features().shape == (9, 4)
    with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\)"):
        make_store(nobody / f"y{suffix}")


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_no_permission_to_read(nobody, suffix):
    path = nobody / "closed" / f"x{suffix}"
    path.parent.mkdir()
    make_store(path).close()
    path.parent.chmod(0o700)
    os.seteuid(65534)
    for attempt in (open_store, describe_store, lambda path: resume_store(path, make_spec())):
        with pytest.raises(StoreError, match="no permission to read it"):
            attempt(path)


def test_a_clock_that_goes_backwards_changes_nothing(run, tmp_path, monkeypatch):
    run(tmp_path / "whole.zarr").store.close()
    clock = itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "x.zarr", on_progress=interrupt)
    for file in (tmp_path / "x.zarr.partial").rglob("*"):
        os.utime(file, (4_000_000_000, 4_000_000_000))  # written in the far future
    run(tmp_path / "x.zarr", resume=True).store.close()
    assert tree(tmp_path / "x.zarr") == tree(tmp_path / "whole.zarr")


def interrupt(snapshot) -> None:
    if snapshot.done > 6:
        raise KeyboardInterrupt
