"""A small store for tests: every number follows from the row, so that any mix-up shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache import (
    Classifier,
    Identity,
    Shard,
    SplitSpec,
    Store,
    StoreSpec,
    StoreWriter,
    create_store,
    samples_digest,
)
from cache.backends.hdf5_frame import read_frame, write_frame

N_TRAIN, N_TEST, C, D, V = 23, 9, 3, 4, 2
SHARD_ROWS = 8  # 3 shards of train (8, 8, 7) and 2 of test (8, 1)
FAILED = {10: "cannot identify image file", 22: "broken"}
"""Rows of train that fail: one in the middle of shard 1, the last one of shard 2."""


def make_spec(
    *,
    dtype: str = "float32",
    store_logits: bool = True,
    n_train: int = N_TRAIN,
    n_views: int = V,
    shard_rows: int = SHARD_ROWS,
    **identity: Any,
) -> StoreSpec:
    train = SplitSpec(
        "train",
        [f"katze/{row} schön.png" for row in range(n_train)],
        np.arange(n_train) % C,
        n_views,
    )
    test = SplitSpec("test", [f"hund/{row}.png" for row in range(N_TEST)], np.arange(N_TEST) % C)
    classifier = Classifier(
        np.linspace(-1, 1, C * D).reshape(C, D), np.array([0.5, 0.0, -0.5]), scale=2.0
    )
    fields: dict[str, Any] = {
        "model": {"family": "plain", "backbone": "small-cnn"},
        "checkpoint": "a" * 64,
        "backbone": "b" * 64,
        "classifier": classifier.digest(),
        "preprocessing": {"resize": [8, 8], "mean": 0.5, "std": 0.5},
        "compute": {"dtype": "float32"},
        "dtype": dtype,
        "device": "cpu",
        "views": {"train": {"count": V, "seed": 0}, "test": None},
        "samples": {each.name: samples_digest(each.ids, each.labels) for each in (train, test)},
    }
    return StoreSpec(
        identity=Identity(**(fields | identity)),
        class_names=("hund", "katze", "maus"),
        classifier=classifier,
        splits=(train, test),
        store_logits=store_logits,
        shard_rows=shard_rows,
        provenance={"command": "nolb extract", "versions": {"numpy": "2"}},
    )


def with_head(spec: StoreSpec, head: Classifier, **changes: Any) -> StoreSpec:
    """The same with another old head."""
    identity = replace(spec.identity, classifier=head.digest())
    return replace(spec, identity=identity, classifier=head, **changes)


def whole_arrays(spec: StoreSpec, split: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Features, views and logits of a split in their stored types, NaN in failed rows."""
    of = next(each for each in spec.splits if each.name == split)
    rng = np.random.default_rng([seed, len(split)])
    shape = (len(of.ids), spec.classifier.weight.shape[1])
    arrays = {"features": rng.normal(size=shape).astype(spec.dtype)}
    if of.n_views:
        arrays["views"] = rng.normal(size=(of.n_views, *shape)).astype(spec.dtype)
    if spec.store_logits:
        arrays["logits"] = rng.normal(size=(len(of.ids), C)).astype(np.float32)
    for array in arrays.values():
        array[..., list(failures_in(split, shape[0])), :] = np.nan
    return arrays


def failures_in(split: str, stop: int, start: int = 0) -> dict[int, str]:
    failed = FAILED if split == "train" else {}
    return {row: why for row, why in failed.items() if start <= row < stop}


def write(writer: StoreWriter, shard: Shard, seed: int = 0) -> None:
    arrays = {
        name: array[..., shard.start : shard.stop, :]
        for name, array in whole_arrays(writer.spec, shard.split, seed).items()
    }
    failures = failures_in(shard.split, shard.stop, shard.start)
    writer.write_shard(shard, **arrays, failures=failures)


def write_missing(writer: StoreWriter, seed: int = 0) -> None:
    for shard in writer.missing():
        write(writer, shard, seed)


def make_store(path: Path, spec: StoreSpec | None = None, seed: int = 0) -> Store:
    with create_store(path, spec or make_spec()) as writer:
        write_missing(writer, seed)
        return writer.seal()


def with_identity(spec: StoreSpec, **changes: Any) -> StoreSpec:
    return replace(spec, identity=replace(spec.identity, **changes))


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a store by its name, to compare two stores byte by byte."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


@contextmanager
def editing(path: Path) -> Iterator[h5py.File]:
    """The HDF5 part of a store to edit, and the frame that fits it afterwards.

    As a stranger does it, who knows how the frame is made.
    """
    frame = read_frame(path)
    assert frame is not None
    with path.open("r+b") as raw:
        raw.truncate(frame.stop)  # without the tail, over which HDF5 would write
    with h5py.File(path, "r+") as file:
        yield file
    write_frame(path, frame.start, frame.catalogue, frame.chunks)
