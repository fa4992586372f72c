"""The mini-batch trainer against torch's own optimisers, and what its result may depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config import FitConfig, build_config
from pipeline.errors import FitError
from pipeline.fitting import LinearFit, TrainingRows, fit_head_on_rows
from pipeline.losses import LOSSES
from tests.fitting.made_rows import (
    STANDING,
    assert_close,
    fitted,
    long_tailed_rows,
    predictions,
    same,
)

CONFIG = FitConfig(epochs=4, batch_size=16, weight_decay=1e-2)
FACTORS = {
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "linear": lambda share: 1 - share,
    "constant": lambda _: 1.0,
}


def optimizer_of(config: FitConfig, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """torch's optimiser of the settings."""
    if config.solver == "adamw":
        return torch.optim.AdamW(parameters, lr=config.first_lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters, lr=config.first_lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def fitted_by_torch(rows: TrainingRows, config: FitConfig) -> tuple[Tensor, Tensor]:
    """The same full-batch fit with autograd, torch's optimiser and its learning rates."""
    start = fitted(rows, replace(config, lr=STANDING))
    weight, bias = start.weight.requires_grad_(), start.bias.requires_grad_()
    optimizer = optimizer_of(config, [weight, bias])
    for epoch in range(config.n_epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.first_lr * FACTORS[config.schedule](epoch / config.n_epochs)
        logits = rows.features[0] @ weight.T + bias
        loss = LOSSES[config.loss](logits, rows.labels, rows.class_counts)
        weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))
        optimizer.step()
    return weight.detach(), bias.detach()


@pytest.mark.parametrize("loss", ["gml", "cross-entropy", "balanced-softmax"])
@pytest.mark.parametrize("solver", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_steps_and_schedule_are_those_of_torch(loss: str, solver: str, schedule: str) -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    # One batch of all rows: the order in which they are drawn does not matter.
    settings = {"loss": loss, "solver": solver, "schedule": schedule, "weight_decay": 1e-2}
    config = build_config(FitConfig, settings, batch_size=53, epochs=7, lr=0.05)
    fit = fitted(rows, config)
    weight, bias = fitted_by_torch(rows, config)
    torch.testing.assert_close(fit.weight, weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(fit.bias, bias, rtol=0, atol=1e-12)


def test_the_initial_head_is_uniform_within_one_over_the_root_of_the_width() -> None:
    labels = torch.arange(200)
    rows = TrainingRows(torch.zeros(1, 200, 400, dtype=torch.float64), labels, labels.bincount())
    start = fitted(rows, FitConfig(epochs=1, lr=STANDING, weight_decay=0))
    # nn.Linear's initialisation; D = 400 gives +-0.05, standard deviation 0.05 / sqrt(3), which
    # 80,000 draws show to a quarter of a percent.
    assert start.weight.abs().max() <= 0.05
    assert start.bias.abs().max() <= 0.05
    assert start.weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "adamw", "lr": 0.05},
        {"normalize": True},
        {"head": "cosine"},
        {"feature_dropout": 0.2},
        {"feature_noise": 0.5},
        {"average_last": 0.5},
        {"precision": "bfloat16"},
        {"sampler": "progressive"},
    ],
)
def test_it_finds_every_class_that_was_planted(settings: dict[str, object]) -> None:
    rows = long_tailed_rows(spread=0.2)
    fit = fitted(rows, build_config(FitConfig, settings, epochs=30, batch_size=16))
    found = predictions(rows, fit)
    for c in range(3):
        assert (found[rows.labels == c] == c).double().mean() >= 0.9
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
    start = fitted(rows, replace(config, lr=STANDING))
    moved = fitted(rows, config).weight[0] - start.weight[0]
    p = (start.weight + start.bias.unsqueeze(1)).softmax(dim=0)[0]
    shares = moved / (config.first_lr * (1 - p))
    # Each share is 1/4 with a standard deviation of sqrt(3/16 / 20,000) = 0.003.
    torch.testing.assert_close(
        shares, torch.full((4,), 0.25, dtype=torch.float64), rtol=0, atol=5 * 0.003
    )


def test_views_do_not_change_which_rows_are_drawn() -> None:
    alone = long_tailed_rows()
    copied = replace(alone, features=alone.features.repeat(4, 1, 1))
    assert same(fitted(alone, CONFIG), fitted(copied, CONFIG))
    views = long_tailed_rows(n_views=3)
    assert not same(fitted(alone, CONFIG), fitted(views, CONFIG))
    clean = replace(views, features=views.features[:1])
    assert same(fitted(views, replace(CONFIG, views=False)), fitted(clean, CONFIG))


