"""Stores of strangers: parsed as data, bounded, and never a way out of their own files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import CorruptStoreError, NolbError, StoreError, open_store, resume_store, verify_store
from cache.catalogue import Catalogue
from cache.shards import ShardRecord
from cache.strict_json import MOST_BYTES, canonical, parse
from tests.cache.store_making import editing, make_spec, whole_arrays

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**4000)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["train", "../test", "float16", "classifier", "nolb"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def catalogue(stores) -> dict:
    with h5py.File(stores[".h5"]) as file:
        return json.loads(file["catalogue"].asstr()[0])


def forge(attributes: dict, records: dict) -> str:
    """What a stranger writes who knows how the digest is made."""
    rest = {key: value for key, value in attributes.items() if key != "digest"}
    try:
        digest = hashlib.sha256(canonical([rest, records]).encode()).hexdigest()
        return json.dumps(
            {"attributes": rest | {"digest": digest}, "records": records}, allow_nan=True
        )
    except ValueError:
        return "{}"


def mutate(value, path, new):
    """A copy of a JSON value with another value at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = mutate(copy[path[0]], path[1:], new)
    return copy


def places(value, at=()):
    yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


@settings(max_examples=300)
@given(data=st.data())
def test_forged_catalogues_raise_our_errors_alone(catalogue, data):
    place = data.draw(st.sampled_from(list(places(catalogue))[1:]))
    forged = mutate(catalogue, place, data.draw(JSON))
    attributes, records = forged["attributes"], forged["records"]
    if not isinstance(attributes, dict) or not isinstance(records, dict):
        attributes, records = {}, {}
    with suppress(NolbError):
        Catalogue.from_text(forge(attributes, records), Path("x.zarr"))


@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_as_json(text):
    for read in (lambda: parse(text, "it"), lambda: ShardRecord.from_text(text, "it")):
        with suppress(NolbError):
            read()


def test_numbers_of_more_digits_than_python_reads():
    with pytest.raises(NolbError, match="not valid JSON"):
        parse("1" * 5000, "it")


@pytest.mark.parametrize("row", ["-1", "1" * 5000, "٣", "1e3", "", "8"])
def test_failures_name_rows_of_their_shard(catalogue, row):
    record = json.loads(catalogue["records"]["train"][0]) | {"failures": {row: "x"}}
    with pytest.raises(NolbError, match="failed, which is not its own"):
        ShardRecord.from_text(json.dumps(record), "it")


def test_a_header_that_speaks_of_more_shards_than_the_memory_holds(catalogue):
    attributes = dict(catalogue["attributes"])
    attributes["splits"] = [dict(split, n_samples=10**18) for split in attributes["splits"]]
    for rows in (1, 8, 10**18):
        text = forge(attributes | {"shard_rows": rows}, catalogue["records"])
        with pytest.raises(CorruptStoreError, match="do not cover its rows"):
            Catalogue.from_text(text, Path("x.zarr"))


def test_texts_longer_than_ours_are_not_parsed():
    with pytest.raises(NolbError, match="ours are shorter"):
        parse(" " * (MOST_BYTES + 1), "it")


@settings(max_examples=60)
@given(data=st.data())
def test_any_zarr_json(stores, tmp_path_factory, data):
    path = stores[".zarr"]
    file = data.draw(st.sampled_from(sorted(path.rglob("zarr.json"))))
    content = file.read_bytes()
    value = json.loads(content)
    place = data.draw(st.sampled_from(list(places(value))))
    new = data.draw(JSON)
    try:
        file.write_text(json.dumps(mutate(value, place, new)), encoding="utf-8")
    except ValueError:
        return
    try:
        with open_store(path) as store:
            served = store["train"].features().tobytes(), store["train"].ids
        expected = whole_arrays(make_spec(), "train")["features"].tobytes()
        assert served == (expected, make_spec().splits[0].ids)
    except NolbError:
        pass
    finally:
        file.write_bytes(content)


@settings(max_examples=60)
@given(value=JSON, name=st.sampled_from(["format", "version", "identity", "splits", "class_names"]))
def test_any_draft(tmp_path_factory, value, name):
    folder = tmp_path_factory.mktemp("draft")
    partial = folder / "x.h5.partial"
    (partial / "shards").mkdir(parents=True)
    header = {"format": "nolb", "version": 1} | {name: value}
    try:
        text = json.dumps({"header": header, "replaces": False})
    except ValueError:
        return
    (partial / "draft.json").write_text(text, encoding="utf-8")
    for attempt in (open_store, lambda path: resume_store(path, make_spec())):
        with pytest.raises(NolbError):
            attempt(folder / "x.h5")


