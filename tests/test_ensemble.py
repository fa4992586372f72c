from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline import ensemble
from pipeline.ensemble import (
    averaged_views,
    ensemble_predictions,
    ensemble_probabilities,
    logit_blocks,
    mean_features,
    mixture_probabilities,
    predict_split,
    score_split,
    softmax,
    softmaxes,
)
from pipeline.errors import EvaluationError
from pipeline.mixture import Mixture
from tests.measured_stores import planted_head, planted_store

logit_rows = st.integers(1, 6).flatmap(
    lambda c: arrays(np.float64, (3, c), elements=st.floats(-50, 50, width=32))
)
temperatures = st.floats(0.05, 50)


def test_softmax_golden() -> None:
    # logits 0 and log 3 at t = 1: 1/4 and 3/4; at t = 1/2 the ratio is squared: 1/10 and 9/10.
    logits = np.array([[0.0, np.log(3)]])
    assert softmax(logits)[0] == pytest.approx([0.25, 0.75])
    assert softmax(logits, 0.5)[0] == pytest.approx([0.1, 0.9])


def test_ensemble_golden() -> None:
    # old at t = 1: (1/4, 3/4); new at t = 2, logits 2 log 4 and 0: (4/5, 1/5).
    # Eq. (11): ((1/4 + 4/5) / 2, (3/4 + 1/5) / 2) = (0.525, 0.475): the new head prevails.
    old, new = np.array([[0.0, np.log(3)]]), np.array([[2 * np.log(4), 0.0]])
    assert ensemble_probabilities(old, new, 1, 2)[0] == pytest.approx([0.525, 0.475])
    assert ensemble_predictions(old, new, 1, 2).tolist() == [0]
    # t_new = 4 takes the new head to (2/3, 1/3): (0.458, 0.542), and the old head prevails.
    assert ensemble_predictions(old, new, 1, 4).tolist() == [1]


@pytest.mark.parametrize("weights", [(0, 0), (1, 0), (1, -1), (1, math.inf), (1,), (math.nan, 1)])
def test_weights_that_mix_nothing_are_refused(weights: tuple[float, ...]) -> None:
    logits = [np.zeros((1, 2))] * 2
    with pytest.raises(EvaluationError, match=r"of 2 heads, .* needs 2 weights, each above 0"):
        mixture_probabilities(logits, (1, 1), weights)


def test_softmax_is_float64_whatever_comes() -> None:
    assert softmax(np.zeros((2, 3), np.float32)).dtype == np.float64


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1.0, 1e300])
def test_extreme_temperatures_and_logits_stay_probabilities(temperature: float) -> None:
    logits = np.array([[1e300, -1e300, 0.0], [-np.inf, 5.0, 4.0], [7.0, 7.0, 7.0]])
    probabilities = softmax(logits, temperature)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert probabilities[1, 0] == 0


def test_ties_go_to_the_lower_class() -> None:
    tied = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    assert ensemble_predictions(tied, tied).tolist() == [1, 0]
    # Mirrored heads tie exactly: p = (a + b) / 2 on both sides.
    assert ensemble_predictions(np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])).tolist() == [0]


@given(logit_rows, temperatures, temperatures)
def test_swapping_heads_with_their_temperatures_changes_nothing(
    logits: np.ndarray, t_old: float, t_new: float
) -> None:
    other = logits[:, ::-1]
    one = ensemble_probabilities(logits, other, t_old, t_new)
    assert np.array_equal(one, ensemble_probabilities(other, logits, t_new, t_old))


@given(logit_rows, temperatures)
def test_a_temperature_keeps_the_order_within_one_head(logits: np.ndarray, t: float) -> None:
    probabilities = softmax(logits, t)
    order = np.argsort(logits, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(probabilities, order, axis=1), axis=1) >= 0).all()


