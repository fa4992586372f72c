"""The full-batch solver against scikit-learn, and its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from pipeline.config import FitConfig, build_config
from pipeline.errors import FitError
from pipeline.fitting import fit_head_on_rows, full_batch
from pipeline.fitting.full_batch import (
    COPIES,
    ITERATIONS_PER_EPOCH,
    TOLERANCE,
    full_batch_bytes,
)
from pipeline.losses import GRADIENTS, LOSSES
from tests.fitting.made_rows import fitted, long_tailed_rows
from tests.processes import python

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


@pytest.mark.parametrize("loss", ["gml", "gml+distillation"])
@pytest.mark.parametrize(
    "settings", [{}, {"standardize": True}, {"normalize": True}, {"head": "cosine"}]
)
@pytest.mark.parametrize("block", [1, 7 * 5, 60 * 5])
def test_how_the_rows_are_cut_does_not_matter(
    block: int, settings: dict[str, object], loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = long_tailed_rows(2, dtype=torch.float64, teacher=True)
    config = build_config(FitConfig, settings, solver="l-bfgs", epochs=50, loss=loss)
    whole = fitted(rows, config)
    monkeypatch.setattr(full_batch, "BLOCK_VALUES", block)
    cut = fitted(rows, config)
    # Both are where no gradient is above the tolerance; sums of other parts differ in last bits.
    torch.testing.assert_close(cut.weight, whole.weight, rtol=0, atol=1e-4)
    torch.testing.assert_close(cut.losses[:3], whole.losses[:3], rtol=1e-12, atol=0)


def test_every_row_and_version_takes_part() -> None:
    # The objective at the initial head, block by block, against the loss on all rows at once.
    rows = long_tailed_rows(2, dtype=torch.float64, width=5)
    objective = full_batch._Objective(rows, CONFIG)
    start = objective.start()
    head = torch.from_numpy(start)
    weight, bias = head[:15].view(3, 5).requires_grad_(), head[15:].requires_grad_()
    logits = rows.features.flatten(0, 1) @ weight.T + bias
    loss = LOSSES["gml"](logits, rows.labels.repeat(3), rows.class_counts)
    loss = loss + CONFIG.weight_decay / 2 * ((weight**2).sum() + (bias**2).sum())
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [weight, bias])])
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_batch, "BLOCK_VALUES", 10 * 5)
        value, gradient = objective(start)
    assert value == pytest.approx(float(loss.detach()), rel=1e-12)
    torch.testing.assert_close(torch.from_numpy(gradient), wanted, rtol=1e-10, atol=1e-12)


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
        lambda s: seen.append((s.done, s.total)),
    )  # fmt: skip
    assert fit.convergence is not None
    assert not fit.convergence.converged
    assert fit.convergence.iterations == ITERATIONS_PER_EPOCH
    assert fit.convergence.gradient > TOLERANCE
    assert "LIMIT" in fit.convergence.reason.upper()
    assert seen == [(1, 1)]


def test_by_default_it_goes_on_until_it_converges() -> None:
    # Features of scales from 0.1 to 10, as deep networks give them, take about 200 iterations.
    rows = long_tailed_rows(width=20, dtype=torch.float64, spread=2.0)
    scales = torch.logspace(-1, 1, 20, dtype=torch.float64)
    rows = replace(rows, features=rows.features * scales)
    whole = fitted(rows, FitConfig(solver="l-bfgs")).convergence
    assert whole is not None
    assert whole.converged
    assert whole.iterations > 100
    bounded = fitted(rows, FitConfig(solver="l-bfgs", epochs=10)).convergence
    assert bounded is not None
    assert (bounded.converged, bounded.iterations) == (False, 100)


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


MEASURED = """
from pathlib import Path
import torch
from benchmarks.memory import peak_bytes
from pipeline.fitting.draws import own_settings
from pipeline.losses import GRADIENTS

labels = torch.arange(20_480).unsqueeze(0) % 256
counts = labels[0].bincount()
for first_time in (True, False):
    for name, gradient in GRADIENTS.items():
        logits, more = torch.ones(1, 20_480, 1, 256, dtype=torch.float64), {}
        if "teacher_logits" in own_settings(gradient):
            more["teacher_logits"] = torch.ones(1, 20_480, 256, dtype=torch.float64)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = peak_bytes()
        gradient(logits, labels, counts, **more)
        if not first_time:
            held = 8 * logits.numel() * (1 + len(more)) + peak_bytes() - before
            print(name, held / (8 * logits.numel()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_a_loss_holds_the_logits_as_often_as_is_said() -> None:
    measured = dict(line.split() for line in python("-c", MEASURED).splitlines())
    assert set(measured) == set(GRADIENTS)
    for name, held in measured.items():
        # Values of a row, of which there are up to 16, are 1/16 of the logits' 256.
        assert -0.5 < float(held) - COPIES.get(name, 1) < 0.2, name


def test_memory_is_counted_in_bytes() -> None:
    # 1000 rows: the logits of 50 classes and 16 values; 30 heads of 50 * (7 + 1); 4 blocks.
    values = 1000 * (50 + 16) + 30 * 50 * 8 + 4 * 2**18
    assert full_batch_bytes(CONFIG, 1000, 50, 7) == 8 * values
    more = full_batch_bytes(build_config(FitConfig, loss="lade"), 1000, 50, 7)
    assert more == 8 * (values + 2 * 1000 * 50)
