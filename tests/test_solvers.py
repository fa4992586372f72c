"""The SGD solver against torch's own optimiser, and what its result may depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pipeline.config import FitConfig, build_config
from pipeline.errors import FitError
from pipeline.losses import LOSSES
from pipeline.solvers import LinearFit, TrainingRows, fit_sgd

CONFIG = FitConfig(epochs=4, batch_size=16, weight_decay=1e-2)
STANDING = 1e-30
"""A learning rate whose steps change no float64 of the initial head."""


def long_tailed_rows(
    n_views: int = 0, width: int = 5, dtype: torch.dtype = torch.float32
) -> TrainingRows:
    """Three classes of 40, 10 and 3 rows around different points."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.tensor([0] * 40 + [1] * 10 + [2] * 3)
    centres = torch.randn(3, width, generator=generator, dtype=dtype)
    noise = torch.randn(1 + n_views, 53, width, generator=generator, dtype=dtype)
    return TrainingRows(centres[labels] + noise / 2, labels, labels.bincount())


def same(one: LinearFit, other: LinearFit) -> bool:
    """Equal to the bit."""
    return torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def fitted_by_torch(rows: TrainingRows, config: FitConfig) -> torch.nn.Linear:
    """The same full-batch fit with torch's modules, optimiser and schedule."""
    start = fit_sgd(rows, replace(config, lr=STANDING))
    linear = torch.nn.Linear(start.weight.shape[1], len(start.weight), dtype=start.weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(start.weight)
        linear.bias.copy_(start.bias)
    optimizer = torch.optim.SGD(
        linear.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    for _ in range(config.epochs):
        optimizer.zero_grad()
        logits = linear(rows.features[0])
        loss = LOSSES[config.loss](logits, rows.labels, rows.class_counts)
        linear.weight.grad, linear.bias.grad = torch.autograd.grad(
            loss, (linear.weight, linear.bias)
        )
        optimizer.step()
        schedule.step()
    return linear


@pytest.mark.parametrize("loss", ["gml", "cross-entropy", "balanced-softmax"])
def test_steps_and_schedule_are_those_of_torch(loss: str) -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    # One batch of all rows: the order in which they are drawn does not matter.
    config = build_config(FitConfig, loss=loss, batch_size=53, epochs=7, weight_decay=1e-2)
    fit, expected = fit_sgd(rows, config), fitted_by_torch(rows, config)
    torch.testing.assert_close(fit.weight, expected.weight.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(fit.bias, expected.bias.detach(), rtol=0, atol=1e-12)


def test_the_initial_head_is_uniform_within_one_over_the_root_of_the_width() -> None:
    labels = torch.arange(200)
    rows = TrainingRows(torch.zeros(1, 200, 400, dtype=torch.float64), labels, labels.bincount())
    start = fit_sgd(rows, FitConfig(epochs=1, lr=STANDING, weight_decay=0))
    # nn.Linear's initialisation; D = 400 gives +-0.05, standard deviation 0.05 / sqrt(3), which
    # 80,000 draws show to a quarter of a percent.
    assert start.weight.abs().max() <= 0.05
    assert start.bias.abs().max() <= 0.05
    assert start.weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.02)


def test_it_finds_every_class_that_was_planted() -> None:
    rows = long_tailed_rows()
    fit = fit_sgd(rows, FitConfig(epochs=30, batch_size=16))
    predictions = (rows.features[0] @ fit.weight.T + fit.bias).argmax(1)
    for c in range(3):
        assert (predictions[rows.labels == c] == c).double().mean() >= 0.9
    assert fit.losses[-1] < fit.losses[0]
    assert len(fit.losses) == 30


def test_every_version_of_a_row_is_drawn_equally_often() -> None:
    # Version v of each row is the unit vector of v, and all rows but a blank one are of class 0.
    # The first full-batch step of cross entropy moves weight[0, v] by
    # lr * (rows drawn in version v) / B * (1 - p_v), with p_v the initial probability of class 0.
    labels = torch.tensor([0] * 20_000 + [1])
    features = torch.eye(4, dtype=torch.float64).unsqueeze(1).repeat(1, len(labels), 1)
    features[:, -1] = 0
    rows = TrainingRows(features, labels, labels.bincount())
    config = FitConfig(loss="cross-entropy", epochs=1, batch_size=len(labels), weight_decay=0)
    start = fit_sgd(rows, replace(config, lr=STANDING))
    moved = fit_sgd(rows, config).weight[0] - start.weight[0]
    p = (start.weight + start.bias.unsqueeze(1)).softmax(dim=0)[0]
    shares = moved / (config.lr * (1 - p))
    # Each share is 1/4 with a standard deviation of sqrt(3/16 / 20,000) = 0.003.
    torch.testing.assert_close(
        shares, torch.full((4,), 0.25, dtype=torch.float64), rtol=0, atol=5 * 0.003
    )


def test_views_do_not_change_which_rows_are_drawn() -> None:
    alone = long_tailed_rows()
    copied = replace(alone, features=alone.features.repeat(4, 1, 1))
    assert same(fit_sgd(alone, CONFIG), fit_sgd(copied, CONFIG))
    assert not same(fit_sgd(alone, CONFIG), fit_sgd(long_tailed_rows(n_views=3), CONFIG))


@pytest.mark.parametrize("sampler", ["instance", "class-balanced", "class-aware"])
def test_a_seed_decides_the_head_to_the_bit(sampler: str) -> None:
    rows, config = long_tailed_rows(n_views=2), build_config(FitConfig, sampler=sampler, epochs=4)
    first = fit_sgd(rows, config)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = fit_sgd(rows, config)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, again)
    assert first.losses == again.losses
    assert not same(first, fit_sgd(rows, replace(config, seed=1)))


def test_the_number_of_threads_does_not_change_a_small_head() -> None:
    # As wide as a CIFAR ResNet's features and with as many classes.
    labels = torch.arange(3000) % 100
    features = torch.randn(1, 3000, 64, generator=torch.Generator().manual_seed(0))
    rows = TrainingRows(features, labels, labels.bincount())
    threads = torch.get_num_threads()
    fits = []
    try:
        for n_threads in (1, 2, 4):
            torch.set_num_threads(n_threads)
            fits.append(fit_sgd(rows, FitConfig(epochs=2)))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(threads)
    assert same(fits[0], fits[1])
    assert same(fits[0], fits[2])


def test_the_callers_gradient_mode_does_not_matter() -> None:
    rows = long_tailed_rows()
    with torch.no_grad():
        quiet = fit_sgd(rows, CONFIG)
    assert same(quiet, fit_sgd(rows, CONFIG))
    assert not quiet.weight.requires_grad


def test_samples_per_class_reaches_the_class_aware_sampler() -> None:
    rows, config = long_tailed_rows(), replace(CONFIG, sampler="class-aware", batch_size=12)
    assert not same(
        fit_sgd(rows, replace(config, samples_per_class=2)),
        fit_sgd(rows, replace(config, samples_per_class=4)),
    )


def test_epochs_are_reported() -> None:
    seen: list[int] = []
    fit_sgd(long_tailed_rows(), CONFIG, seen.append)
    assert seen == [1, 2, 3, 4]


def test_a_fit_that_diverges_says_so() -> None:
    rows = long_tailed_rows()
    with pytest.raises(FitError, match=r"diverged in epoch 1.*lr below 0\.1"):
        fit_sgd(replace(rows, features=1e30 * rows.features), CONFIG)
