"""Settings that decide nothing for a head are refused where they are given by hand.

The table of them is held against what the fits really do: of every combination of loss, head,
solver and sampler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import FitConfig
from pipeline.config.idle import (
    MINI_BATCHES,
    NOT_LEARNED,
    OF_THE_HEAD,
    OF_THE_LOSS,
    OF_THE_RUN,
    OF_THE_SAMPLER,
    decisive,
    idle_settings,
    refuse_idle,
    seed_decides,
)
from pipeline.errors import ConfigError
from pipeline.fitting.draws import own_settings
from pipeline.fitting.many import CLOSED_FORMS
from pipeline.fitting.parametrisations import FORMS
from pipeline.losses import GRADIENTS, LOSSES
from pipeline.samplers import SAMPLERS
from tests.commands import refused
from tests.fitting.made_rows import fitted, long_tailed_rows, same

OTHER: dict[str, Any] = {
    "loss": "vs", "reweight": False, "power": 3.0, "tau": 0.3, "smooth_head": 0.9,
    "smooth_tail": 0.8, "max_margin": 5.0, "margin_scale": 3.0, "focal_gamma": 0.5, "beta": 0.5,
    "vs_gamma": 1.0, "lade_weight": 2.0, "lade_square": 3.0, "distill_weight": 0.2,
    "distill_temperature": 8.0, "cosine_scale": 4.0, "norm_power": 0.5, "normalize": True,
    "standardize": True, "sampler": "square-root", "samples_per_class": 2, "solver": "adamw",
    "epochs": 1, "batch_size": 8, "lr": 0.01, "schedule": "constant", "momentum": 0.5,
    "weight_decay": 0.5, "views": False, "feature_dropout": 0.5, "feature_noise": 2.0,
    "average_last": 0.7, "average_seeds": 2, "precision": "bfloat16",
}  # fmt: skip
"""A value far from the default for each setting that may decide a head."""

NOT_FOR_L_BFGS = ("feature_dropout", "feature_noise", "average_last")
"""What a fit with l-bfgs refuses itself."""

SHORT = FitConfig(epochs=2, batch_size=12)
"""l-bfgs has not converged after one of these epochs, so that their number decides."""


def combinations(losses: tuple[str, ...], samplers: tuple[str, ...]) -> Iterator[FitConfig]:
    """Settings of every kind of head that can be fitted."""
    for loss, head in product(losses, OF_THE_HEAD):
        if head in FORMS:
            for solver, sampler in product(("sgd", "adamw"), samplers):
                yield configured(SHORT, loss=loss, head=head, solver=solver, sampler=sampler)
        yield configured(SHORT, loss=loss, head=head, solver="l-bfgs")


def configured(config: FitConfig, **values: Any) -> FitConfig:
    """Other settings; those that one of them excludes are left as they were."""
    if config.head != "linear" or values.get("normalize"):
        values = {**values, "standardize": False}
    return dataclasses.replace(config, **values)


def changes(config: FitConfig) -> Callable[..., bool]:
    """Whether other settings give another head, to the bit."""
    rows = long_tailed_rows(n_views=2, teacher=True)
    plain = fitted(rows, config)
    return lambda **values: not same(plain, fitted(rows, configured(config, **values)))


def test_every_setting_and_every_choice_is_looked_at() -> None:
    names = {field.name for field in dataclasses.fields(FitConfig)}
    assert {*OTHER, *OF_THE_RUN} == names
    assert all(value != getattr(SHORT, name) for name, value in OTHER.items())
    assert set(OF_THE_LOSS) == set(LOSSES)
    assert set(OF_THE_HEAD) == {*FORMS, *CLOSED_FORMS}
    assert set(NOT_LEARNED) == set(CLOSED_FORMS)
    assert set(OF_THE_SAMPLER) == set(SAMPLERS)


@pytest.mark.parametrize("registry", [LOSSES, GRADIENTS], ids=["losses", "gradients"])
def test_a_loss_has_the_settings_that_its_function_takes(registry: Any) -> None:
    for name, function in registry.items():
        assert set(OF_THE_LOSS[name]) == set(own_settings(function)) - {"teacher_logits"}


def test_a_sampler_has_the_settings_that_its_function_takes() -> None:
    for name, function in SAMPLERS.items():
        assert set(OF_THE_SAMPLER[name]) == set(own_settings(function)) - {"progress"}


@pytest.mark.parametrize("loss", OF_THE_LOSS)
def test_idle_settings_leave_the_head_to_the_bit(loss: str) -> None:
    for config in combinations((loss,), tuple(OF_THE_SAMPLER)):
        idle = {name: OTHER[name] for name in idle_settings(config)}
        assert not changes(config)(**idle), config
        assert decisive(configured(config, **idle)) == decisive(config)


@pytest.mark.parametrize("loss", OF_THE_LOSS)
def test_all_settings_of_a_loss_that_are_not_idle_change_the_head(loss: str) -> None:
    for head, solver in product(FORMS, ("sgd", "l-bfgs")):
        config = configured(SHORT, loss=loss, head=head, solver=solver)
        moves = changes(config)
        for name in OF_THE_LOSS[loss]:
            assert name not in idle_settings(config)
            assert moves(**{name: OTHER[name]}), (name, config)


def test_all_other_settings_that_are_not_idle_change_the_head() -> None:
    for config in combinations(("cross-entropy",), tuple(OF_THE_SAMPLER)):
        moves = changes(config)
        left = set(OTHER) - idle_settings(config)
        if config.solver == "l-bfgs" and config.head in FORMS:
            left -= {*NOT_FOR_L_BFGS}
        for name in left:
            taken = getattr(config, name) == OTHER[name]
            value = getattr(SHORT, name) if taken else OTHER[name]
            assert moves(**{name: value}), (name, config)
        assert moves(seed=7) == seed_decides(config), config


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"loss": "lade", "lade_weight": 0.0}, {"lade_square"}),
        ({"loss": "gml+distillation", "distill_weight": 0.0}, {"distill_temperature"}),
        ({"loss": "gml+distillation", "distill_weight": 1.0}, {"reweight", "power"}),
    ],
)
def test_a_part_of_a_loss_without_weight_has_idle_settings(
    settings: dict[str, Any], idle: set[str]
) -> None:
    for solver in ("sgd", "l-bfgs"):
        config = configured(SHORT, solver=solver, **settings)
        with_weight = configured(SHORT, solver=solver, loss=settings["loss"])
        assert idle_settings(config) - idle_settings(with_weight) == idle
        assert not changes(config)(**{name: OTHER[name] for name in idle})


def test_what_is_idle_for_a_few_heads_by_hand() -> None:
    assert idle_settings(FitConfig(solver="l-bfgs")) >= set(MINI_BATCHES)
    assert {"momentum", "tau", "samples_per_class"} <= idle_settings(FitConfig(solver="adamw"))
    assert not {"momentum", "lr", "normalize", "reweight"} & idle_settings(FitConfig())
    assert "normalize" in idle_settings(FitConfig(head="cosine"))
    assert "weight_decay" in idle_settings(FitConfig(head="cosine", solver="l-bfgs"))
    assert "weight_decay" not in idle_settings(FitConfig(head="cosine"))


def test_one_sentence_names_all_of_them() -> None:
    adjusted = FitConfig(head="logit-adjusted")
    with pytest.raises(ConfigError, match=r"^--epochs, --batch-size decide nothing for a logit-adjusted head, .* but --tau: leave them out\.$"):  # fmt: skip  # noqa: E501
        refuse_idle([adjusted], ["epochs", "tau", "batch_size"])
    with pytest.raises(ConfigError, match=r"^--lr decides nothing for the solver l-bfgs, .*it out"):
        refuse_idle([FitConfig(solver="l-bfgs")], ["lr", "epochs"])
    refuse_idle([adjusted], ["tau", "seed", "device"])
    refuse_idle([adjusted, FitConfig()], ["epochs"])  # the second head has a use for it


def test_the_sentence_says_for_what_each_is_idle() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_idle(
            [FitConfig(), FitConfig(loss="focal")], ["tau", "samples_per_class", "vs_gamma"]
        )
    assert str(caught.value) == (
        "--tau, --vs-gamma decide nothing for the loss gml or the loss focal; --samples-per-class "
        "decides nothing for the sampler instance: leave them out."
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--head", "logit-adjusted", "--epochs", 3), "--epochs decides nothing"),
        (("--head", "nearest-mean", "--loss", "gml"), "--loss decides nothing"),
        (("--head", "tau-normalised", "--no-views"), "--no-views decides nothing"),
        (("--solver", "l-bfgs", "--batch-size", 8), "--batch-size decides nothing"),
        (("--head", "nearest-mean", "--sweep", "lr=0.1,0.2"), "--sweep lr decides nothing"),
        (("--config", "cifar100-lt-test-views", "--lr", 0.1), "--lr decides nothing"),
        (("--loss", "gml", "--tau", 3), "--tau decides nothing for the loss gml"),
        (("--lade-weight", 3), "--lade-weight decides nothing for the loss gml"),
        (("--head", "learnable-scaling", "--normalize"), "nothing for a learnable-scaling head"),
        (("--solver", "adamw", "--momentum", 0.5), "nothing for the solver adamw"),
        (("--sweep", "tau=0.5,1,2", "--seeds", 2), "--sweep tau decides nothing for the loss gml"),
        (
            ("--sweep", "weight_decay=1e-5,1e-2", "--head", "cosine", "--solver", "l-bfgs"),
            "--sweep weight_decay decides nothing for a cosine head with the solver l-bfgs",
        ),
        # Those of a recipe trip nothing: what is missing is the store.
        (("--head", "logit-adjusted", "--config", "cifar100-lt"), "none.zarr"),
        (("--sweep", "solver=sgd,l-bfgs", "--lr", 0.1), "none.zarr"),
        (("--sweep", "solver=sgd,adamw", "--sweep", "momentum=0.5,0.9"), "none.zarr"),
    ],
)
def test_the_command_refuses_before_it_opens_the_store(
    tmp_path: Path, options: tuple[Any, ...], told: str
) -> None:
    words = ["fit-head", tmp_path / "none.zarr", "--out", tmp_path / "h.safetensors", *options]
    assert told in refused(*words, code=1 if told == "none.zarr" else 2)