@given(logit_rows, temperatures, st.floats(-100, 100))
def test_a_shift_of_all_logits_changes_nothing(logits: np.ndarray, t: float, shift: float) -> None:
    assert softmax(logits + shift, t) == pytest.approx(softmax(logits, t), abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_the_memory_order_of_the_logits_changes_no_bit(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(7, 300))
    one = softmax(logits, 0.7)
    assert np.array_equal(one, softmax(np.asfortranarray(logits), 0.7))
    assert np.array_equal(one, softmax(np.repeat(logits, 2, axis=1)[:, ::2], 0.7))


@given(logit_rows, st.lists(temperatures, min_size=1, max_size=3))
def test_many_temperatures_are_bitwise_each_on_its_own(
    logits: np.ndarray, grid: list[float]
) -> None:
    together = softmaxes(logits, grid)
    for t, probabilities in zip(grid, together, strict=True):
        assert np.array_equal(probabilities, softmax(logits, t))


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_must_be_above_zero(temperature: float) -> None:
    with pytest.raises(EvaluationError, match="number above 0"):
        softmax(np.zeros((1, 2)), temperature)


def test_heads_of_different_sizes_are_refused() -> None:
    with pytest.raises(EvaluationError, match="logits of one shape"):
        ensemble_probabilities(np.zeros((2, 3)), np.zeros((2, 4)))


@dataclass
class Rows:
    """A split as the reader sees it, free to hold what a store would refuse to write."""

    values: np.ndarray
    old: np.ndarray
    name: str = "test"
    n_views: int = 0

    @property
    def n_samples(self) -> int:
        return len(self.values)

    @property
    def usable(self) -> np.ndarray:
        return np.ones(len(self.values), bool)

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self.values), np.int64)

    @property
    def ids(self) -> list[str]:
        return [f"image-{i}" for i in range(len(self.values))]

    def features(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]

    def logits(self, start: int, stop: int) -> np.ndarray:
        return self.old[start:stop]


class Rack(dict[str, Rows]):
    """A store of such splits, C = D = 2."""

    path = Path("rack.memory")
    splits = ("test",)
    classifier = SimpleNamespace(weight=np.eye(2), bias=None)


def rack(values: Any, old: Any) -> Any:
    return Rack(test=Rows(np.asarray(values, np.float32), np.asarray(old, np.float32)))


def test_nan_features_are_named_by_their_sample() -> None:
    head = SimpleNamespace(logits=lambda features: features)
    store = rack([[0, 0], [0, np.nan], [np.nan, 0]], np.zeros((3, 2)))
    with pytest.raises(EvaluationError, match=r"NaN or infinite features .*'image-1' \(row 1\)"):
        list(logit_blocks(store, "test", [head]))  # type: ignore[list-item]  # a stand-in


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_nan_or_infinite_old_logits_are_named_by_their_sample(wrong: float) -> None:
    store = rack(np.zeros((2, 2)), [[0, 0], [1, wrong]])
    with pytest.raises(EvaluationError, match=r"NaN or infinite old logits .*'image-1'"):
        list(logit_blocks(store, "test", [None]))


def test_a_class_that_cannot_be_predicted_is_no_error() -> None:
    (block,) = logit_blocks(rack(np.zeros((1, 2)), [[-np.inf, 0]]), "test", [None])
    assert block.logits[0].argmax(axis=1).tolist() == [1]


def test_blocks_hold_the_usable_rows_in_order_with_every_heads_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(53, 3)), rng.integers(0, 3, 53)
    failures = {0: "torn", 17: "torn", 52: "torn"}
    store = planted_store(tmp_path, {"train": (features, labels)}, failures={"train": failures})
    head = planted_head(store, rng.normal(size=(3, 3)))
    monkeypatch.setattr(ensemble, "READ_BYTES", 1)  # the smallest blocks: 16 rows
    blocks = list(logit_blocks(store, "train", [None, head]))
    assert len(blocks) == 4
    usable = np.delete(np.arange(53), list(failures))
    assert np.array_equal(np.concatenate([b.labels for b in blocks]), labels[usable])
    old, new = (np.concatenate(parts) for parts in zip(*(b.logits for b in blocks), strict=True))
    clean = features[usable].astype(np.float32)
    assert np.array_equal(old, clean)  # the old head of a planted store is the identity
    assert new == pytest.approx(clean @ head.weight.T, abs=1e-6)


def test_block_size_changes_no_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(40, 4)), rng.integers(0, 4, 40)
    store = planted_store(tmp_path, {"train": (features, labels)})
    head = planted_head(store, rng.normal(size=(4, 4)))
    whole, _ = predict_split(store, "train", head, Mixture((2.0, 0.5)))
    monkeypatch.setattr(ensemble, "READ_BYTES", 1)
    parts, _ = predict_split(store, "train", head, Mixture((2.0, 0.5)))
    assert np.array_equal(whole, parts)
    direct = ensemble_predictions(
        store["train"].logits(), head.logits(store["train"].features()), 2.0, 0.5
    )
    assert np.array_equal(whole, direct)


