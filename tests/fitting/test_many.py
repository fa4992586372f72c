"""Many heads in one pass: each is the head of a fit of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from typing import Literal

import pytest
import torch

from pipeline.config import FitConfig, build_config
from pipeline.errors import FitError
from pipeline.fitting import fit_heads_on_rows, many
from pipeline.losses import GRADIENTS
from pipeline.progress import Snapshot
from tests.fitting.made_rows import assert_close, fitted, long_tailed_rows, same

ROUNDING = {torch.float32: 2e-5, torch.float64: 1e-12}
BASE = FitConfig(epochs=3, batch_size=16)


def grid(base: FitConfig) -> list[FitConfig]:
    """Two seeds with every loss, and with other learning rates and weight decays."""
    variants = [replace(base, loss=loss) for loss in sorted(GRADIENTS)]  # type: ignore[arg-type]  # a name
    variants += [replace(base, lr=0.02), replace(base, weight_decay=0.05, loss="cross-entropy")]
    return [replace(variant, seed=seed) for variant in variants for seed in (0, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"feature_dropout": 0.2, "feature_noise": 0.5, "average_last": 0.4},
        {"solver": "adamw", "schedule": "linear"},
        {"head": "cosine", "cosine_scale": 4.0},
        {"head": "learnable-scaling"},
        {"normalize": True, "sampler": "progressive"},
    ],
)
def test_each_of_many_heads_is_that_of_a_fit_of_its_own(
    dtype: torch.dtype, settings: dict[str, object]
) -> None:
    rows = long_tailed_rows(n_views=2, dtype=dtype, teacher=True)
    configs = grid(build_config(FitConfig, settings, epochs=3, batch_size=16))
    for config, fit in zip(configs, fit_heads_on_rows(rows, configs), strict=True):
        assert_close(fit, fitted(rows, config), ROUNDING[dtype])


@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_a_default_that_is_typed_makes_no_other_head(solver: Literal["sgd", "adamw"]) -> None:
    rows, seen = long_tailed_rows(), list[Snapshot]()
    default = FitConfig(solver=solver)
    typed = replace(default, epochs=10, lr={"sgd": 0.1, "adamw": 0.001}[solver])
    one, other = fit_heads_on_rows(rows, [default, typed], seen.append)
    assert same(one, other)
    assert seen[-1].total == 10  # epochs of one pass


def test_settings_of_a_loss_may_differ_in_one_pass() -> None:
    rows = long_tailed_rows(dtype=torch.float64)
    configs = [
        replace(BASE, power=power, reweight=reweight)
        for power, reweight in product((1.0, 2.0, 3.0), (True, False))
    ]
    fits = fit_heads_on_rows(rows, configs)
    for config, fit in zip(configs, fits, strict=True):
        assert_close(fit, fitted(rows, config), 1e-12)
    assert not same(fits[0], fits[1])


def test_what_cannot_share_a_pass_gets_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[int, int]] = []
    whole = many.fit_mini_batches

    def counted(rows, variants, seeds, on_epoch=None):  # type: ignore[no-untyped-def]  # as that
        passes.append((len(seeds), len(variants)))
        return whole(rows, variants, seeds, on_epoch)

    monkeypatch.setattr(many, "fit_mini_batches", counted)
    configs = [replace(BASE, seed=seed, lr=lr) for seed in range(5) for lr in (0.1, 0.2)]
    other = [replace(BASE, batch_size=8), replace(BASE, head="nearest-mean"), configs[3]]
    seen: list[Snapshot] = []
    fits = fit_heads_on_rows(long_tailed_rows(), configs + other, seen.append)
    assert sorted(passes) == [(1, 1), (5, 2)]
    assert same(fits[3], fits[-1])
    assert [one.done for one in seen] == list(range(1, seen[0].total + 1))
    monkeypatch.setattr(many, "MOST_HEADS", 4)
    again = fit_heads_on_rows(long_tailed_rows(), configs)
    assert max(g * h for g, h in passes[2:]) <= 4
    for one, two in zip(again, fits, strict=False):
        assert_close(one, two, ROUNDING[torch.float32])


def test_a_head_that_diverges_leaves_the_others_alone() -> None:
    rows = long_tailed_rows()
    wild = replace(BASE, lr=1e30, epochs=5, weight_decay=1.0)
    calm = [replace(wild, lr=lr, weight_decay=2e-4) for lr in (0.1, 0.05)]
    fits = fit_heads_on_rows(rows, [calm[0], wild, calm[1], replace(wild, seed=1)])
    assert [fit.finite for fit in fits] == [True, False, True, False]
    for config, fit in zip(calm, (fits[0], fits[2]), strict=True):
        assert_close(fit, fitted(rows, config), ROUNDING[torch.float32])


@pytest.mark.parametrize(
    ("scale", "settings", "words", "not_words"),
    [
        (1e37, {"head": "nearest-mean"}, "features are too large.*standardize", "--tau|norm-power"),
        (2e-38, {"solver": "l-bfgs", "standardize": True, "weight_decay": 1e-9},
         "l-bfgs comes to is beyond float32: .*scale nearer to 1\\.", " lr |or fit with"),
        (2e-38, {"standardize": True, "epochs": 50, "lr": 5.0, "weight_decay": 0.0},
         "beyond float32: the features are too small", "diverged"),
        (1e20, {}, "diverged in epoch 1.*lr below 0.1", "l-bfgs"),
    ],
)  # fmt: skip
def test_what_leaves_the_range_of_its_type_is_told_with_what_helps(
    scale: float, settings: dict[str, object], words: str, not_words: str
) -> None:
    rows = long_tailed_rows()
    rows = replace(rows, features=rows.features * scale)
    with pytest.raises(FitError, match=words) as told:
        fitted(rows, build_config(FitConfig, settings, batch_size=16))
    assert not re.search(not_words, str(told.value))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"head": "tau-normalised", "norm_power": 60.0}, "give a smaller --norm-power"),
     ({"head": "logit-adjusted", "tau": 3e38}, "give a smaller --tau")],
)  # fmt: skip
def test_old_heads_that_are_changed_too_much_are_told(
    settings: dict[str, object], words: str
) -> None:
    rows = long_tailed_rows(teacher=True)
    assert rows.teacher is not None
    rows.teacher.weight.mul_(1e-3)
    with pytest.raises(FitError, match=f"{settings['head']} head is beyond float32: {words}\\."):
        fitted(rows, build_config(FitConfig, settings))


def test_averaged_seeds_are_the_mean_of_their_heads() -> None:
    rows = long_tailed_rows(n_views=1, dtype=torch.float64)
    averaged = fitted(rows, replace(BASE, seed=2, average_seeds=3))
    alone = [fitted(rows, replace(BASE, seed=seed)) for seed in (2, 3, 4)]
    mean = torch.stack([fit.weight for fit in alone]).mean(dim=0)
    torch.testing.assert_close(averaged.weight, mean, rtol=0, atol=1e-12)
    losses = [sum(of) / 3 for of in zip(*(fit.losses for fit in alone), strict=True)]
    assert averaged.losses == pytest.approx(losses, abs=1e-12)


def test_no_heads_are_none() -> None:
    assert fit_heads_on_rows(long_tailed_rows(), []) == []
