"""Damage is found by verify and never served as data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CorruptStoreError, NolbError, open_store, reopen_store, verify_store
from tests.cache.store_making import editing, make_spec, whole_arrays


@pytest.fixture(scope="module")
def original(stores) -> dict[str, bytes]:
    """What a reader gets from a whole store, of either kind."""
    assert read_all(stores[".zarr"]) == read_all(stores[".h5"])
    return read_all(stores[".h5"])


@pytest.fixture
def zarr_store(stores, tmp_path) -> Path:
    return Path(shutil.copytree(stores[".zarr"], tmp_path / "x.zarr"))


@pytest.fixture
def hdf5_store(stores, tmp_path) -> Path:
    return Path(shutil.copy(stores[".h5"], tmp_path / "x.h5"))


def flip(file: Path, position: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def read_all(path: Path) -> dict[str, bytes]:
    """Everything that a reader can ask a store for."""
    with open_store(path) as store:
        found = {
            "names": repr((store.class_names, store.class_counts, store.provenance)).encode(),
            "identity": repr(store.identity).encode(),
            "head": store.classifier.digest().encode(),
        }
        for name in store.splits:
            split = store[name]
            found[f"{name}/failed"] = repr((split.ids, split.failed)).encode()
            found[f"{name}/labels"] = split.labels.tobytes()
            found[f"{name}/features"] = split.features().tobytes()
            found[f"{name}/parts"] = split.features(1, 5).tobytes()
            found[f"{name}/logits"] = split.logits().tobytes()
            if split.n_views:
                found[f"{name}/views"] = split.views().tobytes()
    return found


def require_noticed(path: Path, original: dict[str, bytes], *, harmless: bool = False) -> None:
    """Reading raises or gives the original; verify complains unless nothing can differ."""
    served = None
    with suppress(NolbError):
        served = read_all(path)
    assert served in (None, original)
    try:
        problems = verify_store(path)
    except NolbError:
        return
    assert problems or (harmless and served == original)


def test_a_whole_store_has_no_problems(stores):
    for path in stores.values():
        assert verify_store(path) == []


@contextmanager
def flipped(file: Path, position: int, bit: int) -> Iterator[None]:
    content = file.read_bytes()
    flip(file, position, bit)
    try:
        yield
    finally:
        file.write_bytes(content)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_of_a_zarr_store_is_noticed(stores, original, data):
    path = stores[".zarr"]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    chosen = data.draw(st.sampled_from(files))
    position = data.draw(st.integers(0, chosen.stat().st_size - 1))
    with flipped(chosen, position, data.draw(st.integers(0, 7))):
        # In a zarr.json a bit may change what is not used, such as the fill value.
        require_noticed(path, original, harmless=chosen.name == "zarr.json")


def hdf5_chunks(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of every stored chunk that has a checksum of HDF5's own."""
    with h5py.File(path) as file:
        for split in ("train", "test"):
            for name in ("features", "views", "logits", "labels"):
                if f"{split}/{name}" in file:
                    dataset = file[f"{split}/{name}"]
                    for index in range(dataset.id.get_num_chunks()):
                        chunk = dataset.id.get_chunk_info(index)
                        yield dataset.name, chunk.byte_offset, chunk.size


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_of_hdf5_data_is_noticed(stores, original, data):
    path = stores[".h5"]
    _, offset, size = data.draw(st.sampled_from(sorted(hdf5_chunks(path))))
    position = data.draw(st.integers(offset, offset + size - 1))
    with flipped(path, position, data.draw(st.integers(0, 7))):
        require_noticed(path, original)


@pytest.mark.parametrize(
    "text",
    ["katze/3 sch", "cannot identify image", "hund", "nolb extract", '"index":1', "small"],
)
def test_flipped_bits_in_hdf5_texts_are_noticed(hdf5_store, original, text):
    content = hdf5_store.read_bytes()
    position = content.find(text.encode())
    assert position > 0
    while position >= 0:
        flip(hdf5_store, position, 0)
        require_noticed(hdf5_store, original)
        hdf5_store.write_bytes(content)
        position = content.find(text.encode(), position + 1)


