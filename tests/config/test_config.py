"""Settings and recipes: defaults, what fills them, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import (
    DEFAULT_GRID,
    ExtractConfig,
    FitConfig,
    SweepConfig,
    build_config,
    field_help,
    parse_size,
    parse_temperatures,
    parse_weights,
)
from pipeline.errors import ConfigError
from pipeline.recipes import SECTIONS, load_recipe, recipe_names


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("settings", SECTIONS.values())
def test_every_field_has_a_help_text(settings: type) -> None:
    assert set(field_help(settings)) == {field.name for field in dataclasses.fields(settings)}


def test_given_values_come_before_the_recipe_and_the_recipe_before_defaults() -> None:
    config = build_config(FitConfig, {"epochs": 30, "lr": 0.2}, epochs=5, seed=None)
    assert (config.epochs, config.lr, config.seed) == (5, 0.2, 0)


def test_every_solver_has_a_length_and_a_rate_of_its_own() -> None:
    defaults = {
        solver: FitConfig(solver=solver).resolved()  # type: ignore[arg-type]  # one of the three
        for solver in ("sgd", "adamw", "l-bfgs")
    }
    taken = {solver: (config.epochs, config.lr) for solver, config in defaults.items()}
    assert taken == {"sgd": (10, 0.1), "adamw": (10, 0.001), "l-bfgs": (200, None)}
    config = FitConfig(solver="adamw")
    assert (config.n_epochs, config.first_lr) == (10, 0.001)
    # What is given stays, and another solver takes over nothing that was not.
    assert FitConfig(solver="l-bfgs", epochs=10).resolved().epochs == 10
    assert FitConfig(solver="adamw", lr=0.1).resolved().lr == 0.1
    assert dataclasses.replace(FitConfig(), solver="adamw").first_lr == 0.001
    assert config.resolved().resolved() == config.resolved()


def test_yaml_reads_1e_4_as_text_but_it_is_a_number() -> None:
    assert build_config(FitConfig, {"weight_decay": "1e-4"}).weight_decay == 1e-4


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("fit_head", {"epoch": 3}, "unknown key 'epoch'"),
        ("fit_head", {"epochs": 0}, "epochs must be 1 or more, not 0"),
        ("fit_head", {"epochs": 2.5}, "epochs must be a whole number"),
        ("fit_head", {"epochs": True}, "epochs must be a whole number"),
        ("fit_head", {"lr": "fast"}, "lr must be a number"),
        ("fit_head", {"lr": float("nan")}, "lr must be above 0"),
        ("fit_head", {"loss": "gmm"}, "loss must be one of gml, cross-entropy"),
        ("fit_head", {"sampler": "class-aware", "samples_per_class": 999}, "at most the batch"),
        ("extract", {"device": "tpu"}, "device must be auto, cpu, cuda"),
        ("extract", {"mean": "0.5,0.5"}, "mean must be three numbers"),
        ("extract", {"std": [0.5, 0.0, 0.5]}, "std must be three numbers"),
        ("extract", {"mean": "a,b,c"}, "mean must be a list of numbers"),
        ("extract", {"strict": "yes"}, "strict must be true or false"),
        ("extract", {"test_views": -1}, "test_views must be 0 to 17, not -1"),
        ("extract", {"test_views": 9, "view_flip": False}, "test_views must be 0 to 8 without"),
        ("extract", {"test_view_shift": 0}, "test_view_shift must be 1 or more"),
        ("sweep_temps", {"test_views": 7}, "test_views must be true or false"),
        ("sweep_temps", {"t_old": "0,1"}, "no temperature grid"),
        ("sweep_temps", {"t_old": []}, "t_old must be one or more temperatures"),
        ("sweep_temps", {"t_old": 2}, "t_old must be a list of numbers, not 2"),
        ("sweep_temps", {"memory": "255MiB"}, "memory must be 256MiB or more, not 255MiB"),
        ("sweep_temps", {"replicates": 1}, "replicates must be 100 or more, .* or 0 .*, not 1"),
        ("sweep_temps", {"replicates": -100}, "replicates must be 100 or more, .*, not -100"),
    ],
)
def test_a_wrong_value_is_one_sentence(section: str, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_config(SECTIONS[section], values)
    assert "\n" not in str(caught.value)


def test_grids() -> None:
    assert parse_temperatures("1,2,3") == (1.0, 2.0, 3.0)
    # 1 to 16 in 5 geometric steps: every step doubles.
    assert parse_temperatures("1:16:5") == (1.0, 2.0, 4.0, 8.0, 16.0)
    assert SweepConfig().t_old == DEFAULT_GRID
    assert {1.0, 2.0, 4.0, 8.0} <= set(DEFAULT_GRID)


@pytest.mark.parametrize(
    "text", ["", "1,,2", "1:2", "2:1:3", "1:2:1", "0:1:3", "nan", "inf", "-1", "1:2:1000000000"]
)
def test_a_wrong_grid_names_both_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="as 1,2,3 or as start:stop:count"):
        parse_temperatures(text)


def test_weights_may_leave_heads_out_of_every_command() -> None:
    assert parse_weights("0,1,2.5") == (0.0, 1.0, 2.5)
    for typed in ("0,1,2.5", [0, 1, 2.5]):
        assert build_config(SweepConfig, {"weights": typed}).weights == (0.0, 1.0, 2.5)


@pytest.mark.parametrize("text", ["", "1,,2", "1:4:3", "nan,1", "inf", "-1,2", "one", "0", "0,0"])
def test_wrong_weights_name_their_form(text: str) -> None:
    for attempt in (parse_weights, lambda text: build_config(SweepConfig, {"weights": text})):
        with pytest.raises(ConfigError, match="give one number for each head, as 1,2,1; 0 leaves"):
            attempt(text)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.0, 2.0), ()])
def test_wrong_weights_from_python_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="weights must be numbers of 0 or more"):
        SweepConfig(weights=weights)


@pytest.mark.parametrize("section", ["pretrain", "fit_head", "sweep_temps"])
def test_memory_is_a_size_in_every_command(section: str) -> None:
    assert build_config(SECTIONS[section], {"memory": "2GiB"}).memory == "2GiB"
    for typed in ("1024", 1024, "much", True):
        with pytest.raises(ConfigError, match="is no size: give a number and a unit, as 2GiB"):
            build_config(SECTIONS[section], {"memory": typed})


def test_sizes() -> None:
    assert parse_size(SweepConfig().memory) == 2**30
    assert parse_size("1.5 kb") == 1500
    with pytest.raises(ConfigError, match="no size"):
        SweepConfig(memory=1024)  # type: ignore[arg-type]  # as it was in MiB


@given(st.text(alphabet=string.printable))
def test_a_grid_parses_or_is_refused(text: str) -> None:
    try:
        grid = parse_temperatures(text)
    except ConfigError:
        return
    assert all(t > 0 for t in grid)


@pytest.mark.parametrize("name", recipe_names())
def test_the_package_s_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    for section, settings in SECTIONS.items():
        assert build_config(settings, getattr(recipe, section))


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "fit_head:\n  epochs: 3\n")
    assert load_recipe(path).fit_head == {"epochs": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit_head: [1]", "must hold `key: value` lines"),
        ("fit-head:\n  epochs: 3", "unknown key 'fit-head'"),
        ("fit_head:\n  epoch: 3", "unknown key 'epoch'"),
        ("fit_head:\n  epochs: 0", "epochs must be 1 or more"),
        ("fit_head: {", "no valid YAML"),
        ("- 1", "holds no settings"),
        ("", "holds no settings"),
        ("!!python/object/apply:os.system ['true']", "no valid YAML"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "wrong.yaml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_lists_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"give a YAML file or one of .*cifar100-lt"):
        load_recipe("cifar10000")


def test_a_missing_recipe_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "none.yaml")


@given(st.text())
def test_any_text_as_a_recipe_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("recipe") / "any.yaml"
    try:
        path.write_text(text, encoding="utf-8")
    except UnicodeEncodeError:
        return
    with contextlib.suppress(ConfigError):
        load_recipe(path)


def test_defaults_are_valid() -> None:
    for settings in (ExtractConfig, FitConfig, SweepConfig):
        assert settings()
