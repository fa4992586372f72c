"""Studies of heads that no seed decides, alone and beside others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline import evaluate, fit_head, grid_configs, save_study, study
from pipeline.errors import FitError
from pipeline.studying import study_members
from pipeline.studying.tables import study_table
from tests.studying.made_studies import CONFIG, store_with, study_of, text_of


def test_a_head_that_no_seed_decides_is_fitted_once() -> None:
    means = dataclasses.replace(CONFIG, head="nearest-mean", seed=5)
    factors = dataclasses.replace(CONFIG, head="learnable-scaling", solver="l-bfgs", seed=5)
    drawn = dataclasses.replace(CONFIG, solver="l-bfgs", seed=5)
    of_each = study_members([means, factors, drawn], 3)
    assert [[c.seed for c in of] for of in of_each] == [[5], [5], [5, 6, 7]]


def test_heads_with_and_without_seeds_are_compared_in_one_study(tmp_path: Path) -> None:
    store = store_with(tmp_path, "val", "test")
    grid = {"head": ["nearest-mean", "linear"], "lr": [1e-6, 0.1]}
    found = study(store, grid_configs(CONFIG, grid), seeds=3)
    assert [(v.seeds, v.seeded) for v in found.variants] == [
        ((0,), False), ((0, 1, 2), True), ((0, 1, 2), True),
    ]  # fmt: skip
    assert found.seeds_told == "3 seeds each (one head where no seed decides)"
    assert found.variants[0].measured is not None
    (scores,) = found.variants[0].measured.scores
    once = dataclasses.replace(CONFIG, head="nearest-mean")
    assert scores == evaluate(store, fit_head(store, once).head, split="val")
    text = text_of(study_table(found))
    assert "No seed decides the heads without ±: each was fitted once." in text
    assert found.to_json()["configurations"][0]["depends_on_seed"] is False


def test_a_head_that_no_seed_decides_has_no_interval(tmp_path: Path) -> None:
    store = store_with(tmp_path, "test")
    found = study(store, dataclasses.replace(CONFIG, head="nearest-mean"), seeds=3)
    assert (found.n_seeds, found.seeds_told) == (1, "one head")
    text = text_of(study_table(found))
    assert "No seed decides this head: it was fitted once" in text
    assert "±" not in text
    assert "--seeds" not in text
    assert len(save_study(found, tmp_path / "study")) == 1
    both = grid_configs(CONFIG, {"head": ["nearest-mean", "tau-normalised"]})
    assert "No seed decides these heads" in text_of(study_table(study(store, both, seeds=3)))


def test_numbers_beyond_float32_are_not_blamed_on_steps(tmp_path: Path) -> None:
    store = store_with(tmp_path, "test")
    wild = dataclasses.replace(CONFIG, head="logit-adjusted", tau=1e39)
    with pytest.raises(FitError, match="Every head of the study is beyond float32"):
        study(store, wild, seeds=2)
    found = study(store, [wild, dataclasses.replace(wild, tau=1.0)], seeds=2)
    assert found.warnings == (
        "1 of 1 fits diverged with tau=1e+39: its numbers are beyond float32.",
    )


def test_a_head_without_seeds_is_held_against_each_seed_of_others() -> None:
    found = study_of({"a": [(60, 60), (70, 70), (65, 65)], "b": [(66, 66)], "c": [(50, 50)]})
    once = [found.variants[0], *(dataclasses.replace(v, seeded=False) for v in found.variants[1:])]
    # The chosen one is less its own seeds by 6, -4 and 1; the last one by 10, 20 and 15.
    compared = dataclasses.replace(found, variants=tuple(once))
    assert (compared.chosen, compared.alike) == (1, (0,))


def test_equal_numbers_of_all_seeds_give_no_interval() -> None:
    text = text_of(study_table(study_of({0.1: [(50, 50), (50, 50)]})))
    assert "50.0 ± 0.0" in text
    assert "(50.0, 50.0)" not in text
    assert "All 2 seeds come to the same figures: there is no spread." in text
    assert "interval" not in text
    some = text_of(study_table(study_of({0.1: [(40, 60), (50, 50)]})))  # the accuracy is one
    assert "50.0 ± 0.0" in some
    assert "(50.0, 50.0)" not in some
    assert "Where all seeds agree, they give no interval." in some
