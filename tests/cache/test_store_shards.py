"""What one shard costs does not depend on how many others there are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache import StoreSpec, create_store
from cache.backends.hdf5_frame import read_frame
from cache.layout import Header
from tests.cache.store_making import make_spec, make_store, whole_arrays, write

FEW, MANY = 5, 200
"""Shards of `train`."""


def n_calls(work: Callable[..., object], *arguments: Any, **named: Any) -> int:
    """How many functions are called meanwhile, and how often generators go on."""
    count = 0

    def note(frame: object, event: str, what: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work(*arguments, **named)
    finally:
        sys.setprofile(None)
    return count


def spec_with(n_shards: int) -> StoreSpec:
    return make_spec(n_train=8 * n_shards, n_views=0)


@pytest.fixture(params=[".memory", ".h5"])
def paths(request, tmp_path) -> dict[int, Path]:
    return {n_shards: tmp_path / f"x{n_shards}{request.param}" for n_shards in (FEW, MANY)}


def test_writing_one(paths):
    counts = set()
    for n_shards, path in paths.items():
        with create_store(path, spec_with(n_shards)) as writer:
            first, *others = writer.missing()
            write(writer, first)  # what is done once only is done now
            arrays = {
                name: array[others[2].rows]
                for name, array in whole_arrays(writer.spec, "train").items()
            }
            counts.add(n_calls(writer.write_shard, others[2], **arrays))
    assert len(counts) == 1


@pytest.mark.parametrize("rows", [(24, 32), (25, 30)])
def test_reading_one(paths, rows):
    counts = set()
    for n_shards, path in paths.items():
        with make_store(path, spec_with(n_shards)) as store:
            store["train"].features(*rows)
            counts.add(n_calls(store["train"].features, *rows))
    assert len(counts) == 1


def test_reading_one_without_hdf5(tmp_path):
    counts = set()
    for n_shards in (FEW, MANY):
        spec, path = spec_with(n_shards), tmp_path / f"x{n_shards}.h5"
        make_store(path, spec).close()
        frame, header = read_frame(path), Header.of(spec)
        array, shard = header.shard_arrays("train")["features"], header.shards("train")[3]
        with path.open("rb") as raw:
            counts.add(n_calls(frame.read_shard, raw, array, shard))
    assert len(counts) == 1


@pytest.mark.parametrize(
    "change",
    [{"index": 4}, {"index": -1, "start": -8, "stop": 0}, {"start": 23}, {"stop": 33},
     {"split": "val"}, {"index": 5, "start": 40, "stop": 40}],
)  # fmt: skip
def test_a_header_knows_its_shards(change):
    header = Header.of(make_spec(n_train=36))
    assert all(map(header.has, header.shards()))
    assert not header.has(replace(header.shards("train")[3], **change))
