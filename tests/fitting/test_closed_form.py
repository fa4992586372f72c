"""Heads that nothing is learned for, against scikit-learn and the paper's formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from sklearn.neighbors import NearestCentroid

from pipeline.config import FitConfig
from pipeline.errors import FitError
from pipeline.fitting import LinearMap
from tests.fitting.made_rows import fitted, long_tailed_rows, predictions


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_nearest_mean_is_that_of_scikit_learn(views: bool, normalize: bool) -> None:
    rows = long_tailed_rows(n_views=2, dtype=torch.float64, spread=1.0)
    fit = fitted(rows, FitConfig(head="nearest-mean", views=views, normalize=normalize))
    features = rows.features if views else rows.features[:1]
    if normalize:
        features = torch.nn.functional.normalize(features, dim=-1)
    known = NearestCentroid().fit(features.flatten(0, 1), rows.labels.repeat(len(features)))
    means = torch.from_numpy(known.centroids_)
    if normalize:  # the nearest direction: means of unit vectors are shorter than 1
        known.centroids_ = torch.nn.functional.normalize(means, dim=1).numpy()
        means = torch.from_numpy(known.centroids_)
    torch.testing.assert_close(fit.weight, means, rtol=0, atol=1e-12)
    assert fit.normalized is normalize
    found = predictions(rows, fit)
    assert found.tolist() == known.predict(features[0]).tolist()
    assert found.unique().numel() == 3


def test_the_nearest_means_logits_differ_from_distances_by_what_classes_share() -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    fit = fitted(rows, FitConfig(head="nearest-mean"))
    logits = LinearMap(fit.weight, fit.bias).logits(rows.features[0])
    squares = torch.cdist(rows.features[0], fit.weight) ** 2
    rest = logits + squares / 2
    torch.testing.assert_close(rest, rest[:, :1].expand(-1, 3), rtol=0, atol=1e-10)


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("normalized", [False, True])
def test_tau_normalisation_divides_by_a_power_of_the_norms(power: float, normalized: bool) -> None:
    rows = long_tailed_rows(dtype=torch.float64, teacher=True)
    assert rows.teacher is not None
    rows = replace(rows, teacher=replace(rows.teacher, normalized=normalized))
    fit = fitted(rows, FitConfig(head="tau-normalised", norm_power=power))
    assert rows.teacher is not None
    old = rows.teacher.weight
    # Kang et al. 2020, eq. (3): w_i / |w_i|^tau, without a bias.
    expected = torch.stack([w / (w @ w) ** (power / 2) for w in old])
    torch.testing.assert_close(fit.weight, expected, rtol=0, atol=1e-12)
    assert (fit.bias == 0).all()
    assert fit.normalized is normalized
    assert fit.losses == ()


def test_a_class_without_weight_stays_without() -> None:
    rows = long_tailed_rows(teacher=True)
    assert rows.teacher is not None
    rows.teacher.weight[1] = 0
    fit = fitted(rows, FitConfig(head="tau-normalised"))
    assert fit.finite
    assert (fit.weight[1] == 0).all()


@pytest.mark.parametrize("head", ["tau-normalised", "logit-adjusted"])
def test_what_changes_an_old_head_needs_one(head: Literal["tau-normalised"]) -> None:
    with pytest.raises(FitError, match="the store has none"):
        fitted(long_tailed_rows(), FitConfig(head=head))


@pytest.mark.parametrize("normalized", [False, True])
def test_an_adjusted_head_has_the_probabilities_under_equal_classes(normalized: bool) -> None:
    # Bayes: p(c | x) under equal priors is p(c | x) / p(c), divided by its sum over classes.
    rows = long_tailed_rows(dtype=torch.float64, teacher=True)
    assert rows.teacher is not None
    old = replace(rows.teacher, normalized=normalized)
    rows = replace(rows, teacher=old)
    fit = fitted(rows, FitConfig(head="logit-adjusted"))
    adjusted = LinearMap(fit.weight, fit.bias, fit.normalized).logits(rows.features[0]).softmax(1)
    weighted = old.logits(rows.features[0]).softmax(1) / (rows.class_counts / len(rows.labels))
    expected = weighted / weighted.sum(1, keepdim=True)
    torch.testing.assert_close(adjusted, expected, rtol=0, atol=1e-12)
    assert fit.losses == ()


def test_an_adjusted_head_of_strength_nothing_is_the_old_one() -> None:
    rows = long_tailed_rows(teacher=True)
    assert rows.teacher is not None
    fit = fitted(rows, FitConfig(head="logit-adjusted", tau=0.0))
    assert torch.equal(fit.weight, rows.teacher.weight)
    assert torch.equal(fit.bias, rows.teacher.bias)
