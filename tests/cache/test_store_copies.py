"""A copy is the store that it is a copy of, but for what it was told to change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache import (
    Classifier,
    IdentityMismatchError,
    Store,
    StoreError,
    StoreExistsError,
    StoreSpec,
    copy_store,
    open_store,
    spec_of,
    verify_store,
)
from cache.layout import Header
from tests.cache.store_making import (
    FAILED,
    C,
    D,
    make_spec,
    make_store,
    tree,
    whole_arrays,
    with_head,
)


@pytest.fixture
def store(tmp_path):
    with make_store(tmp_path / "x.zarr") as made:
        yield made


@pytest.fixture(params=[".zarr", ".h5"])
def target(request, tmp_path) -> Path:
    return tmp_path / f"copy{request.param}"


def with_another_head(store: Store) -> StoreSpec:
    return with_head(spec_of(store), Classifier(np.eye(C, D)), store_logits=False)


def stop_after(n_shards: int):
    def stop(done: int, of: int) -> None:
        if done == n_shards:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("change", [{}, {"store_logits": False}, {"dtype": "float16"}])
def test_a_store_says_what_it_was_made_of(tmp_path, change):
    spec = make_spec(**change, shard_rows=5)
    with make_store(tmp_path / "x.zarr", spec) as store:
        assert Header.of(spec_of(store)) == Header.of(spec) == store.header


def test_a_copy_of_all_is_equal_in_every_byte(store, tmp_path):
    copy_store(store, tmp_path / "copy.zarr", spec_of(store)).close()
    assert tree(tmp_path / "copy.zarr") == tree(store.path)


def test_another_head_changes_the_logits_and_nothing_else(store, target):
    with copy_store(store, target, with_another_head(store)) as copy:
        assert copy.header.shard_rows == store.header.shard_rows
        assert copy.provenance == store.provenance
        train = copy["train"]
        expected = whole_arrays(make_spec(), "train")
        assert train.features().tobytes() == expected["features"].tobytes()
        assert train.views().tobytes() == expected["views"].tobytes()
        assert train.failed == FAILED
        np.testing.assert_array_equal(train.logits(), expected["features"][:, :C])
    assert verify_store(target) == []


def test_interrupted_and_resumed_it_gives_equal_bytes(store, target, tmp_path):
    spec, whole = with_another_head(store), tmp_path / f"whole{target.suffix}"
    copy_store(store, whole, spec).close()
    with pytest.raises(KeyboardInterrupt):
        copy_store(store, target, spec, on_shard=stop_after(2))
    seen = []
    copy_store(store, target, spec, resume=True, on_shard=lambda *n: seen.append(n)).close()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert tree(target) == tree(whole)
    with pytest.raises(StoreExistsError):
        copy_store(store, target, spec)
    copy_store(store, target, spec, overwrite=True).close()
    assert tree(target) == tree(whole)


def test_what_was_begun_with_one_head_is_not_gone_on_with_by_another(store, target):
    with pytest.raises(KeyboardInterrupt):
        copy_store(store, target, with_another_head(store), on_shard=stop_after(1))
    with pytest.raises(IdentityMismatchError, match="classifier"):
        copy_store(store, target, spec_of(store), resume=True)


def test_what_a_copy_cannot_give_is_refused_before_anything_is_begun(store, target):
    spec = spec_of(store)
    for other, words in (
        (make_spec(n_train=22), "other samples or views"),
        (make_spec(n_views=1), "other samples or views"),
        (replace(with_another_head(store), store_logits=True), "no logits of that head"),
    ):
        with pytest.raises(StoreError, match=words):
            copy_store(store, target, other)
    with pytest.raises(StoreError, match="copied onto itself"):
        copy_store(store, store.path, spec, overwrite=True)
    assert [entry.name for entry in target.parent.iterdir()] == ["x.zarr"]


def test_logits_that_a_store_does_not_keep_are_not_invented(tmp_path, target):
    make_store(tmp_path / "x.zarr", make_spec(store_logits=False)).close()
    with (
        open_store(tmp_path / "x.zarr") as store,
        pytest.raises(StoreError, match="copy it with store_logits=False"),
    ):
        copy_store(store, target, replace(spec_of(store), store_logits=True))
