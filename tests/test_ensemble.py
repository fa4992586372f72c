from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.ensemble import (
    ensemble_probabilities,
    mixture_predictions,
    mixture_probabilities,
    softmax,
)
from pipeline.errors import EvaluationError

logit_rows = st.integers(1, 6).flatmap(
    lambda c: arrays(np.float64, (3, c), elements=st.floats(-50, 50, width=32))
)
temperatures = st.floats(0.05, 50)


def test_softmax_golden() -> None:
    # logits 0 and log 3 at t = 1: 1/4 and 3/4; at t = 1/2 the ratio is squared: 1/10 and 9/10.
    logits = np.array([[0.0, np.log(3)]])
    assert softmax(logits)[0] == pytest.approx([0.25, 0.75])
    assert softmax(logits, 0.5)[0] == pytest.approx([0.1, 0.9])


def test_ensemble_golden() -> None:
    # old at t = 1: (1/4, 3/4); new at t = 2, logits 2 log 4 and 0: (4/5, 1/5).
    # Eq. (11): ((1/4 + 4/5) / 2, (3/4 + 1/5) / 2) = (0.525, 0.475): the new head prevails.
    old, new = np.array([[0.0, np.log(3)]]), np.array([[2 * np.log(4), 0.0]])
    assert ensemble_probabilities(old, new, 1, 2)[0] == pytest.approx([0.525, 0.475])
    assert mixture_predictions((old, new), (1, 2)).tolist() == [0]
    # t_new = 4 takes the new head to (2/3, 1/3): (0.458, 0.542), and the old head prevails.
    assert mixture_predictions((old, new), (1, 4)).tolist() == [1]


@pytest.mark.parametrize("weights", [(0, 0), (1, 0), (1, -1), (1, math.inf), (1,), (math.nan, 1)])
def test_weights_that_mix_nothing_are_refused(weights: tuple[float, ...]) -> None:
    logits = [np.zeros((1, 2))] * 2
    with pytest.raises(EvaluationError, match=r"of 2 heads, .* needs 2 weights, each above 0"):
        mixture_probabilities(logits, (1, 1), weights)


def test_softmax_is_float64_whatever_comes() -> None:
    assert softmax(np.zeros((2, 3), np.float32)).dtype == np.float64


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1.0, 1e300])
def test_extreme_temperatures_and_logits_stay_probabilities(temperature: float) -> None:
    logits = np.array([[1e300, -1e300, 0.0], [-np.inf, 5.0, 4.0], [7.0, 7.0, 7.0]])
    probabilities = softmax(logits, temperature)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert probabilities[1, 0] == 0


def test_ties_go_to_the_lower_class() -> None:
    tied = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    assert mixture_predictions((tied, tied), (1, 1)).tolist() == [1, 0]
    # Mirrored heads tie exactly: p = (a + b) / 2 on both sides.
    mirrored = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    assert mixture_predictions(mirrored, (1, 1)).tolist() == [0]


@given(logit_rows, temperatures, temperatures)
def test_swapping_heads_with_their_temperatures_changes_nothing(
    logits: np.ndarray, t_old: float, t_new: float
) -> None:
    other = logits[:, ::-1]
    one = ensemble_probabilities(logits, other, t_old, t_new)
    assert np.array_equal(one, ensemble_probabilities(other, logits, t_new, t_old))


@given(logit_rows, temperatures)
def test_a_temperature_keeps_the_order_within_one_head(logits: np.ndarray, t: float) -> None:
    probabilities = softmax(logits, t)
    order = np.argsort(logits, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(probabilities, order, axis=1), axis=1) >= 0).all()


@given(logit_rows, temperatures, st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(logits: np.ndarray, t: float, shift: float) -> None:
    assert softmax(logits + shift, t) == pytest.approx(softmax(logits, t), abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_the_memory_order_of_the_logits_changes_no_bit(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(7, 300))
    one = softmax(logits, 0.7)
    assert np.array_equal(one, softmax(np.asfortranarray(logits), 0.7))
    assert np.array_equal(one, softmax(np.repeat(logits, 2, axis=1)[:, ::2], 0.7))


@given(logit_rows, st.lists(temperatures, min_size=3, max_size=3))
def test_a_temperature_of_each_row_is_bitwise_that_of_all(
    logits: np.ndarray, each: list[float]
) -> None:
    together = softmax(logits, np.array(each))
    for row, t in enumerate(each):
        assert np.array_equal(together[row], softmax(logits, t)[row])


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_must_be_above_zero(temperature: float) -> None:
    with pytest.raises(EvaluationError, match="number above 0"):
        softmax(np.zeros((1, 2)), temperature)


def test_heads_of_different_sizes_are_refused() -> None:
    with pytest.raises(EvaluationError, match="logits of one shape"):
        ensemble_probabilities(np.zeros((2, 3)), np.zeros((2, 4)))
