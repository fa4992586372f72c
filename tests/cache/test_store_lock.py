"""Two extractions never write one store, and a dead one never keeps a living one out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cache import (
    StoreError,
    StoreLockedError,
    StoreNotFoundError,
    create_store,
    join_store,
    open_store,
    resume_store,
    verify_store,
)
from tests.cache.store_making import make_spec, tree, with_identity, write, write_missing
from tests.processes import ROOT

HOLD = """
import sys, time
from pathlib import Path
from cache import create_store
from tests.cache.store_making import make_spec, write
writer = create_store(Path(sys.argv[1]), make_spec())
write(writer, writer.missing()[0])
print("holding", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=[".zarr", ".h5", ".memory"])
def path(request, tmp_path) -> Path:
    return tmp_path / f"x{request.param}"


def test_nobody_else_writes_while_one_does(path):
    with create_store(path, make_spec()) as writer:
        for attempt in (
            lambda: resume_store(path, make_spec()),
            lambda: create_store(path, make_spec(), overwrite=True),
        ):
            with pytest.raises(StoreLockedError, match="is being written"):
                attempt()
        write_missing(writer)
    with resume_store(path, make_spec()) as writer:
        assert writer.missing() == []
        writer.seal().close()
    assert verify_store(path) == []


def test_a_sealed_store_is_free(path):
    with create_store(path, make_spec()) as writer:
        write_missing(writer)
        writer.seal().close()
        create_store(path, make_spec(), overwrite=True).close()


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_the_lock_ends_with_its_holder_and_what_it_stored_stays(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(StoreLockedError, match=f"by process {holder.pid} on "):
            resume_store(path, make_spec())
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with resume_store(path, make_spec()) as writer:
        assert len(writer.missing()) == 4
        write_missing(writer)
        writer.seal().close()
    assert verify_store(path) == []


def test_a_forked_child_that_outlives_its_parent_s_hold_does_not_keep_it(tmp_path):
    path = tmp_path / "x.zarr"
    writer = create_store(path, make_spec())
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # what a reading process is: forked while the parent holds the lock
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    writer.close()
    resume_store(path, make_spec()).close()
    os.write(go[1], b".")
    os.waitpid(child, 0)
    for end in (*ready, *go):
        os.close(end)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_those_invited_write_the_same_store(tmp_path, suffix):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"x{suffix}"
    for each in (whole, path):
        with create_store(each, make_spec()) as writer:
            if each == whole:
                write_missing(writer)
            else:
                invitation = writer.share()
                shards = writer.missing()
                with join_store(path, make_spec(), invitation) as other:
                    assert not writer.alone()
                    for shard in shards[::2]:
                        write(other, shard)
                    with pytest.raises(StoreLockedError):
                        resume_store(path, make_spec())
                    with pytest.raises(StoreLockedError):
                        join_store(path, make_spec(), "a guess")
                assert writer.alone()
                with pytest.raises(StoreLockedError):
                    resume_store(path, make_spec())
                for shard in shards[1::2]:
                    write(writer, shard)
            writer.seal().close()
    assert tree(path) == tree(whole)


def test_joining_needs_a_store_of_the_same_extraction(path):
    with pytest.raises(StoreNotFoundError):
        join_store(path, make_spec(), "x")
    with create_store(path, make_spec()) as writer:
        invitation = writer.share()
        with pytest.raises(StoreError, match="device"):
            join_store(path, with_identity(make_spec(), device="cuda"), invitation)


def test_a_member_keeps_others_out_after_its_leader_died(tmp_path):
    path = tmp_path / "x.zarr"
    leader = create_store(path, make_spec())
    with join_store(path, make_spec(), leader.share()):
        leader.close()
        with pytest.raises(StoreLockedError):
            resume_store(path, make_spec())
    resume_store(path, make_spec()).close()


def test_what_was_killed_while_it_was_made_is_swept(tmp_path):
    path = tmp_path / "x.zarr"
    left = tmp_path / f".x.zarr.{'0' * 32}"
    left.mkdir()
    (left / "lock").touch()
    create_store(path, make_spec()).close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.zarr.partial"]


@pytest.mark.parametrize("content", [b"", b"no json", b'{"pid": "x"}', b"[" * 5000, b"\xff"])
def test_what_the_lock_file_says_decides_nothing(tmp_path, content):
    path = tmp_path / "x.zarr"
    with create_store(path, make_spec()):
        (tmp_path / "x.zarr.partial" / "lock").write_bytes(content)
        with pytest.raises(StoreLockedError, match="is being written"):
            resume_store(path, make_spec())
    resume_store(path, make_spec()).close()


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
@pytest.mark.parametrize("kind", ["nothing", "dangling", "link", "folder"])
def test_a_lock_that_is_no_file_is_told(tmp_path, suffix, kind):
    path = tmp_path / f"x{suffix}"
    create_store(path, make_spec()).close()
    lock, other = tmp_path / f"x{suffix}.partial" / "lock", tmp_path / "other"
    put(kind, lock, other)
    with pytest.raises(StoreError, match=r"partial/lock is missing or no plain file.*--overwrite"):
        resume_store(path, make_spec())
    create_store(path, make_spec(), overwrite=True).close()
    assert lock.is_file()
    assert not other.exists() or other.read_text() == "own"


@pytest.mark.parametrize("kind", ["dangling", "folder"])
def test_what_stands_in_the_place_of_a_draft_is_told(tmp_path, kind):
    place = tmp_path / "x.zarr.partial"
    put(kind, place, tmp_path / "other")
    if kind == "folder":
        (place / "own").touch()
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"x.zarr.partial stands where .* Move it away"):
            create_store(tmp_path / "x.zarr", make_spec(), overwrite=overwrite)


def put(kind: str, place: Path, other: Path) -> None:
    """Something else in the place of a file; `other` is what a link points to."""
    place.unlink(missing_ok=True)
    if kind == "folder":
        place.mkdir()
    elif kind != "nothing":
        if kind == "link":
            other.write_text("own")
        place.symlink_to(other)


def test_reading_takes_no_lock(tmp_path):
    path = tmp_path / "x.zarr"
    with create_store(path, make_spec()) as writer:
        write_missing(writer)
        with pytest.raises(StoreError, match="not sealed yet"):
            open_store(path)
        with writer.seal() as first, open_store(path) as second:
            assert first["test"].features().tobytes() == second["test"].features().tobytes()
