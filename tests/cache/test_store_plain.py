"""A store is readable without the project: with zarr or h5py alone."""

from __future__ import annotations

import json

import h5py
import numpy as np
import zarr

from tests.cache.store_making import C, D, make_spec, make_store, whole_arrays


def require_arrays(root, as_texts) -> None:
    spec = make_spec()
    for split in spec.splits:
        arrays = whole_arrays(spec, split.name)
        for name, values in arrays.items():
            np.testing.assert_array_equal(root[f"{split.name}/{name}"][:], values)
        np.testing.assert_array_equal(root[f"{split.name}/labels"][:], split.labels)
        assert root[f"{split.name}/labels"].dtype == np.int64
        assert as_texts(root[f"{split.name}/ids"]) == list(split.ids)
    failed = as_texts(root["train/failed"])
    assert (failed[9], failed[10], failed[22]) == ("", "cannot identify image file", "broken")
    assert root["classifier/weight"].shape == (C, D)
    np.testing.assert_array_equal(root["classifier/weight"][:], spec.classifier.weight)
    np.testing.assert_array_equal(root["classifier/bias"][:], spec.classifier.bias)
    assert root["classifier"].attrs["scale"] == 2.0
    assert not root["classifier"].attrs["normalized"]
    record = json.loads(as_texts(root["train/records"])[1])
    assert (record["start"], record["stop"]) == (8, 16)
    assert record["failures"] == {"10": "cannot identify image file"}


def require_attributes(attributes) -> None:
    assert attributes["format"] == "nolb"
    assert attributes["version"] == 2
    assert attributes["class_names"] == ["hund", "katze", "maus"]
    assert attributes["class_counts"] == [8, 6, 7]
    assert attributes["identity"]["checkpoint"] == "a" * 64


def test_zarr(tmp_path):
    make_store(tmp_path / "x.zarr").close()
    root = zarr.open_group(tmp_path / "x.zarr", mode="r")
    require_arrays(root, lambda array: array[:].tolist())
    require_attributes(root.attrs)


def test_zarr_keeps_one_object_for_each_shard(tmp_path):
    make_store(tmp_path / "x.zarr").close()
    names = {path.name for path in (tmp_path / "x.zarr" / "train" / "features").iterdir()}
    assert names == {"zarr.json", "c.0.0", "c.1.0", "c.2.0"}
    names = {path.name for path in (tmp_path / "x.zarr" / "train" / "views").iterdir()}
    assert names == {"zarr.json", *(f"c.{view}.{shard}.0" for view in (0, 1) for shard in range(3))}


def test_hdf5(tmp_path):
    make_store(tmp_path / "x.h5").close()
    with h5py.File(tmp_path / "x.h5") as root:
        require_arrays(root, lambda dataset: dataset.asstr()[:].tolist())
        structured = ("identity", "class_names", "class_counts")
        texts = {name: json.loads(root.attrs[name]) for name in structured}
        require_attributes(dict(root.attrs) | texts)
        assert root["train/features"].fletcher32
        assert np.isnan(root["train/features"].fillvalue)
