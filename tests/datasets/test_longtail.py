"""Long-tailed class sizes, subsets, and the digits made of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets import digits_longtail, exponential_counts, subsample
from pipeline.errors import DatasetError


# The published totals of CIFAR-100-LT (500 images a class) by imbalance.
@pytest.mark.parametrize(
    ("imbalance", "total"), [(10, 19_573), (50, 12_608), (100, 10_847), (200, 9_502)]
)
def test_the_published_sizes_of_cifar100_lt(imbalance: int, total: int) -> None:
    counts = exponential_counts(500, imbalance, 100)
    assert sum(counts) == total
    # The first class keeps all, the last int(500 / imbalance).
    assert (counts[0], counts[-1]) == (500, 500 // imbalance)


@given(st.integers(1, 1000), st.floats(1, 1000), st.integers(1, 50))
def test_sizes_never_rise_and_span_the_imbalance(n_max: int, imbalance: float, n: int) -> None:
    if n_max / imbalance < 1 and n > 1:
        with pytest.raises(DatasetError):
            exponential_counts(n_max, imbalance, n)
        return
    counts = exponential_counts(n_max, imbalance, n)
    assert counts[0] == n_max
    assert all(a >= b for a, b in pairwise(counts))
    assert len(counts) == n


def test_refuses_an_imbalance_that_empties_a_class() -> None:
    with pytest.raises(DatasetError, match="leaves a class empty"):
        exponential_counts(10, 100, 5)
    with pytest.raises(DatasetError, match="imbalance must lie between"):
        exponential_counts(10, 0.5, 5)


def test_a_subset_has_the_sizes_asked_for_and_is_seeded() -> None:
    labels = np.repeat(np.arange(3), 20)
    rows = subsample(labels, (10, 5, 1), seed=3)
    assert np.bincount(labels[rows]).tolist() == [10, 5, 1]
    assert np.all(np.diff(rows) > 0)
    assert np.array_equal(rows, subsample(labels, (10, 5, 1), seed=3))
    assert not np.array_equal(rows, subsample(labels, (10, 5, 1), seed=4))
    with pytest.raises(DatasetError, match="Class 1 has 20 samples and cannot keep 21"):
        subsample(labels, (1, 21, 1), seed=0)


def test_the_digits() -> None:
    train, test = digits_longtail()["train"], digits_longtail()["test"]
    # int(110 * 50^(-c/9)): 110, 110/1.544 = 71.2, 110/2.385 = 46.1, ...
    assert np.bincount(train.labels).tolist() == [110, 71, 46, 29, 19, 12, 8, 5, 3, 2]
    assert np.bincount(test.labels).tolist() == [60] * 10
    assert not set(train.ids) & set(test.ids)
    assert test.class_names == tuple("0123456789")
    images = {name: s.read(row) for s in (train, test) for row, name in enumerate(s.ids)}
    assert np.asarray(images[test.ids[0]]).shape == (8, 8, 3)
    # The 17 levels k become round(255 k / 16): 0, 16, 32, 48, 64, 80, ..., 255.
    levels = {level for image in images.values() for _, level in image.convert("L").getcolors()}
    assert levels == {round(255 * k / 16) for k in range(17)}
