from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sweeping.selection import (
    best_cell,
    finer_grid,
    noise_region,
    range_in_words,
    stratified_folds,
)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(2, 5), st.integers(0, 99))
def test_folds_share_out_every_class_evenly(labels: list[int], n_folds: int, seed: int) -> None:
    folds = stratified_folds(np.array(labels), n_folds, seed)
    for label in set(labels):
        sizes = np.bincount(folds[np.array(labels) == label], minlength=n_folds)
        assert sizes.max() - sizes.min() <= 1
    assert np.ptp(np.bincount(folds, minlength=n_folds)) <= 1


def test_folds_follow_their_seed() -> None:
    labels = np.arange(200) % 4
    assert np.array_equal(stratified_folds(labels, 5, 1), stratified_folds(labels, 5, 1))
    assert not np.array_equal(stratified_folds(labels, 5, 1), stratified_folds(labels, 5, 2))


def test_a_finer_grid_has_three_temperatures_on_each_side() -> None:
    # Between 1 and 16 in equal steps of their logarithm lie 2, 4 and 8.
    assert finer_grid(np.array([1 / 16, 1.0, 16.0]), 1).tolist() == [
        1 / 16, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0,
    ]  # fmt: skip


def test_on_an_edge_a_finer_grid_goes_on_beyond() -> None:
    grid = finer_grid(np.array([1.0, 2.0]), 1)
    assert grid[-2:].tolist() == [4.0, 8.0]
    assert finer_grid(np.array([1.0, 2.0]), 0)[:2].tolist() == [0.25, 0.5]
    assert finer_grid(np.array([3.0]), 0).tolist() == [3.0]


def test_the_best_cell_is_the_highest_harmonic_mean() -> None:
    planes = np.array([[1.0, 2.0], [3.0, 2.0]]), np.zeros((2, 2))
    assert best_cell(np.array([1.0, 2.0]), np.array([1.0, 2.0]), *planes) == (1, 0)


def test_a_region_hangs_together_and_its_rectangle_holds_the_best_cell() -> None:
    grid = 2.0 ** np.arange(4)
    within = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]], bool)
    region = noise_region(grid, grid, (0, 0), within)
    # Diagonal neighbours do not hang together: five cells of sixteen.
    assert region.mask.sum() == 5
    assert region.share == pytest.approx(100 * 5 / 16)
    assert (region.t_old, region.t_new) == ((1.0, 2.0), (1.0, 2.0))
    assert (region.best, region.to_json()["best"]) == ((1.0, 1.0), [1.0, 1.0])


@given(st.integers(0, 2**32 - 1))
def test_the_rectangle_is_the_largest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    within = rng.random((5, 6)) < 0.7
    best = int(rng.integers(5)), int(rng.integers(6))
    within[best] = True
    old, new = 2.0 ** np.arange(5), 2.0 ** np.arange(6)
    region = noise_region(old, new, best, within)
    areas = [
        (b - a + 1) * (d - c + 1)
        for a in range(best[0] + 1) for b in range(best[0], 5)
        for c in range(best[1] + 1) for d in range(best[1], 6)
        if within[a : b + 1, c : d + 1].all()
    ]  # fmt: skip
    sides = [np.log2(high / low) + 1 for low, high in (region.t_old, region.t_new)]
    assert sides[0] * sides[1] == pytest.approx(max(areas))


def test_a_plane_of_one_cell_is_its_own_region() -> None:
    region = noise_region(np.array([2.0]), np.array([3.0]), (0, 0), np.array([[True]]))
    assert (region.share, region.t_old, region.t_new) == (100.0, (2.0, 2.0), (3.0, 3.0))


@pytest.mark.parametrize(
    ("ends", "words"),
    [((1, 2), "from 1 to 2"), ((9.5137, 9.5137), "= 9.51"), ((2.0001, 2.0004), "= 2")],
)
def test_a_range_in_words(ends: tuple[float, float], words: str) -> None:
    assert range_in_words(ends) == words