@pytest.mark.parametrize("name", ["features", "views", "logits"])
def test_a_lost_shard_is_noticed_though_zarr_would_read_nan(zarr_store, name):
    (zarr_store / "train" / name / ("c.0.1.0" if name == "views" else "c.1.0")).unlink()
    with open_store(zarr_store) as store:
        train = store["train"]
        read = getattr(train, name)
        for rows in ((0, 23), (8, 16), (9, 10)):
            with pytest.raises(CorruptStoreError, match=r"shard 1 of split 'train' \(rows 8 to 15"):
                read(*rows)
        expected = whole_arrays(make_spec(), "train")[name][..., :8, :]
        np.testing.assert_array_equal(read(0, 8), expected)  # the others are still served
    [problem] = verify_store(zarr_store)
    assert problem.shard is not None
    assert problem.shard.name == "train-00001"
    assert "extract it again with --overwrite" in str(problem)


def test_swapped_shards_are_noticed_though_their_checksums_are_right(zarr_store, hdf5_store):
    folder = zarr_store / "train" / "features"
    first, second = (folder / "c.0.0").read_bytes(), (folder / "c.1.0").read_bytes()
    (folder / "c.0.0").write_bytes(second)
    (folder / "c.1.0").write_bytes(first)
    with h5py.File(hdf5_store, "r+") as file:
        features = file["train/features"]
        features[0:8], features[8:16] = features[8:16], features[0:8]
    for path in (zarr_store, hdf5_store):
        assert [problem.shard.index for problem in verify_store(path)] == [0, 1]
        with open_store(path) as store, pytest.raises(CorruptStoreError):
            store["train"].features()


@pytest.mark.parametrize("name", ["records", "ids", "failed", "catalogue"])
@pytest.mark.parametrize(
    "other", ["classifier/weight/c.0.0", "test/features/c.0.0", "test/ids/c.0"]
)
def test_a_chunk_of_texts_that_is_another_array_s_is_told(zarr_store, name, other):
    """zarr would make room for as many texts as the first number of the weights says."""
    array = zarr_store / (name if name == "catalogue" else f"train/{name}")
    shutil.copy(zarr_store / other, array / "c.0")
    [problem] = verify_store(zarr_store)
    assert f"{name}/c.0 is " in str(problem)
    if name == "records":
        with pytest.raises(CorruptStoreError):
            open_store(zarr_store)
    assert reopen_store(zarr_store).lost == ()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_truncated_files_are_noticed(zarr_store, hdf5_store, original, kept):
    chunk = zarr_store / "test" / "logits" / "c.1.0"
    for path, file in ((zarr_store, chunk), (hdf5_store, hdf5_store)):
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * kept)])
        require_noticed(path, original)


@pytest.mark.parametrize("lost", ["labels", "ids", "failed", "records", "features"])
def test_lost_arrays_are_noticed(zarr_store, hdf5_store, lost):
    shutil.rmtree(zarr_store / "train" / lost)
    with h5py.File(hdf5_store, "r+") as file:
        del file["train"][lost]
    for path in (zarr_store, hdf5_store):
        assert len(verify_store(path)) == 1
        with pytest.raises(CorruptStoreError):
            open_store(path)


def test_edited_values_are_noticed(hdf5_store):
    with h5py.File(hdf5_store, "r+") as file:
        file["train/labels"][0] = 2
    [problem] = verify_store(hdf5_store)
    assert "its names, texts or tables are not as written" in str(problem)


def test_edited_values_are_noticed_though_the_file_has_a_new_frame(hdf5_store):
    original = hdf5_store.read_bytes()
    edits = {
        "train/labels": (0, 2, "labels"),
        "train/ids": (0, "katze/other.png", "ids"),
        "train/failed": (0, "forgotten", "failed"),
        "classifier/weight": ((0, 0), 7.0, "old head"),
    }
    for name, (index, value, word) in edits.items():
        with editing(hdf5_store) as file:
            file[name][index] = value
        [problem] = verify_store(hdf5_store)
        assert word in str(problem)
        assert problem.shard is None
        hdf5_store.write_bytes(original)
    for attribute, value in (("class_counts", "[8,8,8]"), ("dtype", "float16"), ("version", "1")):
        with editing(hdf5_store) as file:
            file.attrs[attribute] = value
        with pytest.raises(NolbError):
            open_store(hdf5_store)
        hdf5_store.write_bytes(original)
    with editing(hdf5_store) as file:
        file["classifier"].attrs["scale"] = 3.0
    assert len(verify_store(hdf5_store)) == 1
