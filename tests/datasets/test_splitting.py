"""Seeded stratified splits: disjoint, complete, alike on any machine."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets import ArraySource, SubsetSource, open_sources, split_source
from pipeline.datasets.splitting import balanced_rows
from pipeline.errors import DatasetError

COUNTS = (40, 9, 4)


def source(counts: tuple[int, ...] = COUNTS) -> ArraySource:
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    return ArraySource(images, labels, [f"c{label}" for label in range(len(counts))])


def test_every_class_is_shared_out() -> None:
    parts = split_source(source(), {"val": 0.1, "test": 0.2}, seed=3)
    sizes = {name: np.bincount(part.labels).tolist() for name, part in parts.items()}
    # 40: 4 and 8; 9: round(0.9) = 1 and round(1.8) = 2; 4: at least 1 and round(0.8) = 1.
    assert sizes == {"val": [4, 1, 1], "test": [8, 2, 1], "train": [28, 6, 2]}
    ids = [sample for part in parts.values() for sample in part.ids]
    assert sorted(ids) == list(source().ids)


def test_images_go_with_their_ids() -> None:
    part = split_source(source(), {"test": 0.3})["test"]
    again: SubsetSource = pickle.loads(pickle.dumps(part))  # noqa: S301  ours, for the workers
    for i, sample in enumerate(again.ids):
        assert again.read(i).getpixel((0, 0)) == (int(sample),) * 3


def test_golden() -> None:
    # blake2b of "0/000000" ... decides; a change here changes the splits that users have made.
    assert split_source(source((6,)), {"test": 0.4})["test"].ids == ("000003", "000005")


def test_the_seed_decides() -> None:
    first, again, other = (split_source(source(), {"test": 0.3}, s)["test"].ids for s in (0, 0, 1))
    assert first == again != other


@given(st.integers(0, 2**32), st.permutations(range(sum(COUNTS))))
def test_the_order_of_the_files_does_not(seed: int, order: list[int]) -> None:
    whole = source()
    shuffled = SubsetSource(whole, order, "shuffled")
    parts = [split_source(s, {"val": 0.2, "test": 0.3}, seed) for s in (whole, shuffled)]
    for name in ("train", "val", "test"):
        assert set(parts[0][name].ids) == set(parts[1][name].ids)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"test": 1.0}, "leave something to train on, not test 1"),
        ({"val": 0.5, "test": 0.5}, "not val 0.5, test 0.5"),
        ({"test": 0.0}, "above 0"),
        ({}, "above 0"),
    ],
)
def test_shares_are_fractions(shares: dict[str, float], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        split_source(source(), shares)


def test_a_class_too_small_is_named() -> None:
    with pytest.raises(DatasetError, match="Class 'c1' has 2 samples, too few for one in each of "):
        split_source(source((9, 2)), {"val": 0.1, "test": 0.2})


def test_a_small_class_keeps_something_to_train_on() -> None:
    parts = split_source(source((9, 3)), {"val": 0.4, "test": 0.5})
    assert [np.bincount(parts[name].labels)[1] for name in ("train", "val", "test")] == [1, 1, 1]


def test_shares_in_the_place_of_sources() -> None:
    given_shares = {"train": source(), "val": "0.1", "test": 0.2}
    parts = open_sources(given_shares, split_seed=3)
    assert list(parts) == ["train", "val", "test"]
    expected = split_source(source(), {"val": 0.1, "test": 0.2}, 3)
    assert {n: p.ids for n, p in parts.items()} == {n: expected[n].ids for n in parts}


def test_a_share_beside_a_source() -> None:
    parts = open_sources({"train": source(), "val": 0.1, "test": source()})
    assert len(parts["test"]) == sum(COUNTS)
    assert len(parts["train"]) + len(parts["val"]) == sum(COUNTS)


def test_balanced_rows_take_turns() -> None:
    labels = source().labels
    rows = balanced_rows(labels, 60, seed=0)
    assert np.bincount(labels[rows]).tolist() == [20, 20, 20]
    # Class 1 has 9 samples, drawn 20 times: each twice and two of them thrice.
    assert sorted(np.bincount(rows)[40:49].tolist()) == [2] * 7 + [3] * 2
    assert np.array_equal(rows, balanced_rows(labels, 60, seed=0))
