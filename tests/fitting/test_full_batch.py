"""The full-batch solver against scikit-learn, and its report."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from pipeline.config import FitConfig, build_config
from pipeline.errors import FitError
from pipeline.fitting import fit_head_on_rows
from pipeline.fitting.full_batch import ITERATIONS_PER_EPOCH, TOLERANCE
from pipeline.losses import LOSSES
from tests.fitting.made_rows import fitted, long_tailed_rows

CONFIG = FitConfig(solver="l-bfgs", epochs=50, weight_decay=1e-2)


@pytest.mark.parametrize("n_views", [0, 2])
def test_cross_entropy_is_scikit_learns_logistic_regression(n_views: int) -> None:
    # Ours: mean loss + decay / 2 * (|W|^2 + |b|^2). scikit-learn's: C * sum of losses + |W|^2 / 2
    # with a free intercept; with a column of ones for the bias it penalises the same, and
    # C = 1 / (decay * rows) makes the two proportional.
    rows = long_tailed_rows(n_views=n_views, dtype=torch.float64)
    fit = fitted(rows, replace(CONFIG, loss="cross-entropy"))
    features = rows.features.flatten(0, 1)
    ones = torch.ones(len(features), 1, dtype=torch.float64)
    known = LogisticRegression(
        C=1 / (CONFIG.weight_decay * len(features)), fit_intercept=False, tol=1e-8, max_iter=1000
    ).fit(torch.cat([features, ones], dim=1), rows.labels.repeat(1 + n_views))
    found = torch.cat([fit.weight, fit.bias.unsqueeze(1)], dim=1)
    torch.testing.assert_close(found, torch.from_numpy(known.coef_), rtol=0, atol=1e-4)
    assert fit.convergence is not None
    assert fit.convergence.converged


@pytest.mark.parametrize("loss", ["gml", "balanced-softmax", "gml+distillation"])
@pytest.mark.parametrize("head", ["linear", "cosine", "learnable-scaling"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_it_ends_the_gradient_is_zero(loss: str, head: str, dtype: torch.dtype) -> None:
    rows = long_tailed_rows(dtype=dtype, teacher=True)
    config = build_config(FitConfig, solver="l-bfgs", loss=loss, head=head, epochs=100)
    fit = fitted(rows, config)
    assert fit.weight.dtype == dtype
    assert fit.convergence is not None
    assert fit.convergence.converged
    assert fit.convergence.gradient <= TOLERANCE
    assert fit.convergence.iterations == len(fit.losses)
    assert fit.losses[-1] <= fit.losses[0]


def test_no_step_from_its_gml_head_lowers_the_objective() -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    fit = fitted(rows, replace(CONFIG, normalize=True))
    features = functional.normalize(rows.features[0], dim=1) * 5**0.5
    start = torch.cat([fit.weight / 5**0.5, fit.bias.unsqueeze(1)], dim=1)

    def objective(head: torch.Tensor) -> float:
        logits = features @ head[:, :5].T + head[:, 5]
        loss = LOSSES["gml"](logits, rows.labels, rows.class_counts)
        return float(loss + CONFIG.weight_decay / 2 * (head**2).sum())

    lowest = objective(start)
    assert fit.losses[-1] == pytest.approx(lowest, abs=1e-10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        step = torch.randn(3, 6, generator=generator, dtype=torch.float64)
        assert objective(start + 1e-3 * step) > lowest


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    order = torch.randperm(53, generator=torch.Generator().manual_seed(0))
    shuffled = replace(rows, features=rows.features[:, order], labels=rows.labels[order])
    one, other = fitted(rows, CONFIG), fitted(shuffled, CONFIG)
    torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=1e-5)


def test_an_end_before_convergence_is_told() -> None:
    seen: list[tuple[int, int]] = []
    fit = fit_head_on_rows(
        long_tailed_rows(), replace(CONFIG, epochs=1, weight_decay=1e-4),
        lambda *of: seen.append(of),
    )  # fmt: skip
    assert fit.convergence is not None
    assert not fit.convergence.converged
    assert fit.convergence.iterations == ITERATIONS_PER_EPOCH
    assert fit.convergence.gradient > TOLERANCE
    assert "LIMIT" in fit.convergence.reason.upper()
    assert seen == [(1, 1)]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"feature_dropout": 0.1}, "--feature-dropout"),
        ({"feature_noise": 0.1}, "--feature-noise"),
        ({"average_last": 0.5}, "--average-last"),
    ],
)
def test_what_needs_mini_batches_is_refused(settings: dict[str, float], named: str) -> None:
    with pytest.raises(FitError, match=f"without {named}.*--solver sgd"):
        fitted(long_tailed_rows(), build_config(FitConfig, settings, solver="l-bfgs"))


def test_mini_batches_come_near_it() -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    best = fitted(rows, CONFIG)
    near = fitted(rows, replace(CONFIG, solver="sgd", batch_size=53, epochs=1500))
    # A cosine schedule of 1500 steps at lr 0.1 ends within a thousandth.
    torch.testing.assert_close(near.weight, best.weight, rtol=0, atol=1e-3)
    torch.testing.assert_close(near.bias, best.bias, rtol=0, atol=1e-3)
