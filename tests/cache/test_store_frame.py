"""What stands around an HDF5 store: compared before libhdf5 reads, and enough to do without it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import pytest

from cache import (
    CorruptStoreError,
    StoreFormatError,
    create_store,
    open_store,
    reopen_store,
    resume_store,
    verify_store,
)
from cache.backends.hdf5_frame import Frame, read_frame
from tests.cache.store_making import V, make_spec, make_store, write_missing
from tests.processes import python


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "x.h5"
    make_store(path).close()
    return path


@pytest.fixture
def path(whole, tmp_path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "x.h5"))


@pytest.fixture
def frame(whole) -> Frame:
    found = read_frame(whole)
    assert found is not None
    return found


def overwrite(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


def finish(path: Path) -> None:
    with resume_store(path, make_spec()) as writer:
        write_missing(writer)
        writer.seal().close()


def heap_of(path: Path, text: bytes) -> int:
    """First byte of the objects of the heap in which a text lies."""
    content = path.read_bytes()
    return content.rindex(b"GCOL", 0, content.rindex(text)) + 16


def test_plain_readers_find_the_hdf5_part_of_a_larger_file(path, frame):
    assert frame.start >= 512
    assert frame.stop < path.stat().st_size
    with h5py.File(path) as file:
        assert file.userblock_size == frame.start
        assert file.attrs["format"] == "nolb"


IN_A_CHILD = """
import sys
from pathlib import Path
from cache import NolbError, reopen_store, verify_store
from tests.cache.test_store_damage import read_all, require_noticed

path, stride = Path(sys.argv[1]), int(sys.argv[2])
whole, original = path.read_bytes(), read_all(path)
for place in range(0, len(whole) - 64, stride):
    path.write_bytes(whole[:place] + bytes(64) + whole[place + 64 :])
    if path.read_bytes() != whole:
        require_noticed(path, original)
print("told")
"""


def test_zeroed_bytes_make_nothing_wait_without_end(path):
    assert python("-c", IN_A_CHILD, path, 997) == "told\n"


@pytest.mark.parametrize("part", ["head", "tail"])
def test_one_copy_of_the_frame_is_enough(path, whole, frame, part):
    overwrite(path, 300 if part == "head" else frame.stop + 20, b"damage")
    with open_store(path) as store:
        assert store["train"].features().shape == (23, 4)
    [problem] = verify_store(path)
    assert "sha256 in its first lines" in str(problem)
    assert reopen_store(path).lost == ()
    finish(path)
    assert path.read_bytes() == whole.read_bytes()


def test_a_file_that_lost_both_copies_is_told(path, frame):
    for place in (300, frame.stop + 20):
        overwrite(path, place, b"damage")
    with pytest.raises(CorruptStoreError, match=r"both copies of its frame are lost.*move it away"):
        open_store(path)
    assert len(verify_store(path)) == 1
    with pytest.raises(CorruptStoreError, match=r"cannot be repaired.* or move it away"):
        reopen_store(path)


def test_damage_of_hdf5_s_own_tables_costs_no_shard(path, whole, frame):
    tables = whole.read_bytes().index(b"SNOD")
    for place in (frame.start, tables, heap_of(path, b"katze/3 sch")):
        shutil.copy(whole, path)
        overwrite(path, place, bytes(40))
        with pytest.raises(CorruptStoreError, match="names, texts or tables are not as written"):
            open_store(path)
        assert reopen_store(path).lost == ()
        finish(path)
        assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shards_of_several_chunks_are_read_without_hdf5(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("cache.layout._CHUNK_BYTES", 32)  # two or four rows
    path, spec = tmp_path / "x.h5", make_spec(dtype=dtype)
    make_store(path, spec).close()
    whole = path.read_bytes()
    found = read_frame(path)
    assert found is not None
    assert len(found.chunks["train/views"].places) > 3 * V
    overwrite(path, found.start, bytes(40))
    assert reopen_store(path).lost == ()
    with resume_store(path, spec) as writer:
        assert writer.missing() == []
        writer.seal().close()
    assert path.read_bytes() == whole


def test_a_file_that_was_cut_keeps_the_shards_that_are_left(path, whole, frame):
    places = frame.chunks["train/logits"].places
    path.write_bytes(whole.read_bytes()[: places[1] + 5])
    assert len(verify_store(path)) == 1
    lost = reopen_store(path).lost
    assert lost[0].name == "train-00001"
    assert len(lost) < 5
    finish(path)
    assert path.read_bytes() == whole.read_bytes()


def test_a_damaged_store_is_replaced_with_overwrite(path, frame):
    """What the error advises."""
    overwrite(path, frame.start, bytes(40))
    with create_store(path, make_spec(), overwrite=True) as writer:
        write_missing(writer)
        writer.seal().close()
    assert verify_store(path) == []


def test_a_frame_of_another_version_is_named(path, frame):
    content = path.read_bytes().replace(b"nolb frame 2,", b"nolb frame 3,")
    path.write_bytes(content)
    with pytest.raises(StoreFormatError, match=r"has frame 3, .*reads frame 2\. Install"):
        open_store(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("start", -1), ("chunks", {"train/features": {"n_bytes": 4, "places": [-5]}}), ("stop", "1")],
)
def test_a_frame_is_read_strictly(frame, field, value):
    text = frame.text().decode()
    assert Frame.from_text(text.encode(), "it") == frame
    changed = json.dumps(json.loads(text) | {field: value}).encode()
    with pytest.raises(StoreFormatError):
        Frame.from_text(changed, "it")


def test_a_frame_that_lies_about_its_chunks_is_no_way_around_the_digests(path, frame):
    """A stranger's frame: chunks that overlap, or lie outside of the file."""
    for places in ((frame.stop - 1,), (frame.start, frame.start), (0,)):
        text = Frame(
            frame.start, frame.stop, frame.outside, frame.catalogue,
            {"train/features": type(frame.chunks["train/features"])(132, places)},
        ).text()  # fmt: skip
        line = f"nolb frame 2, {len(text)} bytes, sha256 {hashlib.sha256(text).hexdigest()}\n"
        overwrite(path, 0, line.encode() + text)
        with pytest.raises(CorruptStoreError, match="are not as written"):
            open_store(path)


@pytest.mark.parametrize("kind", ["without a head", "of the draft", "of others", "no HDF5"])
def test_a_file_without_a_frame_of_ours_is_left_alone(path, frame, monkeypatch, kind):
    """One sentence says what to do with it, and HDF5 is not asked."""
    if kind == "of others":
        with h5py.File(path, "w") as file:
            file.attrs["format"] = "another"
    else:
        hdf5 = path.read_bytes()[frame.start : frame.stop]
        head = f"nolb store, HDF5 from byte 512 on\nsha256 {hashlib.sha256(hdf5).hexdigest()}\n"
        contents = {
            "without a head": hdf5,
            "of the draft": head.encode().ljust(512, b"\0") + hdf5,
            "no HDF5": b"a,b\n",
        }
        path.write_bytes(contents[kind])
    monkeypatch.delattr("cache.backends.hdf5._open")
    sentence = "no nolb store, or one from before the first release: move it away and extract again"
    for attempt in (
        open_store,
        verify_store,
        lambda path: create_store(path, make_spec(), overwrite=True),
    ):
        with pytest.raises(StoreFormatError, match=sentence):
            attempt(path)
    with pytest.raises(CorruptStoreError, match="move it away and extract again"):
        reopen_store(path)
