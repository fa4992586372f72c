"""Studies: many configurations over many seeds, compared honestly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import FitConfig, evaluate, fit_head, grid_configs, save_study, study
from pipeline import scored as scored_module
from pipeline.errors import ConfigError, EvaluationError, FitError
from pipeline.progress import Snapshot
from pipeline.studying import (
    parse_sweeps,
    spread_of,
    study_members,
)
from pipeline.studying.grid import varied_fields, varied_settings
from pipeline.studying.tables import study_table, table_on_test
from tests.measured_stores import planted_store
from tests.studying.made_studies import CONFIG, N_CLASSES, store_with, study_of, text_of

# Statistics


def test_mean_deviation_and_interval_by_hand() -> None:
    # Student's t for 2 degrees of freedom is 4.3027; 4.3027 * 2 / sqrt(3) = 4.9683.
    spread = spread_of([36, 38, 40])
    assert (spread.mean, spread.deviation) == (38, 2)
    assert spread.interval == pytest.approx((38 - 4.9683, 38 + 4.9683), abs=1e-4)
    alone = spread_of([7.0])
    assert (alone.mean, alone.deviation, alone.interval) == (7.0, None, None)
    assert alone.to_json()["low"] is None
    agreed = spread_of([7.0, 7.0, 7.0])
    assert (agreed.mean, agreed.deviation, agreed.interval) == (7.0, 0.0, None)


def test_no_interval_leaves_what_is_possible() -> None:
    # Mean 1, deviation sqrt(3): 4.3027 * sqrt(3) / sqrt(3) to either side, 0 at the lowest.
    assert spread_of([0, 0, 3]).interval == pytest.approx((0, 5.3027), abs=1e-4)
    assert spread_of([100, 100, 97], highest=100).interval == pytest.approx(
        (94.6973, 100), abs=1e-4
    )


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(50, 3, (2000, 5))
    held = [low <= 50 <= high for low, high in (spread_of(list(d)).interval or () for d in draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)  # three deviations of 2000 draws


# Grids


def test_sweeps_are_read_as_in_a_recipe() -> None:
    assert parse_sweeps(["lr=0.05,1e-1", "views=yes,no", "epochs=5"]) == {
        "lr": [0.05, "1e-1"], "views": [True, False], "epochs": [5],
    }  # fmt: skip
    both = parse_sweeps(["lr=0.05,0.1,weight-decay=1e-4, 5e-4"])
    assert both == {"lr": [0.05, 0.1], "weight_decay": ["1e-4", "5e-4"]}
    assert parse_sweeps([]) == {}


def test_a_grid_is_every_combination_with_the_last_field_fastest() -> None:
    configs = grid_configs(CONFIG, {"lr": [0.1, "2e-1"], "loss": ["gml", "cross-entropy"]})
    assert [(c.lr, c.loss) for c in configs] == [
        (0.1, "gml"), (0.1, "cross-entropy"), (0.2, "gml"), (0.2, "cross-entropy"),
    ]  # fmt: skip
    assert {dataclasses.replace(c, lr=CONFIG.lr, loss="gml") for c in configs} == {CONFIG}
    assert grid_configs(CONFIG, {}) == [CONFIG]


@pytest.mark.parametrize(
    ("grid", "settings"),
    [
        (
            {"solver": ["sgd", "adamw"], "momentum": [0.5, 0.9]},
            [
                {"solver": "sgd", "momentum": 0.5},
                {"solver": "sgd", "momentum": 0.9},
                {"solver": "adamw"},
            ],
        ),
        (
            {"loss": ["gml", "cross-entropy", "lade", "ldam"], "lade_weight": [0.1, 1.0]},
            [
                {"loss": "gml"},
                {"loss": "cross-entropy"},
                {"loss": "lade", "lade_weight": 0.1},
                {"loss": "lade", "lade_weight": 1.0},
                {"loss": "ldam"},
            ],
        ),
        (
            {"head": ["nearest-mean", "logit-adjusted", "linear"], "tau": [0.5, 2.0]},
            [
                {"head": "nearest-mean"},
                {"tau": 0.5, "head": "logit-adjusted"},
                {"tau": 2.0, "head": "logit-adjusted"},
                {"head": "linear"},
            ],
        ),
        ({"tau": [0.5, 1.0, 2.0]}, [{}]),
        ({"lade_weight": [0.0, 0.1], "loss": ["lade"], "lade_square": [0.1, 0.5]},
         [{"lade_weight": 0.0}, {"lade_weight": 0.1, "lade_square": 0.1},
          {"lade_weight": 0.1, "lade_square": 0.5}]),
    ],
)  # fmt: skip
def test_a_grid_holds_each_head_once_by_the_settings_that_decide_it(
    grid: dict[str, list[Any]], settings: list[dict[str, Any]]
) -> None:
    configs = grid_configs(CONFIG, grid)
    fields = varied_fields(configs)
    assert [varied_settings(config, fields) for config in configs] == settings


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["lr"], "no list of values: give FIELD=VALUE"),
        (["lr="], "no list of values"),
        (["lr=0.1,,0.2"], "no list of values"),
        (["=3"], "There is no setting ''"),
        (["lr=0.1", "lr=0.2"], "--sweep lr is given twice"),
        (["lr=0.1,1e-1"], "holds a value twice"),
        (["rate=0.1"], "There is no setting 'rate' to sweep; those are: loss, "),
        (["seed=0,1"], "seeds are varied with --seeds"),
        (["device=cpu,cuda"], "share one device"),
        (["lr=0.1,-1"], "lr must be above 0, not -1"),
        (["lr=0.1,fast"], "lr must be a number, not 'fast'"),
        (["epochs=1.5"], "epochs must be a whole number, not 1.5"),
        (["loss=gml,hinge"], "loss must be one of gml"),
        (["lr={"], "lr must be a number"),
        ([f"lr={','.join(map(str, range(1, 2002)))}"], "up to 2,000 heads, not 2,001"),
    ],
)
def test_what_is_no_grid_is_told_in_a_sentence(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        grid_configs(CONFIG, parse_sweeps(texts))
    assert "\n" not in str(caught.value)


def test_seeds_count_up_and_averaged_heads_share_none() -> None:
    (plain,) = study_members([dataclasses.replace(CONFIG, seed=5)], 3)
    assert [c.seed for c in plain] == [5, 6, 7]
    averaged = dataclasses.replace(CONFIG, average_seeds=4)
    (members,) = study_members([averaged], 3)
    used = [seed for c in members for seed in range(c.seed, c.seed + c.average_seeds)]
    assert used == list(range(12))


@pytest.mark.parametrize(
    ("configs", "seeds", "words"),
    [
        ([CONFIG], 0, "seeds must be 1 or more"),
        ([], 1, "one configuration or more"),
        ([CONFIG, CONFIG], 1, "two are the same"),
        ([CONFIG, dataclasses.replace(CONFIG, tau=3.0)], 1, "that decide nothing about"),
        ([CONFIG, dataclasses.replace(CONFIG, seed=1)], 1, "--seeds"),
        ([CONFIG], 2001, "up to 2,000 heads"),
    ],
)
def test_what_is_no_study_is_told(configs: list[FitConfig], seeds: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study_members(configs, seeds)


# The stage


def test_its_heads_and_scores_are_those_of_single_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored_module, "LOGITS_OF_A_ROW", 2 * N_CLASSES)  # two heads at a time
    store = store_with(tmp_path, "test")
    configs = grid_configs(CONFIG, {"lr": [0.05, 0.1], "loss": ["gml", "cross-entropy"]})
    found = study(store, configs, seeds=3)
    assert [v.settings for v in found.variants] == [
        {"loss": c.loss, "lr": c.lr} for c in configs
    ]  # fmt: skip
    for config, variant in zip(configs, found.variants, strict=True):
        assert variant.seeds == (0, 1, 2)
        assert variant.measured is not None
        for seed, head, scores in zip(
            variant.seeds, variant.heads, variant.measured.scores, strict=True
        ):
            single = fit_head(store, dataclasses.replace(config, seed=seed)).head
            assert head is not None
            assert np.allclose(head.weight, single.weight, atol=1e-5)
            assert head.provenance == single.provenance
            assert scores == evaluate(store, head)
    assert (found.split, found.n_samples, found.n_failed, found.n_rows) == ("test", 59, 1, 79)
    assert found.old == {"test": evaluate(store)}


def test_without_validation_nothing_is_chosen(tmp_path: Path) -> None:
    store = store_with(tmp_path, "test")
    found = study(store, grid_configs(CONFIG, {"lr": [1e-6, 0.1]}), seeds=2)
    assert (found.split, found.chosen, found.kept, found.test) == ("test", None, None, None)
    assert found.to_json()["chosen_on"] is None
    assert "Nothing was chosen on this split" in text_of(study_table(found))
    assert table_on_test(found) is None
    assert save_study(found, tmp_path / "study") == []
    only = study(store, CONFIG, seeds=2)
    assert (only.chosen, only.kept, only.test) == (None, only.variants[0], None)


@pytest.mark.parametrize("shuffled", [None, "test"])
def test_validation_chooses_and_test_has_no_part_in_it(
    tmp_path: Path, shuffled: str | None
) -> None:
    # A learning rate of 1e-6 leaves the head as it was drawn.
    store = store_with(tmp_path, "val", "test", shuffled=shuffled)
    found = study(store, grid_configs(CONFIG, {"lr": [1e-6, 0.1, 1e-5]}), seeds=3)
    assert (found.split, found.chosen) == ("val", 1)
    assert found.kept is not None
    assert found.test is not None
    heads = [head for head in found.kept.heads if head is not None]
    assert list(found.test.scores) == [evaluate(store, head) for head in heads]
    assert set(found.old) == {"val", "test"}
    assert "had no part" in text_of(table_on_test(found))


def test_test_views_are_averaged_as_everywhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_CLASSES), 8)
    corners = np.eye(N_CLASSES, 5)[labels]
    planted = {
        name: (corners + rng.normal(0, 1, corners.shape), labels) for name in ("train", "test")
    }
    views = {"test": corners + rng.normal(0, 1, (2, *corners.shape))}
    store = planted_store(tmp_path, planted, weight=np.eye(N_CLASSES, 5), views=views)
    found = study(store, CONFIG, seeds=2)
    assert found.variants[0].measured is not None
    for head, scores in zip(
        found.variants[0].heads, found.variants[0].measured.scores, strict=True
    ):
        assert scores == evaluate(store, head)
    assert found.test_views == 2
    assert "mean feature of 3 views each" in text_of(study_table(found))


def test_a_configuration_that_diverged_has_no_figures(tmp_path: Path) -> None:
    store = store_with(tmp_path, "val", "test")
    found = study(store, grid_configs(CONFIG, {"lr": [0.1, 1e38]}), seeds=2)
    assert [v.n_diverged for v in found.variants] == [0, 2]
    assert found.variants[1].measured is None
    assert found.chosen == 0
    assert "2 of 2 fits diverged with lr=1e+38: its steps are too large." in found.warnings
    assert found.to_json()["configurations"][1]["harmonic_mean"] is None
    assert "diverged" in text_of(study_table(found))
    save_study(found, tmp_path / "study")
    with pytest.raises(FitError, match="Every fit of the study diverged"):
        study(store, dataclasses.replace(CONFIG, lr=1e38), seeds=2)


def test_a_store_that_cannot_be_scored_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.study.fit_linear_heads", None)
    with pytest.raises(EvaluationError, match="no split 'test'"):
        study(store_with(tmp_path), CONFIG)


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    study(store_with(tmp_path, "test"), CONFIG, seeds=2, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total >= CONFIG.epochs


def test_progress_ends_with_heads_that_nothing_is_learned_for_and_early_ends(
    tmp_path: Path,
) -> None:
    seen: list[Snapshot] = []
    grid = {"head": ["nearest-mean", "linear"], "solver": ["sgd", "l-bfgs"], "lr": [0.1, 1e38]}
    config = dataclasses.replace(CONFIG, epochs=40, weight_decay=0.1)
    study(
        store_with(tmp_path, "test"), grid_configs(config, grid), seeds=2,
        on_progress=seen.append,
    )  # fmt: skip
    counts = [snapshot.done for snapshot in seen]
    assert counts == sorted(set(counts))
    assert seen[-1].done == seen[-1].total
    # One step of nearest-mean, 40 epochs of SGD, 40 of each of the two seeds of l-bfgs.
    assert seen[-1].total == 1 + 40 + 2 * 40


# The choice


def test_ties_go_to_the_better_worst_class_then_to_the_first() -> None:
    assert study_of({0.1: [(50, 50)], 0.2: [(60, 60)], 0.3: [(55, 55)]}).chosen == 1
    assert study_of({0.1: [(50, 50)], 0.2: [(50, 50)]}).chosen == 0
    # Harmonic means of both seeds are 48 and 60: 2 / (1/40 + 1/60) = 48, 54 on average.
    equal = study_of({0.1: [(40, 60), (60, 60)], 0.2: [(54, 54), (54, 54)]})
    assert equal.chosen == 1
    assert study_of({0.1: [(50, 50)], 0.2: [(60, 60)]}, split="test").chosen is None


def test_what_these_seeds_cannot_tell_apart_is_marked() -> None:
    found = study_of(
        {
            "a": [(60, 60), (70, 70), (65, 65)],
            "b": [(61, 61), (69, 69), (64, 64)],  # now better, now worse
            "c": [(58, 58), (68, 68), (63, 63)],  # always worse by 2, however seeds vary
        },
        field="loss",
    )
    assert (found.chosen, found.alike) == (0, (1,))
    shown = text_of(study_table(found))
    assert "chosen: the highest mean harmonic mean;" in shown
    assert "alike: its harmonic mean cannot be told" in shown


def test_an_edge_is_one_of_the_heads_that_have_the_setting() -> None:
    found = study_of({0.1: [(50, 50)], 0.2: [(60, 60)], 0.3: [(55, 55)]})
    settings = [{"loss": "lade", "lade_weight": 0.1}, {"loss": "lade", "lade_weight": 1.0},
                {"loss": "gml"}]  # fmt: skip
    variants = tuple(
        dataclasses.replace(variant, settings=of)
        for variant, of in zip(found.variants, settings, strict=True)
    )
    mixed = dataclasses.replace(found, variants=variants)
    (warning,) = mixed.warnings
    assert "lade_weight = 1 lies on the edge of the values tried, 0.1 to 1" in warning
    assert mixed.fields == ("loss", "lade_weight")


def test_a_best_value_on_the_edge_is_reported() -> None:
    assert study_of({0.1: [(50, 50)], 0.2: [(60, 60)], 0.3: [(55, 55)]}).warnings == ()
    (warning,) = study_of({0.1: [(50, 50)], 0.2: [(60, 60)]}).warnings
    assert "The best lr = 0.2 lies on the edge of the values tried, 0.1 to 0.2" in warning
    assert study_of({"gml": [(9, 9)], "vs": [(8, 8)]}, field="loss").warnings == ()
    assert study_of({True: [(9, 9)], False: [(8, 8)]}, field="views").warnings == ()


def test_a_table_says_what_its_numbers_are() -> None:
    text = text_of(study_table(study_of({0.1: [(0, 50), (10, 60)]})))
    assert "27.5" in text.split("lr")[-1] or "30.0" in text  # accuracy: 25 and 35
    assert "5.0 ± 7.1" in text  # lowest recall: 0 and 10
    assert "0.5 ± 0.7" in text  # classes at zero: 1 and 0
    assert "2 seeds" in text
    assert "It covers what the seed decides, not which images" in text
    assert "* Classes of zero recall count as 0.1 % in this mean." in text
    alone = text_of(study_table(study_of({0.1: [(50, 50)]})))
    assert "One seed: no spread." in alone
    assert "±" not in alone
