"""The stage `balance_head`: labels are not looked at, and what is chosen counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import Store
from pipeline import balance_head, evaluate, load_head, pool_of_store, score_balanced
from pipeline.balancing.pools import Pool
from pipeline.balancing.refitting import refit
from pipeline.balancing.shifts import (
    TEMPERATURE,
    Mean,
    decided_shares,
    estimated_recalls,
    levelling_shifts,
    matching_shifts,
)
from pipeline.config import BalanceConfig
from pipeline.errors import EvaluationError, HeadError
from pipeline.metrics import Floats, Ints
from pipeline.provenance import Balanced
from tests.commands import nolb
from tests.left_behind import (
    LEFT_BEHIND,
    N_CLASSES,
    PARTS,
    drawn_features,
    made_store,
    saved_head,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return made_store(tmp_path)


@pytest.fixture
def path(store: Store, tmp_path: Path) -> Path:
    return saved_head(store, tmp_path / "new.safetensors")


def test_the_class_left_behind_is_found_again(store: Store, path: Path) -> None:
    head = load_head(path)
    balanced = balance_head(head, pool_of_store(store, head))
    assert balanced.n_images == 399
    assert balanced.decided_before[LEFT_BEHIND] < 0.05
    assert balanced.decided_after[LEFT_BEHIND] > 0.2
    assert balanced.recalls_after[LEFT_BEHIND] > balanced.recalls_before[LEFT_BEHIND] + 30
    before, after = evaluate(store, head), evaluate(store, balanced.head)
    assert after.lowest_recall > before.lowest_recall + 50
    # The biases alone have moved, and the file says by what.
    assert np.array_equal(balanced.head.weight, head.weight)
    said = balanced.head.provenance
    assert isinstance(said, Balanced)
    assert (said.head, said.images, said.split) == (head.provenance, 399, "test")


def test_labels_change_nothing(store: Store, path: Path, tmp_path: Path) -> None:
    other = made_store(tmp_path / "other", np.zeros(400, np.int64))
    heads = load_head(path), load_head(saved_head(other, tmp_path / "other.safetensors"))
    plain = balance_head(heads[0], pool_of_store(store, heads[0]))
    blind = balance_head(heads[1], pool_of_store(other, heads[1]))
    assert np.array_equal(plain.head.bias, blind.head.bias)


CHOICES: list[tuple[Mean, float]] = [("harmonic", 1.5), ("geometric", 1.5), ("harmonic", 3.0)]


@pytest.mark.parametrize(("mean", "temperature"), CHOICES)
def test_the_bias_takes_both_steps(
    store: Store, path: Path, mean: Mean, temperature: float
) -> None:
    head = load_head(path)
    pool = pool_of_store(store, head)
    balanced = balance_head(head, pool, BalanceConfig(mean, temperature), shares=PARTS)
    q = np.array(PARTS) / 10
    b = matching_shifts(pool.logits, q)
    w = levelling_shifts(pool.logits + b, q, mean, temperature)
    assert balanced.head.bias - head.bias == pytest.approx(b + w, abs=1e-4)
    assert balanced.shares == pytest.approx(q)
    # Both recalls are estimated where the probabilities are right, so the old head's without b.
    before, after = (
        estimated_recalls(pool.logits + b, q, temperature, (pool.logits + by).argmax(axis=1))
        for by in (0, b + w)
    )
    assert balanced.recalls_before == pytest.approx(before)
    assert balanced.recalls_after == pytest.approx(after)
    # Decisions on these very images, of which the classes have these shares.
    for decided, shifts in ((balanced.decided_before, 0), (balanced.decided_after, b + w)):
        assert decided == pytest.approx(decided_shares(pool.logits + shifts + np.log(q)))
    assert balanced.head.provenance == Balanced(
        head.provenance, "test", 0, 399, tuple(q.tolist()), BalanceConfig(mean, temperature)
    )


def test_every_choice_has_a_bias_of_its_own(store: Store, path: Path) -> None:
    head = load_head(path)
    pool = pool_of_store(store, head)
    biases = [
        balance_head(head, pool, BalanceConfig(*how), shares=PARTS).head.bias for how in CHOICES
    ]
    biases.append(balance_head(head, pool).head.bias)
    for i in range(len(biases)):
        for other in biases[:i]:
            assert np.abs(biases[i] - other).max() > 0.01


def test_what_is_chosen_where_nothing_is_said(store: Store, path: Path) -> None:
    head = load_head(path)
    pool = pool_of_store(store, head)
    plain = balance_head(head, pool)
    config = BalanceConfig("harmonic", TEMPERATURE, 0.0)
    said = balance_head(head, pool, config, shares=[7] * N_CLASSES)
    assert np.array_equal(plain.head.bias, said.head.bias)
    assert plain.head.provenance == replace(said.head.provenance, shares=None)
    assert plain.head.provenance.config == config


def by_folds(
    logits: Floats, folds: Ints, shares: Sequence[float], mean: Mean, temperature: float
) -> Ints:
    """Decisions of the shifts of the other folds, written out."""
    q = np.array(shares) / sum(shares)
    decisions = np.empty(len(logits), np.int64)
    for fold in np.unique(folds):
        others = logits[folds != fold]
        shifts = matching_shifts(others, q)
        shifts = shifts + levelling_shifts(others + shifts, q, mean, temperature)
        decisions[folds == fold] = (logits[folds == fold] + shifts).argmax(axis=1)
    return decisions


def recalls(decisions: Ints, labels: Ints) -> list[float]:
    """In percent."""
    return [100 * float((decisions[labels == c] == c).mean()) for c in range(N_CLASSES)]


@pytest.mark.parametrize("other", ["none", "shares", "mean", "temperature", "seed", "n_folds"])
def test_folds_are_told_all_that_is_chosen(store: Store, path: Path, other: str) -> None:
    head = load_head(path)
    labels = drawn_features(200, seed=1)[1]
    how: dict[str, Any] = {"mean": "geometric", "temperature": 5.0}
    where = {"seed": 3, "n_folds": 3}
    pool = pool_of_store(store, head, "val")
    found = score_balanced(store, head, pool, BalanceConfig(**how), shares=PARTS, **where)
    scores, logits = found.balanced, pool.logits
    unlike: dict[str, Any] = {
        "shares": (1.0,) * 4, "mean": "harmonic", "temperature": 1.5, "seed": 0, "n_folds": 5,
    }  # fmt: skip
    told = {"shares": PARTS, **how, **where}
    if other != "none":
        told[other] = unlike[other]
    folds = np.random.default_rng(told["seed"]).permutation(200) % told["n_folds"]
    expected = recalls(
        by_folds(logits, folds, told["shares"], told["mean"], told["temperature"]), labels
    )
    # What is told otherwise scores otherwise, so nothing of it goes unheard.
    assert (list(scores.recalls) == pytest.approx(expected)) == (other == "none")


def test_new_weights_are_the_mean_of_the_head_and_a_fit_to_its_pseudo_labels(
    store: Store, path: Path
) -> None:
    head = load_head(path)
    pool = pool_of_store(store, head)
    q = np.array(PARTS) / 10
    balanced = balance_head(head, pool, BalanceConfig(refit=0.5), shares=PARTS)
    found = refit(pool.features, pool.logits + matching_shifts(pool.logits, q), q, 0.5)
    moved = found.logits(pool.features, pool.logits)
    b = matching_shifts(moved, q)
    w = levelling_shifts(moved + b, q)
    assert balanced.head.weight == pytest.approx(0.5 * head.weight + found.weight, abs=1e-5)
    assert balanced.head.bias == pytest.approx(0.5 * head.bias + found.bias + b + w, abs=1e-3)
    decided = balanced.head.logits(pool.features) + np.log(q)
    assert balanced.decided_after == pytest.approx(decided_shares(decided), abs=0.01)
    # By folds: none of an image's own fold has a say.
    folds = np.random.default_rng(0).permutation(len(pool.logits)) % 5
    decisions = np.empty(len(folds), np.int64)
    for fold in range(5):
        others = folds != fold
        part = Pool(pool.logits[others], pool.features[others], "test", 0)
        fitted = balance_head(head, part, BalanceConfig(refit=0.5), shares=PARTS).head
        decisions[~others] = fitted.logits(pool.features[~others]).argmax(axis=1)
    scores = score_balanced(store, head, pool, BalanceConfig(refit=0.5), shares=PARTS).balanced
    assert list(scores.recalls) == pytest.approx(recalls(decisions, usable_labels(store)), abs=1.1)


def usable_labels(store: Store) -> Ints:
    return np.asarray(store["test"].labels[store["test"].usable])


def test_what_cannot_be_balanced_on(store: Store, path: Path) -> None:
    head = load_head(path)
    with pytest.raises(EvaluationError, match="use others, such as --split test"):
        pool_of_store(store, head, "train")
    with pytest.raises(EvaluationError, match="no split 'more'"):
        pool_of_store(store, head, "more")
    pool = pool_of_store(store, head)
    with pytest.raises(EvaluationError, match="4 classes needs the share of each, not 3"):
        balance_head(head, pool, shares=[1, 2, 3])
    with pytest.raises(EvaluationError, match="share of class 'c1' is 0"):
        balance_head(head, pool, shares=[1, 0, 3, 4])
    with pytest.raises(EvaluationError, match="share of class 'c2' is nan"):
        balance_head(head, pool, shares=[1, 2, float("nan"), 4])
    with pytest.raises(EvaluationError, match="share of class 'c0' is 4e-07 of all"):
        balance_head(head, pool, shares=[9e-7, 1, 1, 0.5])
    with pytest.raises(EvaluationError, match="seed of the folds is 0 or more, not -1"):
        score_balanced(store, head, pool, seed=-1)
    for n_folds in (1, 400):
        with pytest.raises(EvaluationError, match=f"2 to 399 folds, not {n_folds}"):
            score_balanced(store, head, pool, n_folds=n_folds)


def test_a_pool_is_scored_by_the_labels_of_its_split(store: Store, path: Path) -> None:
    head = load_head(path)
    for split in ("test", "val"):
        pool = pool_of_store(store, head, split)
        scores = score_balanced(store, head, pool, n_folds=2)
        assert scores.before == evaluate(store, head, split=split)
        assert scores.balanced.split == split
        names = {"before": scores.before.to_json(), "balanced": scores.balanced.to_json()}
        assert scores.to_json() == names
    for other, told in (
        (replace(pool, split=None), "Only images of a split of"),
        (replace(pool, split="more"), "Only images of a split of"),
        (replace(pool, split="test"), "399 usable images, the pool 200"),
    ):
        with pytest.raises(EvaluationError, match=told):
            score_balanced(store, head, other, n_folds=2)


def test_a_head_of_another_store(store: Store, path: Path, tmp_path: Path) -> None:
    foreign = made_store(tmp_path / "foreign", checkpoint="d" * 64)
    with pytest.raises(HeadError, match="fitted on another extraction than this store"):
        pool_of_store(foreign, load_head(path))
    out = tmp_path / "balanced.safetensors"
    said = nolb("balance-head", path, foreign.path, "--out", out, code=1).output
    assert "fitted on another extraction than this store" in said
    assert not out.exists()


def test_test_views_are_averaged_unless_they_are_declined(tmp_path: Path) -> None:
    views = np.stack([drawn_features(seed=seed)[0] for seed in (11, 12, 13)])
    store = made_store(tmp_path, views={"test": views})
    path = saved_head(store, tmp_path / "new.safetensors")
    head = load_head(path)
    features = drawn_features()[0]
    versions = {0: features, 3: (features + views.sum(axis=0)) / 4}
    logits = {
        n: np.delete(seen @ head.weight.T.astype(np.float64) + head.bias, 5, axis=0)
        for n, seen in versions.items()
    }
    biases = {}
    for asked, n in ((None, 3), (True, 3), (False, 0)):
        pool = pool_of_store(store, head, test_views=asked)
        assert (pool.split, pool.test_views) == ("test", n)
        assert pool.logits == pytest.approx(logits[n], abs=1e-4)
        balanced = balance_head(head, pool)
        assert balanced.head.provenance.balanced_for == n
        by_hand = balance_head(head, Pool(logits[n].astype(np.float32), pool.features, "test", n))
        assert balanced.head.bias == pytest.approx(by_hand.head.bias, abs=0.01)
        biases[n] = balanced.head.bias
        scores = score_balanced(store, head, pool, seed=4, n_folds=3).balanced
        folds = np.random.default_rng(4).permutation(399) % 3
        decisions = by_folds(pool.logits, folds, (1.0,) * N_CLASSES, "harmonic", TEMPERATURE)
        assert list(scores.recalls) == pytest.approx(
            recalls(decisions, np.delete(drawn_features()[1], 5))
        )
        assert (scores.test_views, scores.n_failed) == (n, 1)
    assert np.abs(biases[0] - biases[3]).max() > 0.1
    for flag, n in (("--test-views", 3), ("--no-test-views", 0)):
        out = tmp_path / f"{n}.safetensors"
        nolb("balance-head", path, store.path, "--out", out, flag)
        assert np.array_equal(load_head(out).bias, biases[n])
