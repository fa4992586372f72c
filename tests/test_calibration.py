from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from pipeline.calibration import (
    HIGHEST,
    LOWEST,
    ReliabilitySums,
    fit_temperatures,
    measure_calibration,
)
from pipeline.ensemble import LogitBlock, softmax
from pipeline.errors import EvaluationError

Blocks = Callable[[], Iterable[LogitBlock]]


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 5), and labels drawn from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(n, 5))
    chances = softmax(logits, temperature).cumsum(axis=1)
    return logits, (rng.random((n, 1)) < chances).argmax(axis=1)


def blocks_of(labels: np.ndarray, *logits: np.ndarray, rows: int = 300) -> Blocks:
    return lambda: (
        LogitBlock(labels[k : k + rows], tuple(v[k : k + rows] for v in logits))
        for k in range(0, len(labels), rows)
    )


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    chances = softmax(logits, temperature)[np.arange(len(labels)), labels]
    return float(-np.log(chances).mean())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    logits, labels = drawn(20_000, temperature)
    ((found,),) = fit_temperatures(blocks_of(labels, logits), 1)
    assert found == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_has_a_better_likelihood() -> None:
    logits, labels = drawn(500, 2.0)
    ((found,),) = fit_temperatures(blocks_of(labels, logits), 1)
    best = nll(logits, labels, found)
    assert best <= min(nll(logits, labels, found * factor) for factor in (0.999, 1.001))


def test_each_head_has_its_own_temperature_and_scaling_moves_it_along() -> None:
    logits, labels = drawn(1000, 2.0)
    ((one, other),) = fit_temperatures(blocks_of(labels, logits, 4 * logits), 2)
    assert other == pytest.approx(4 * one, rel=1e-5)


def test_logits_that_say_too_little_or_nothing_end_at_the_bounds() -> None:
    logits, labels = drawn(200, 1.0)
    sure = 1e-5 * np.eye(5)[labels]
    ((cold,),) = fit_temperatures(blocks_of(labels, sure), 1)
    ((hot,),) = fit_temperatures(blocks_of(labels, -logits * 1e4), 1)
    assert (cold, hot) == (LOWEST, HIGHEST)


@pytest.mark.parametrize("temperature", [LOWEST, HIGHEST])
@pytest.mark.parametrize("beyond", [0.5, 1.0, 2.0])
def test_a_bound_is_taken_where_the_likelihood_leads_beyond_it(
    temperature: float, beyond: float
) -> None:
    logits, labels = drawn(500, 1.0)
    ((inside,),) = fit_temperatures(blocks_of(labels, logits), 1)
    # The scale of the logits moves the best temperature to the bound times `beyond`.
    ((found,),) = fit_temperatures(blocks_of(labels, logits * temperature / inside * beyond), 1)
    expected = min(max(temperature * beyond, LOWEST), HIGHEST)
    if beyond == 1.0:
        assert found == pytest.approx(expected, rel=1e-5)
    elif expected == temperature:
        assert found == expected
    else:
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_fold_is_fitted_on_the_other_folds_rows() -> None:
    logits, labels = drawn(900, 2.0)
    folds = np.arange(900) % 3
    found = fit_temperatures(blocks_of(labels, logits, rows=250), 1, folds, 3)
    for fold in range(3):
        others = folds != fold
        ((own,),) = fit_temperatures(blocks_of(labels[others], logits[others]), 1)
        assert found[fold, 0] == pytest.approx(own, rel=1e-6)


def test_a_label_that_cannot_be_predicted_has_no_say() -> None:
    logits, labels = drawn(400, 1.0)
    ((without,),) = fit_temperatures(blocks_of(labels, logits), 1)
    masked = np.vstack([logits, [[0, -np.inf, 0, 0, 0]]])
    ((found,),) = fit_temperatures(blocks_of(np.append(labels, 1), masked), 1)
    # It adds a row of equal logits, which no temperature changes.
    assert found == pytest.approx(without, rel=1e-6)


def test_a_fold_with_nothing_to_fit_on_is_refused() -> None:
    logits, labels = drawn(3, 1.0)
    with pytest.raises(EvaluationError, match="no rows to fit"):
        fit_temperatures(blocks_of(labels, logits), 1, np.zeros(3, np.int64), 2)


def test_reliability_golden() -> None:
    # Confidences 0.9, 0.9 and 0.6; the first two lie in bin 13 of 15 (0.867 to 0.933), the last in
    # bin 9 (0.6 to 0.667). One of two is right there, and the last: the gaps are
    # |1 - 1.8| + |1 - 0.6| = 1.2 over three rows, 40 %.
    sums = ReliabilitySums()
    sums.add(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]))
    sums.add(np.array([[0.4, 0.6]]), np.array([1]))
    one = sums.result(1.0)
    assert one.ece == pytest.approx(40.0)
    assert one.nll == pytest.approx(-(np.log(0.9) + np.log(0.1) + np.log(0.6)) / 3)
    assert (one.counts[13], one.accuracy[13]) == (2, 50.0)
    assert one.confidence[13] == pytest.approx(90.0)
    assert (one.counts[0], one.accuracy[0]) == (0, None)


def test_a_certain_error_has_an_infinite_likelihood_and_plain_json() -> None:
    sums = ReliabilitySums()
    sums.add(np.array([[1.0, 0.0]]), np.array([1]))
    one = sums.result((1.0, 2.0))
    assert one.nll == np.inf
    assert one.to_json()["nll"] is None
    assert one.counts[-1] == 1


def test_scaling_mends_an_over_confident_head() -> None:
    logits, labels = drawn(4000, 3.0)
    blocks = blocks_of(labels, logits, logits)
    ((old, new),) = fit_temperatures(blocks, 2)
    found = measure_calibration(
        blocks, ["old", "new"], [old, new], split="test", fitted_on="val"
    )  # fmt: skip
    assert found.before["old"].ece > 10
    assert found.after["old"].ece < 3
    assert found.after["old"].nll < found.before["old"].nll
    # Two equal heads are an ensemble that equals either.
    assert found.after["ensemble"].ece == pytest.approx(found.after["old"].ece, abs=1e-3)
    assert list(found.to_json()["before"]) == ["old", "new", "ensemble"]
