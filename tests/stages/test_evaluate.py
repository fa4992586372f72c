from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import Split, Store
from pipeline.errors import EvaluationError, HeadError
from pipeline.scored import ScoredSplit
from pipeline.stages.evaluate import evaluate, evaluate_each
from tests.measured_stores import planted_head, planted_store

# The old logits are the features. The old head takes every eel for an ant; the new head, whose
# third row is doubled, finds the eels and loses the last bee.
FEATURES = np.array(
    [[3, 0, 0], [2, 1, 0], [0, 3, 0], [0, 2, 1.5], [2, 0, 1.5], [2.5, 0, 2]], np.float32
)
LABELS = np.array([0, 0, 1, 1, 2, 2])
NEW_WEIGHT = np.diag([1.0, 1.0, 2.0])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    train = (np.repeat(np.eye(3), [150, 30, 4], axis=0), np.repeat([0, 1, 2], [150, 30, 4]))
    return planted_store(
        tmp_path, {"train": train, "test": (FEATURES, LABELS)}, class_names=["ant", "bee", "eel"]
    )


def test_without_a_head_it_scores_the_old_classifier(store: Store) -> None:
    scores = evaluate(store)
    assert scores.recalls == (100.0, 100.0, 0.0)
    assert (scores.lowest_recall, scores.lowest_class) == (0.0, "eel")
    assert scores.accuracy == pytest.approx(400 / 6)
    # Harmonic mean of 100, 100 and the substitute 0.1: three over 0.01 + 0.01 + 10.
    assert scores.harmonic_mean == pytest.approx(3 / 10.02)
    assert scores.groups == {"many": 100.0, "medium": 100.0, "few": 0.0}
    assert (scores.predictor, scores.temperatures, scores.split) == ("old", None, "test")


def test_with_a_head_alone_it_scores_the_new_one(store: Store) -> None:
    scores = evaluate(store, planted_head(store, NEW_WEIGHT))
    assert scores.recalls == (100.0, 50.0, 100.0)
    assert (scores.predictor, scores.lowest_class) == ("new", "bee")


def test_a_temperature_asks_for_the_ensemble_and_the_other_is_one(store: Store) -> None:
    head = planted_head(store, NEW_WEIGHT)
    both = evaluate(store, head, t_old=3.0)
    assert (both.predictor, both.temperatures) == ("ensemble", (3.0, 1.0))
    assert evaluate(store, head, t_new=2.0).temperatures == (1.0, 2.0)
    assert both == evaluate(store, head, t_old=3.0, t_new=1.0)


def test_each_head_is_scored_alone_by_its_name(store: Store) -> None:
    heads = [planted_head(store, NEW_WEIGHT), planted_head(store, np.eye(3))]
    found = ScoredSplit(store, "test").scores_of_each(heads)
    assert list(found) == ["old", "new 1", "new 2"]
    assert found["old"] == evaluate(store)
    assert found["new 1"] == evaluate(store, heads[0])
    assert list(ScoredSplit(store, "test").scores_of_each(heads[:1])) == ["old", "new"]


@pytest.mark.parametrize("limit", [1, 8192])  # heads that share no pass, and those that do
def test_all_that_is_compared_is_what_each_gives_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr("pipeline.scored.LOGITS_OF_A_ROW", limit)
    heads = [planted_head(store, NEW_WEIGHT), planted_head(store, np.eye(3)[::-1])]
    assert evaluate_each(store, []) == {"old": evaluate(store)}
    found = evaluate_each(store, heads[:1])
    assert list(found) == ["old", "new"]
    assert found["new"] == evaluate(store, heads[0])
    for how in ({}, {"t_old": 3.0, "t_new": (1.0, 0.5)}, {"weights": (0, 1, 2)}):
        found = evaluate_each(store, heads, **how)
        assert list(found) == ["old", "new 1", "new 2", "ensemble"]
        assert found["old"] == evaluate(store)
        assert [found["new 1"], found["new 2"]] == [evaluate(store, head) for head in heads]
        assert found["ensemble"] == evaluate(store, heads, **how)
        assert len({scores.recalls for scores in found.values()}) > 2


@pytest.mark.parametrize("how", [{}, {"weights": (1, 0, 1)}, {"t_old": 2.0}])
def test_all_that_is_compared_is_read_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    read: list[str] = []
    for reader in ("features", "logits"):
        original = getattr(Split, reader)

        def noted(split: Split, *where: int, reader: str = reader, original: Any = original) -> Any:
            read.append(reader)
            return original(split, *where)

        monkeypatch.setattr(Split, reader, noted)
    evaluate_each(store, [planted_head(store, NEW_WEIGHT), planted_head(store, np.eye(3))], **how)
    assert sorted(read) == ["features", "logits"]


def test_an_almost_deaf_old_head_leaves_the_new_ones_word(store: Store) -> None:
    # At t_old = 1e9 the old probabilities are equal to 1e-9, and the new head decides.
    head = planted_head(store, NEW_WEIGHT)
    assert evaluate(store, head, t_old=1e9).recalls == evaluate(store, head).recalls


def test_any_split_can_be_scored(store: Store) -> None:
    assert evaluate(store, split="train").n_samples == 184


def test_failed_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    store = planted_store(
        tmp_path, {"train": (np.eye(3), [0, 1, 2]), "test": (FEATURES, LABELS)},
        failures={"test": {4: "truncated", 5: "truncated"}},
    )  # fmt: skip
    scores = evaluate(store)
    assert (scores.n_samples, scores.n_failed) == (4, 2)
    assert scores.recalls == (100.0, 100.0, None)
    assert scores.classes_without_samples == 1
    assert scores.harmonic_mean == pytest.approx(100)
    assert scores.to_json()["n_failed"] == 2


def test_temperatures_without_a_head_are_refused(store: Store) -> None:
    with pytest.raises(EvaluationError, match="give a head too"):
        evaluate(store, t_old=2.0)


def test_a_temperature_of_zero_is_refused(store: Store) -> None:
    with pytest.raises(EvaluationError, match="number above 0"):
        evaluate(store, planted_head(store, NEW_WEIGHT), t_old=0.0)


def test_a_split_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(EvaluationError, match="no split 'val'"):
        evaluate(store, split="val")


def test_a_head_of_another_store_is_refused_by_the_fields_that_differ(store: Store) -> None:
    head = planted_head(store, NEW_WEIGHT)
    other = dataclasses.replace(head.identity, checkpoint="f" * 64)
    with pytest.raises(HeadError, match="checkpoint"):
        evaluate(store, dataclasses.replace(head, identity=other))