@pytest.mark.parametrize(
    "sampler", ["instance", "class-balanced", "class-aware", "square-root", "progressive"]
)
def test_a_seed_decides_the_head_to_the_bit(sampler: str) -> None:
    rows = long_tailed_rows(n_views=2)
    config = build_config(
        FitConfig, sampler=sampler, epochs=4, feature_dropout=0.1, feature_noise=0.3
    )
    first = fitted(rows, config)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = fitted(rows, config)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, again)
    assert first.losses == again.losses
    assert not same(first, fitted(rows, replace(config, seed=1)))


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
            fits.append(fitted(rows, FitConfig(epochs=2)))
            assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(threads)
    assert same(fits[0], fits[1])
    assert same(fits[0], fits[2])


def test_the_callers_gradient_mode_does_not_matter() -> None:
    rows = long_tailed_rows()
    with torch.no_grad():
        quiet = fitted(rows, CONFIG)
    assert same(quiet, fitted(rows, CONFIG))
    assert not quiet.weight.requires_grad


def test_samples_per_class_reaches_the_class_aware_sampler() -> None:
    rows, config = long_tailed_rows(), replace(CONFIG, sampler="class-aware", batch_size=12)
    assert not same(
        fitted(rows, replace(config, samples_per_class=2)),
        fitted(rows, replace(config, samples_per_class=4)),
    )


def test_epochs_are_reported() -> None:
    seen: list[tuple[int, int]] = []
    fit_head_on_rows(long_tailed_rows(), CONFIG, lambda s: seen.append((s.done, s.total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_a_fit_that_diverges_says_so(average: float) -> None:
    rows = long_tailed_rows()
    config = replace(CONFIG, average_last=average)
    with pytest.raises(FitError, match=r"diverged in epoch 1:.*lr below 0\.1"):
        fitted(replace(rows, features=1e30 * rows.features), config)


def test_the_last_steps_are_averaged() -> None:
    # One step an epoch: epoch e of E begins at the share e / E, so those of 2, 3 and 4 of 4 count
    # for a half and more. A schedule that stays makes shorter fits beginnings of longer ones.
    rows = long_tailed_rows(dtype=torch.float64)
    config = FitConfig(batch_size=53, schedule="constant", epochs=4)
    ends = [fitted(rows, replace(config, epochs=n)).weight for n in (3, 4)]
    averaged = fitted(rows, replace(config, average_last=0.5))
    torch.testing.assert_close(averaged.weight, sum(ends) / 2, rtol=0, atol=1e-12)
    # A share below a single step leaves the last head.
    last = fitted(rows, replace(config, average_last=0.1))
    torch.testing.assert_close(last.weight, ends[1], rtol=0, atol=0)


def test_dropout_zeroes_a_share_of_the_features_and_keeps_their_mean() -> None:
    # All features are 0.01, in one batch: cross entropy's first step moves a weight by lr * (mean
    # feature) * (share of class 0 - p_0), and such small features leave p_0 to the bias.
    labels = torch.tensor([0] * 50_000 + [1])
    rows = TrainingRows(torch.full((1, len(labels), 4), 0.01), labels, labels.bincount())
    config = FitConfig(
        loss="cross-entropy", epochs=1, batch_size=len(labels), weight_decay=0, momentum=0,
        feature_dropout=0.25,
    )  # fmt: skip
    with_dropout, without = fitted(rows, config), fitted(rows, replace(config, feature_dropout=0))
    start = fitted(rows, replace(config, lr=STANDING))
    moved, expected = with_dropout.weight - start.weight, without.weight - start.weight
    # Kept with 3/4, times 4/3: variance 1/3 each, 0.0026 of the mean of 50,000; and p_0 varies by
    # about a hundredth of a weight.
    torch.testing.assert_close(moved, expected, rtol=5 * 0.0026 + 0.005, atol=0)
    assert not torch.equal(moved, expected)


def test_bfloat16_products_give_nearly_the_same_head() -> None:
    rows = long_tailed_rows()
    exact, rounded = fitted(rows, CONFIG), fitted(rows, replace(CONFIG, precision="bfloat16"))
    assert rounded.weight.dtype == torch.float32
    # bfloat16 keeps 8 bits, 0.4 % of each factor.
    torch.testing.assert_close(rounded.weight, exact.weight, rtol=0, atol=0.02)
    assert not same(exact, rounded)


def test_normalised_features_are_those_of_length_root_d() -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    by_hand = functional.normalize(rows.features, dim=-1) * math.sqrt(5)
    fit = fitted(rows, replace(CONFIG, normalize=True))
    plain = fitted(replace(rows, features=by_hand), CONFIG)
    assert fit.normalized
    assert not plain.normalized
    assert_close(LinearFit(fit.weight / math.sqrt(5), fit.bias, fit.losses), plain, atol=1e-12)