def test_a_missing_split_and_one_without_usable_rows_are_refused(tmp_path: Path) -> None:
    planted = {"train": (np.eye(2), [0, 1]), "test": (np.eye(2), [0, 1])}
    store = planted_store(tmp_path, planted, failures={"test": {0: "torn", 1: "torn"}})
    with pytest.raises(EvaluationError, match="no split 'val': it holds 'train', 'test'"):
        predict_split(store, "val")
    with pytest.raises(EvaluationError, match="cannot be scored: all 2 images failed"):
        score_split(store, "test")


def store_of_views(folder: Path, views: np.ndarray, **how: Any) -> Any:
    """53 rows of four classes on `test`, of which three failed, with these views (V, N, D)."""
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(53, 4)), rng.integers(0, 4, 53)
    return planted_store(
        folder, {"train": (np.eye(4), range(4)), "test": (features, labels)},
        views={"test": features + views}, failures={"test": {0: "a", 17: "b", 52: "c"}}, **how,
    )  # fmt: skip


def all_logits(store: Any, head: Any, test_views: bool | None = None) -> list[np.ndarray]:
    blocks = list(logit_blocks(store, "test", [None, head], test_views))
    return [np.concatenate(parts) for parts in zip(*(b.logits for b in blocks), strict=True)]


@pytest.mark.parametrize("n_views", [1, 2, 6])  # sums of 2, 3 and 7: powers of two, and others
def test_the_mean_of_equal_views_is_the_clean_feature_to_the_bit(
    tmp_path: Path, n_views: int
) -> None:
    store = store_of_views(tmp_path, np.zeros((n_views, 53, 4)))
    head = planted_head(store, np.random.default_rng(3).normal(size=(4, 4)))
    for clean, mean in zip(all_logits(store, head, False), all_logits(store, head), strict=True):
        assert clean.tobytes() == mean.tobytes()


def test_every_head_sees_the_mean_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(4, 4))
    store = store_of_views(tmp_path, rng.normal(size=(2, 53, 4)), weight=weight)
    head = planted_head(store, rng.normal(size=(4, 4)))
    split = store["test"]
    mean = np.concatenate([split.features()[None], split.views()]).astype(np.float64).mean(axis=0)
    mean = mean[split.usable]
    old, new = all_logits(store, head)
    assert old == pytest.approx(mean @ weight.T, abs=1e-5)
    assert new == pytest.approx(mean @ head.weight.T, abs=1e-5)
    clean_old, clean_new = all_logits(store, head, False)
    assert clean_old == pytest.approx(split.logits()[split.usable], abs=0)
    assert np.abs(clean_new - new).max() > 0.1
    monkeypatch.setattr(ensemble, "READ_BYTES", 1)  # blocks of 16 rows
    for whole, parts in zip((old, new), all_logits(store, head), strict=True):
        assert parts == pytest.approx(whole, abs=1e-5)


def test_cosines_are_to_the_direction_of_the_mean_feature(tmp_path: Path) -> None:
    views = np.zeros((1, 53, 4))
    views[0, :, 0] = 100.0  # longer than all others, so the mean points its way
    store = store_of_views(tmp_path, views, normalized=True)
    old, _ = all_logits(store, planted_head(store, np.eye(4)))
    assert (old[:, 0] > 0.99).all()
    clean, _ = all_logits(store, planted_head(store, np.eye(4)), False)
    assert not (clean[:, 0] > 0.99).any()


def test_scores_say_how_many_views_were_averaged(tmp_path: Path) -> None:
    store = store_of_views(tmp_path, np.zeros((2, 53, 4)))
    assert [score_split(store, "test", test_views=how).test_views for how in (None, True, False)] == [2, 2, 0]  # fmt: skip  # noqa: E501
    assert score_split(store, "test").to_json()["test_views"] == 2


def test_views_for_the_fit_are_never_averaged(tmp_path: Path) -> None:
    planted = {"train": (np.eye(4), range(4)), "test": (np.eye(4), range(4))}
    store = planted_store(tmp_path, planted, views={"train": np.ones((3, 4, 4))})
    assert averaged_views(store, "train") == averaged_views(store, "test") == 0
    assert score_split(store, "train").accuracy == 100
    for split, remedy in (("train", "those for the fit"), ("test", "extract with --test-views")):
        with pytest.raises(EvaluationError, match=f"no test views of '{split}'.*{remedy}"):
            predict_split(store, split, test_views=True)


def test_a_half_precision_mean_is_summed_in_full() -> None:
    # In float16, 2048 + 1 is 2048 again, and the mean of these four would be 512.
    versions = [np.full((1, 1), value, np.float16) for value in (2048, 1, 1, 1)]
    mean = mean_features(versions)
    assert (mean.dtype, mean.item()) == (np.float32, 512.75)
