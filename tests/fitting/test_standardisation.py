"""Standardised features: what the fit sees, and what the head is folded back to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.preprocessing import StandardScaler

from pipeline.config import FitConfig, build_config
from pipeline.errors import ConfigError
from pipeline.fitting import TrainingRows, fit_head_on_rows
from tests.fitting.made_rows import long_tailed_rows

SOLVERS = [
    {"solver": "sgd", "epochs": 6, "batch_size": 16},
    {"solver": "l-bfgs", "epochs": 10, "weight_decay": 1e-2},
]


@pytest.mark.parametrize("settings", SOLVERS)
@pytest.mark.parametrize("n_views", [0, 2])
def test_it_is_the_fit_on_what_scikit_learn_scales(
    settings: dict[str, object], n_views: int
) -> None:
    rows = long_tailed_rows(n_views, dtype=torch.float64)
    scaler = StandardScaler().fit(rows.features[0].numpy())
    scaled = torch.from_numpy(
        scaler.transform(rows.features.flatten(0, 1).numpy()).reshape(rows.features.shape)
    )
    config = build_config(FitConfig, settings, standardize=True)
    fit = fit_head_on_rows(rows, config)
    expected = fit_head_on_rows(replace(rows, features=scaled), replace(config, standardize=False))
    logits = rows.features @ fit.weight.T + fit.bias
    torch.testing.assert_close(
        logits, scaled @ expected.weight.T + expected.bias, rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("settings", SOLVERS)
def test_scale_and_place_of_the_features_do_not_matter(settings: dict[str, object]) -> None:
    rows = long_tailed_rows(1, dtype=torch.float64)
    config = build_config(FitConfig, settings, standardize=True)
    moved = replace(rows, features=rows.features * 300 - 40)
    one, other = fit_head_on_rows(rows, config), fit_head_on_rows(moved, config)
    torch.testing.assert_close(
        rows.features @ one.weight.T + one.bias,
        moved.features @ other.weight.T + other.bias,
        rtol=0,
        atol=1e-6,
    )


def test_a_feature_that_never_changes_has_no_weight() -> None:
    rows = long_tailed_rows()
    features = torch.cat([rows.features, torch.full((1, 53, 1), 0.1)], dim=2)
    with_constant = TrainingRows(features, rows.labels, rows.class_counts)
    fit = fit_head_on_rows(with_constant, FitConfig(standardize=True, epochs=3))
    assert (fit.weight[:, -1] == 0).all()
    assert fit.finite


@pytest.mark.parametrize("other", [{"normalize": True}, {"head": "cosine"}])
def test_heads_that_cannot_fold_it_back_are_refused(other: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="standardize must be off but for a linear head"):
        build_config(FitConfig, {"standardize": True, **other})
