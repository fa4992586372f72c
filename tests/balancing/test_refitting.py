"""A head averaged with a ridge regression on its own probabilities, and the same written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from pipeline.balancing.refitting import RIDGE, refit
from pipeline.errors import EvaluationError

N, C, D = 60, 4, 6
SHARES = np.array([0.1, 0.2, 0.3, 0.4])


def drawn(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (N, D) of different means and spreads, and logits (N, C) that follow from them."""
    rng = np.random.default_rng(seed)
    features = rng.normal(rng.normal(0, 3, D), rng.uniform(0.1, 5, D), (N, D))
    logits = features @ rng.normal(0, 0.3, (D, C)) + rng.normal(0, 1, (N, C))
    return features.astype(np.float32), logits.astype(np.float32)


def centred(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(values - values.mean(axis=1, keepdims=True), np.float64)


@given(st.integers(0, 1000), st.floats(0.05, 1.0))
def test_it_is_ridge_regression_on_the_pseudo_labels(seed: int, share: float) -> None:
    features, logits = drawn(seed)
    found = refit(features, logits, SHARES, share)
    # scikit-learn's decay is of sums over the images, ours of means.
    pseudo_labels = softmax(logits + np.log(SHARES), axis=1) / (C * SHARES)
    standardised = StandardScaler().fit_transform(features.astype(np.float64))
    fitted = Ridge(alpha=RIDGE * N).fit(standardised, pseudo_labels).predict(standardised)
    fitted = centred(fitted - fitted.mean(axis=0))
    own = centred(logits)
    fitted *= np.sqrt((own**2).sum() / (fitted**2).sum())
    mean = (1 - share) * own + share * fitted
    assert centred(found.logits(features, logits)) == pytest.approx(mean, abs=1e-3)


def test_blocks_and_copies_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, logits = drawn()
    whole = refit(features, logits, SHARES, 0.5)
    monkeypatch.setattr("pipeline.balancing.refitting.BLOCK_BYTES", 8 * (C + D) * 7)
    twice = refit(np.tile(features, (2, 1)), np.tile(logits, (2, 1)), SHARES, 0.5)
    assert twice.weight == pytest.approx(whole.weight, abs=1e-9)
    assert twice.bias == pytest.approx(whole.bias, abs=1e-9)


def test_a_share_of_nothing_is_the_head_itself() -> None:
    features, logits = drawn()
    assert np.array_equal(refit(features, logits, SHARES, 0.0).logits(features, logits), logits)


def test_features_that_do_not_vary_weigh_nothing() -> None:
    features, logits = drawn()
    plain = refit(features, logits, SHARES, 0.5)
    more = np.c_[features, np.full(N, 7, np.float32)]
    found = refit(more, logits, SHARES, 0.5)
    assert found.weight[:, :D] == pytest.approx(plain.weight)
    assert found.weight[:, D] == pytest.approx(0, abs=1e-12)
    with pytest.raises(EvaluationError, match="No feature varies over these images"):
        refit(more[:, D:], logits, SHARES, 0.5)


def test_logits_that_are_all_alike_give_no_weights() -> None:
    features, _ = drawn()
    found = refit(features, np.zeros((N, C), np.float32), np.full(C, 1 / C), 0.5)
    assert found.weight == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range(share: float) -> None:
    features, logits = drawn()
    with pytest.raises(EvaluationError, match="share of the refitted weights is from 0 to 1"):
        refit(features, logits, SHARES, share)
    with pytest.raises(EvaluationError, match="of the same images are needed"):
        refit(features[1:], logits, SHARES, 0.5)
