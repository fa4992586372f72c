"""Settings that decide nothing for a head are refused where they are given by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.config import FitConfig, build_config
from pipeline.config.idle import MINI_BATCHES, NOT_LEARNED, OF_THE_RUN, idle_settings, refuse_idle
from pipeline.errors import ConfigError
from pipeline.fitting.many import CLOSED_FORMS
from tests.fitting.made_rows import fitted, long_tailed_rows, same

OTHER: dict[str, Any] = {
    "loss": "cross-entropy", "reweight": False, "power": 2.0, "tau": 0.5, "smooth_head": 0.2,
    "smooth_tail": 0.2, "max_margin": 0.2, "margin_scale": 10.0, "focal_gamma": 1.0, "beta": 0.9,
    "vs_gamma": 0.2, "lade_weight": 0.5, "lade_square": 0.01, "distill_weight": 0.1,
    "distill_temperature": 1.0, "cosine_scale": 4.0, "norm_power": 0.5, "normalize": True,
    "sampler": "class-aware", "samples_per_class": 2, "solver": "adamw", "epochs": 2,
    "batch_size": 16, "lr": 0.01, "schedule": "constant", "momentum": 0.5, "weight_decay": 0.1,
    "views": False, "feature_dropout": 0.5, "feature_noise": 0.5, "average_last": 0.5,
    "average_seeds": 2, "precision": "bfloat16",
}  # fmt: skip
"""Another value than the default for each setting that a form of the head may have."""

REFUSED_ANYWAY = ("standardize",)
"""Of linear heads alone, which `FitConfig` says itself."""


def test_every_setting_is_looked_at() -> None:
    names = {field.name for field in dataclasses.fields(FitConfig)}
    assert {*OTHER, *OF_THE_RUN, *REFUSED_ANYWAY} == names
    assert set(NOT_LEARNED) == set(CLOSED_FORMS)


@pytest.mark.parametrize("head", NOT_LEARNED)
def test_a_head_that_is_not_learned_has_these_settings_and_no_others(head: str) -> None:
    rows = long_tailed_rows(n_views=2, teacher=True)
    plain = fitted(rows, build_config(FitConfig, head=head))
    moves = {
        name
        for name, value in OTHER.items()
        if not same(plain, fitted(rows, build_config(FitConfig, head=head, **{name: value})))
    }
    assert moves == set(NOT_LEARNED[head])
    idle = idle_settings(build_config(FitConfig, head=head))
    assert idle == {*OTHER, *REFUSED_ANYWAY} - moves


def test_l_bfgs_has_no_mini_batches() -> None:
    rows = long_tailed_rows()
    config = FitConfig(solver="l-bfgs", epochs=1)
    plain = fitted(rows, config)
    for name in MINI_BATCHES:
        assert same(plain, fitted(rows, dataclasses.replace(config, **{name: OTHER[name]})))
    assert idle_settings(config) == set(MINI_BATCHES)
    assert not idle_settings(FitConfig())


def test_one_sentence_names_all_of_them() -> None:
    adjusted = FitConfig(head="logit-adjusted")
    with pytest.raises(ConfigError, match=r"^--epochs, --batch-size decide nothing for a logit-adjusted head, .* but --tau: leave them out\.$"):  # fmt: skip  # noqa: E501
        refuse_idle([adjusted], ["epochs", "tau", "batch_size"])
    with pytest.raises(ConfigError, match=r"^--lr decides nothing for the solver l-bfgs, .*it out"):
        refuse_idle([FitConfig(solver="l-bfgs")], ["lr", "epochs"])
    refuse_idle([adjusted], ["tau", "seed", "device"])
    refuse_idle([adjusted, FitConfig()], ["epochs"])  # the second head has a use for it


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--head", "logit-adjusted", "--epochs", 3), "--epochs decides nothing"),
        (("--head", "nearest-mean", "--loss", "gml"), "--loss decides nothing"),
        (("--head", "tau-normalised", "--no-views"), "--views decides nothing"),
        (("--solver", "l-bfgs", "--batch-size", 8), "--batch-size decides nothing"),
        (("--head", "nearest-mean", "--sweep", "lr=0.1,0.2"), "--lr decides nothing"),
        (("--config", "cifar100-lt-test-views", "--lr", 0.1), "--lr decides nothing"),
        # Those of a recipe trip nothing: what is missing is the store.
        (("--head", "logit-adjusted", "--config", "cifar100-lt"), "none.zarr"),
        (("--sweep", "solver=sgd,l-bfgs", "--lr", 0.1), "none.zarr"),
    ],
)
def test_the_command_refuses_before_it_opens_the_store(
    tmp_path: Path, options: tuple[Any, ...], told: str
) -> None:
    words = ["fit-head", tmp_path / "none.zarr", "--out", tmp_path / "h.safetensors", *options]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == (1 if told == "none.zarr" else 2)
    assert told in result.output
    assert "Traceback" not in result.output
