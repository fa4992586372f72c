"""How heads answer together: which temperatures and weights, and which heads have a say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.errors import EvaluationError
from pipeline.mixture import Mixture, given_pair, given_temperatures, head_names

HEADS: Any = ["first", "second"]


def test_a_temperature_that_is_not_given_is_one() -> None:
    assert given_pair(None, None) is None
    assert given_pair(2, None) == (2, 1)
    assert given_pair(None, 0.5) == (1, 0.5)
    assert given_temperatures(None, None, 2) is None
    assert given_temperatures(3, None, 2) == (3, 1, 1)
    assert given_temperatures(None, 2, 2) == (1, 2, 2)
    assert given_temperatures(3, [2], 2) == (3, 2, 2)
    assert given_temperatures(3, [2, 4], 2) == (3, 2, 4)
    with pytest.raises(EvaluationError, match="2 new heads need one temperature or as many, not 3"):
        given_temperatures(None, [1, 2, 3], 2)


def test_heads_of_weight_0_are_left_out_with_their_temperatures() -> None:
    assert Mixture((1, 2, 3)).among(HEADS) == ([None, *HEADS], Mixture((1, 2, 3)))
    heads, own = Mixture((1, 2, 3), (0, 5, 1)).among(HEADS)
    assert (heads, own) == (HEADS, Mixture((2, 3), (5, 1)))
    assert Mixture((1, 2, 3), (4, 0, 0)).among(HEADS)[0] == [None]


@pytest.mark.parametrize("weights", [(0, 0), (1, -1), (1,), (math.nan, 1), (math.inf, 1), ()])
def test_weights_that_mix_nothing_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(EvaluationError, match="needs 2 weights, each 0 or more and at least one"):
        Mixture((1, 1), weights)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_temperature_is_a_number_above_0(temperature: float) -> None:
    with pytest.raises(EvaluationError, match="must be a number above 0"):
        Mixture((1, temperature))


def test_another_number_of_heads_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"3 heads, .* needs as many temperatures, not 2"):
        Mixture((1, 1)).among(HEADS)


def test_heads_are_numbered_where_there_are_several() -> None:
    assert head_names(1) == ["old", "new"]
    assert head_names(2) == ["old", "new 1", "new 2"]