# Ways out of the file


def hdf5_with(stores, tmp_path, change) -> Path:
    path = Path(shutil.copy(stores[".h5"], tmp_path / "x.h5"))
    with editing(path) as file:
        change(file, file["train/features"][...])
    return path


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual"])
def test_hdf5_arrays_lie_in_their_own_file(stores, tmp_path, kind):
    secret = tmp_path / "secret"
    with h5py.File(secret, "w") as file:
        file["features"] = np.zeros((23, 4), np.float32)

    def change(file, values):
        del file["train/features"]
        train = file["train"]
        if kind == "external link":
            train["features"] = h5py.ExternalLink(str(secret), "features")
        elif kind == "soft link":
            train["elsewhere"] = values
            train["features"] = h5py.SoftLink("/train/elsewhere")
        elif kind == "external storage":
            external = [(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
            train.create_dataset("features", values.shape, "f4", external=external)
        else:
            layout = h5py.VirtualLayout(values.shape, "f4")
            layout[...] = h5py.VirtualSource(secret, "features", values.shape)
            train.create_virtual_dataset("features", layout)

    path = hdf5_with(stores, tmp_path, change)
    with pytest.raises(CorruptStoreError, match=r"no part of the file|does not lie in the file"):
        open_store(path)


def test_an_hdf5_array_that_unpacks_to_more_than_its_file_is_refused(stores, tmp_path):
    def change(file, values):
        del file["train/features"]
        file["train"].create_dataset(
            "features", data=np.zeros_like(values), chunks=(8, 4), compression="gzip"
        )

    with pytest.raises(CorruptStoreError, match="not stored as nolb stores it"):
        open_store(hdf5_with(stores, tmp_path, change))


def test_hdf5_texts_are_no_longer_than_their_file(stores, tmp_path):
    def change(file, values):
        del file["train/ids"]
        # One long text to which many rows refer.
        file["train"].create_dataset("ids", (23,), h5py.string_dtype(), fillvalue=b"x" * 60_000)

    with pytest.raises(NolbError), open_store(hdf5_with(stores, tmp_path, change)) as store:
        _ = store["train"].ids


def test_zarr_arrays_with_other_codecs_are_refused(stores, tmp_path):
    path = Path(shutil.copytree(stores[".zarr"], tmp_path / "x.zarr"))
    shutil.rmtree(path / "train/features")
    group = zarr.open_group(path, mode="r+")
    group["train"].create_array(
        "features", shape=(23, 4), chunks=(8, 4), dtype="f4", fill_value=np.nan,
        compressors=[zarr.codecs.GzipCodec()],
    )  # fmt: skip
    with pytest.raises(CorruptStoreError, match="not stored as nolb stores it"):
        open_store(path)


@pytest.mark.parametrize("name", ["zarr.json", "train/features/zarr.json", "train/features/c.0.0"])
def test_what_is_no_plain_file_is_not_read(stores, tmp_path, name):
    """A pipe would be waited for without end, a device read without end."""
    path = Path(shutil.copytree(stores[".zarr"], tmp_path / "x.zarr"))
    (path / name).unlink()
    if name.endswith("c.0.0"):
        (path / name).symlink_to("/dev/zero")
    else:
        os.mkfifo(path / name)
    assert_refused(path)


def test_a_zarr_json_larger_than_ours_is_not_read(stores, tmp_path):
    path = Path(shutil.copytree(stores[".zarr"], tmp_path / "x.zarr"))
    with (path / "train/ids/zarr.json").open("r+b") as file:
        file.truncate(MOST_BYTES + 1)  # a hole: it takes no room
    assert_refused(path)


def assert_refused(path: Path) -> None:
    with pytest.raises(NolbError), open_store(path) as store:
        store["train"].features()
    with suppress(NolbError):
        assert verify_store(path)


def test_more_rows_than_the_memory_holds_are_refused_in_words(stores, monkeypatch):
    def refuse(*_):
        raise MemoryError

    with open_store(stores[".h5"]) as store:
        monkeypatch.setattr("cache.store.np.empty", refuse)
        with pytest.raises(StoreError, match="do not fit the memory; read fewer rows"):
            store["train"].features()
