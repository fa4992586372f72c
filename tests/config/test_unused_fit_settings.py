"""Settings that have no effect on a head are refused if they are given explicitly.

What the fields declare is compared with what the fits do, for every combination of loss, head,
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
from pipeline.config.fit import LEARNED, NOT_LEARNED, depends_on_seed, without_unused
from pipeline.config.loss_settings import LOSS_SETTINGS
from pipeline.config.unused import refuse_unused, unused_settings
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
"""A value far from the default for each setting that may have an effect on a head."""

MINI_BATCHES = {
    "sampler", "samples_per_class", "batch_size", "lr", "schedule", "momentum", "precision",
}  # fmt: skip
"""Settings of the solvers that take some rows at a time."""

ALWAYS_USED = {"head", "seed", "memory", "device"}
"""Settings that any fit takes: scripts give each head of several the same seed or device."""

NOT_FOR_L_BFGS = ("feature_dropout", "feature_noise", "average_last")
"""What a fit with l-bfgs refuses itself."""

SHORT = FitConfig(epochs=2, batch_size=12)
"""l-bfgs has not converged after one of these epochs, so that their number decides."""


def combinations(losses: tuple[str, ...], samplers: tuple[str, ...]) -> Iterator[FitConfig]:
    """Settings of every kind of head that can be fitted."""
    for loss, head in product(losses, (*LEARNED, *NOT_LEARNED)):
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
    assert {*OTHER, *ALWAYS_USED} == names
    assert all(value != getattr(SHORT, name) for name, value in OTHER.items())
    assert set(LOSS_SETTINGS) == set(LOSSES)
    assert set(LEARNED) == set(FORMS)
    assert set(NOT_LEARNED) == set(CLOSED_FORMS)


@pytest.mark.parametrize("registry", [LOSSES, GRADIENTS], ids=["losses", "gradients"])
def test_a_loss_has_the_settings_that_its_function_takes(registry: Any) -> None:
    for name, function in registry.items():
        assert set(LOSS_SETTINGS[name]) == set(own_settings(function)) - {"teacher_logits"}


def test_a_sampler_has_the_settings_that_its_function_takes() -> None:
    for name, function in SAMPLERS.items():
        of_others = {"samples_per_class"} & unused_settings(FitConfig(sampler=name))
        own = {"samples_per_class"} - of_others
        assert own == set(own_settings(function)) - {"progress"}


@pytest.mark.parametrize("loss", LOSS_SETTINGS)
def test_unused_settings_leave_the_head_to_the_bit(loss: str) -> None:
    for config in combinations((loss,), tuple(SAMPLERS)):
        unused = {name: OTHER[name] for name in unused_settings(config)}
        assert not changes(config)(**unused), config
        assert without_unused(configured(config, **unused)) == without_unused(config)


@pytest.mark.parametrize("loss", LOSS_SETTINGS)
def test_all_settings_of_a_loss_that_are_not_unused_change_the_head(loss: str) -> None:
    for head, solver in product(FORMS, ("sgd", "l-bfgs")):
        config = configured(SHORT, loss=loss, head=head, solver=solver)
        moves = changes(config)
        for name in LOSS_SETTINGS[loss]:
            assert name not in unused_settings(config)
            assert moves(**{name: OTHER[name]}), (name, config)


def test_all_other_settings_that_are_not_unused_change_the_head() -> None:
    for config in combinations(("cross-entropy",), tuple(SAMPLERS)):
        moves = changes(config)
        left = set(OTHER) - unused_settings(config)
        if config.solver == "l-bfgs" and config.head in FORMS:
            left -= {*NOT_FOR_L_BFGS}
        for name in left:
            taken = getattr(config, name) == OTHER[name]
            value = getattr(SHORT, name) if taken else OTHER[name]
            assert moves(**{name: value}), (name, config)
        assert moves(seed=7) == depends_on_seed(config), config


@pytest.mark.parametrize(
    ("settings", "unused"),
    [
        ({"loss": "lade", "lade_weight": 0.0}, {"lade_square"}),
        ({"loss": "gml+distillation", "distill_weight": 0.0}, {"distill_temperature"}),
        ({"loss": "gml+distillation", "distill_weight": 1.0}, {"reweight", "power"}),
    ],
)
def test_a_part_of_a_loss_without_weight_has_unused_settings(
    settings: dict[str, Any], unused: set[str]
) -> None:
    for solver in ("sgd", "l-bfgs"):
        config = configured(SHORT, solver=solver, **settings)
        with_weight = configured(SHORT, solver=solver, loss=settings["loss"])
        assert unused_settings(config) - unused_settings(with_weight) == unused
        assert not changes(config)(**{name: OTHER[name] for name in unused})


def test_what_is_unused_for_a_few_heads() -> None:
    assert unused_settings(FitConfig(solver="l-bfgs")) >= set(MINI_BATCHES)
    assert {"momentum", "tau", "samples_per_class"} <= unused_settings(FitConfig(solver="adamw"))
    assert not {"momentum", "lr", "normalize", "reweight"} & unused_settings(FitConfig())
    assert "normalize" in unused_settings(FitConfig(head="cosine"))
    assert "weight_decay" in unused_settings(FitConfig(head="cosine", solver="l-bfgs"))
    assert "weight_decay" not in unused_settings(FitConfig(head="cosine"))


def test_one_sentence_names_all_of_them() -> None:
    adjusted = FitConfig(head="logit-adjusted")
    with pytest.raises(ConfigError, match=r"^--epochs and --batch-size have no effect with head logit-adjusted, only with head .*: leave them out\.$"):  # fmt: skip  # noqa: E501
        refuse_unused([adjusted], ["epochs", "tau", "batch_size"])
    with pytest.raises(ConfigError, match=r"^--lr has no effect with solver l-bfgs, .*it out"):
        refuse_unused([FitConfig(solver="l-bfgs")], ["lr", "epochs"])
    refuse_unused([adjusted], ["tau", "seed", "device"])
    refuse_unused([adjusted, FitConfig()], ["epochs"])  # the second head has a use for it


def test_the_sentence_says_what_each_needs() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unused(
            [FitConfig(), FitConfig(loss="focal")], ["tau", "samples_per_class", "vs_gamma"]
        )
    assert str(caught.value) == (
        "--tau has no effect with loss gml or focal and head linear, only with loss "
        "balanced-softmax or vs, or head logit-adjusted; --samples-per-class has no effect with "
        "sampler instance, only with sampler class-aware; --vs-gamma has no effect with loss gml "
        "or focal, only with loss vs: leave them out."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "logit-adjusted", "--epochs", 3), "--epochs has no effect"),
        (("--head", "nearest-mean", "--loss", "gml"), "--loss has no effect"),
        (("--head", "tau-normalised", "--no-views"), "--no-views has no effect"),
        (("--solver", "l-bfgs", "--batch-size", 8), "--batch-size has no effect"),
        (("--head", "nearest-mean", "--sweep", "lr=0.1,0.2"), "--sweep lr has no effect"),
        (("--config", "cifar100-lt-test-views", "--lr", 0.1), "--lr has no effect"),
        (("--loss", "gml", "--tau", 3), "--tau has no effect with loss gml"),
        (("--lade-weight", 3), "--lade-weight has no effect with loss gml"),
        (("--head", "learnable-scaling", "--normalize"), "no effect with head learnable-scaling"),
        (("--solver", "adamw", "--momentum", 0.5), "no effect with solver adamw"),
        (("--sweep", "tau=0.5,1,2", "--seeds", 2), "--sweep tau has no effect with loss gml"),
        (
            ("--sweep", "weight_decay=1e-5,1e-2", "--head", "cosine", "--solver", "l-bfgs"),
            "--sweep weight_decay has no effect with head cosine and solver l-bfgs",
        ),
        # Those of a recipe trip nothing: what is missing is the store.
        (("--head", "logit-adjusted", "--config", "cifar100-lt"), "none.zarr"),
        (("--sweep", "solver=sgd,l-bfgs", "--lr", 0.1), "none.zarr"),
        (("--sweep", "solver=sgd,adamw", "--sweep", "momentum=0.5,0.9"), "none.zarr"),
    ],
)
def test_the_command_refuses_before_it_opens_the_store(
    tmp_path: Path, options: tuple[Any, ...], message: str
) -> None:
    words = ["fit-head", tmp_path / "none.zarr", "--out", tmp_path / "h.safetensors", *options]
    assert message in refused(*words, code=1 if message == "none.zarr" else 2)
