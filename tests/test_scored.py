from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline import scored
from pipeline.config import BalanceConfig, FitConfig
from pipeline.ensemble import mixture_predictions
from pipeline.errors import EvaluationError, HeadError
from pipeline.mixture import Mixture
from pipeline.provenance import Averaged, Balanced, Fitted
from pipeline.scored import ScoredSplit, is_scorable, scored_split
from pipeline.seen_views import averaged_views, mean_features
from tests.measured_stores import planted_head, planted_store


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
        list(scored_split(store, "test").blocks([head]))  # type: ignore[list-item]  # a stand-in


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_nan_or_infinite_old_logits_are_named_by_their_sample(wrong: float) -> None:
    store = rack(np.zeros((2, 2)), [[0, 0], [1, wrong]])
    with pytest.raises(EvaluationError, match=r"NaN or infinite old logits .*'image-1'"):
        list(scored_split(store, "test").blocks([None]))


def test_a_class_that_cannot_be_predicted_is_no_error() -> None:
    (block,) = scored_split(rack(np.zeros((1, 2)), [[-np.inf, 0]]), "test").blocks([None])
    assert block.logits[0].argmax(axis=1).tolist() == [1]


def test_blocks_hold_the_usable_rows_in_order_with_every_heads_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(53, 3)), rng.integers(0, 3, 53)
    failures = {0: "torn", 17: "torn", 52: "torn"}
    store = planted_store(tmp_path, {"train": (features, labels)}, failures={"train": failures})
    head = planted_head(store, rng.normal(size=(3, 3)))
    monkeypatch.setattr(scored, "READ_BYTES", 1)  # the smallest blocks: 16 rows
    blocks = list(scored_split(store, "train").blocks([None, head]))
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
    split = scored_split(store, "train")
    whole = split.predictions([head], Mixture((2.0, 0.5)))
    monkeypatch.setattr(scored, "READ_BYTES", 1)
    parts = split.predictions([head], Mixture((2.0, 0.5)))
    assert np.array_equal(whole, parts)
    heads = store["train"].logits(), head.logits(store["train"].features())
    direct = mixture_predictions(heads, (2.0, 0.5))
    assert np.array_equal(whole, direct)


def test_a_missing_split_and_one_without_usable_rows_are_refused(tmp_path: Path) -> None:
    planted = {"train": (np.eye(2), [0, 1]), "test": (np.eye(2), [0, 1])}
    store = planted_store(tmp_path, planted, failures={"test": {0: "torn", 1: "torn"}})
    with pytest.raises(EvaluationError, match="no split 'val': it holds 'train', 'test'"):
        scored_split(store, "val")
    with pytest.raises(EvaluationError, match="cannot be scored: all 2 images failed"):
        scored_split(store, "test")


def store_of_views(folder: Path, views: np.ndarray, **how: Any) -> Any:
    """53 rows of four classes on `test`, of which three failed, with these views (V, N, D)."""
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(53, 4)), rng.integers(0, 4, 53)
    return planted_store(
        folder, {"train": (np.eye(4), range(4)), "test": (features, labels)},
        views={"test": features + views}, failures={"test": {0: "a", 17: "b", 52: "c"}}, **how,
    )  # fmt: skip


def all_logits(store: Any, head: Any, test_views: bool | None = None) -> list[np.ndarray]:
    blocks = list(scored_split(store, "test", test_views=test_views).blocks([None, head]))
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
    monkeypatch.setattr(scored, "READ_BYTES", 1)  # blocks of 16 rows
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
    for how, n_views in ((None, 2), (True, 2), (False, 0)):
        assert scored_split(store, "test", test_views=how).scores().test_views == n_views
    assert scored_split(store, "test").scores().to_json()["test_views"] == 2


def test_views_for_the_fit_are_never_averaged(tmp_path: Path) -> None:
    planted = {"train": (np.eye(4), range(4)), "test": (np.eye(4), range(4))}
    store = planted_store(tmp_path, planted, views={"train": np.ones((3, 4, 4))})
    assert averaged_views(store, "train") == averaged_views(store, "test") == 0
    assert scored_split(store, "train").scores().accuracy == 100
    for split, remedy in (("train", "those for the fit"), ("test", "extract with --test-views")):
        with pytest.raises(EvaluationError, match=f"no test views of '{split}'.*{remedy}"):
            scored_split(store, split, test_views=True)


def test_a_half_precision_mean_is_summed_in_full() -> None:
    # In float16, 2048 + 1 is 2048 again, and the mean of these four would be 512.
    versions = [np.full((1, 1), value, np.float16) for value in (2048, 1, 1, 1)]
    mean = mean_features(versions)
    assert (mean.dtype, mean.item()) == (np.float32, 512.75)


OLD, FITTED = None, Fitted(FitConfig())
CLEAN, VIEWED = (Balanced(FITTED, "val", n, 9, None, BalanceConfig()) for n in (0, 2))
MEAN = Averaged((FITTED, CLEAN), (1.0, 1.0))
WHERE_STORED, NEVER, CONTRADICTION = 2, 0, HeadError
SUITED = [
    ((), WHERE_STORED),
    ((OLD,), WHERE_STORED),
    ((FITTED,), WHERE_STORED),
    ((VIEWED,), WHERE_STORED),
    ((OLD, FITTED, VIEWED), WHERE_STORED),
    ((CLEAN,), NEVER),
    ((OLD, FITTED, CLEAN), NEVER),
    ((CLEAN, CLEAN), NEVER),
    ((CLEAN, VIEWED), CONTRADICTION),
    ((OLD, VIEWED, FITTED, CLEAN), CONTRADICTION),
    ((MEAN,), NEVER),
    ((MEAN, VIEWED), CONTRADICTION),
]
"""Heads by what became of them, and what is seen where nobody says it and two views are stored."""


@pytest.mark.parametrize(("histories", "suited"), SUITED)
@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("asked", [None, True, False])
def test_what_is_seen_is_what_was_asked_for_or_else_what_is_there_and_suits(
    tmp_path: Path, histories: Any, suited: Any, split: str, asked: bool | None
) -> None:
    rows = (np.eye(4), range(4))
    store = planted_store(  # two views of each, but none of val; those of train are for the fit
        tmp_path, {"train": rows, "val": rows, "test": rows},
        views={"train": np.zeros((2, 4, 4)), "test": np.zeros((2, 4, 4))},
    )  # fmt: skip
    heads = [None if each is OLD else SimpleNamespace(provenance=each) for each in histories]
    wanted: Any = {None: suited, True: 2, False: 0}[asked]
    if split != "test":
        wanted = EvaluationError if asked else 0  # where none are stored, nothing is decided
    if isinstance(wanted, int):
        found = scored_split(store, split, heads, asked)
        assert (found.name, found.test_views) == (split, wanted)
        assert averaged_views(store, split, heads, asked) == wanted
    else:
        for settles in (scored_split, averaged_views):
            with pytest.raises(wanted, match=r"no test views of|balanced differently"):
                settles(store, split, heads, asked)


def test_what_was_settled_is_kept_for_heads_that_would_have_it_otherwise(tmp_path: Path) -> None:
    store = store_of_views(tmp_path, np.ones((2, 53, 4)))
    for history in (FITTED, CLEAN, VIEWED):
        head = dataclasses.replace(planted_head(store, np.eye(4)), provenance=history)
        for n_views in (0, 2):
            split = ScoredSplit(store, "test", n_views)
            each = [split.scores(), split.scores([head]), *split.scores_of_each([head]).values()]
            assert {scores.test_views for scores in each} == {n_views}


def test_a_split_says_what_of_it_is_scored(tmp_path: Path) -> None:
    store = store_of_views(tmp_path, np.zeros((1, 53, 4)))
    split = scored_split(store, "test")
    assert (split.n_samples, split.n_failed) == (50, 3)
    assert np.array_equal(split.labels, np.delete(store["test"].labels, [0, 17, 52]))
    scores = split.scores()
    assert (scores.n_samples, scores.n_failed, scores.split) == (50, 3, "test")
    assert scores == split.scores_of(split.predictions(), "old")
    assert scores.accuracy == pytest.approx(100 * (split.predictions() == split.labels).mean())


def test_who_made_the_predictions_is_told(tmp_path: Path) -> None:
    store = store_of_views(tmp_path, np.zeros((1, 53, 4)))
    split, heads = scored_split(store, "test"), [planted_head(store, np.eye(4))] * 2
    assert [split.scores(of).predictor for of in ((), heads[:1])] == ["old", "new"]
    together = split.scores(heads, Mixture((1, 2, 3)))
    assert (together.predictor, together.temperatures) == ("ensemble", (1.0, 2.0, 3.0))
    assert list(split.scores_of_each(heads)) == ["old", "new 1", "new 2"]
    with pytest.raises(EvaluationError, match="2 heads predict together with the old one"):
        split.predictions(heads)


def test_a_store_without_an_old_head_is_refused_where_that_is_named(tmp_path: Path) -> None:
    views = np.zeros((1, 53, 4))
    store = store_of_views(tmp_path, views, weight=np.zeros((4, 4)))
    head = planted_head(store, np.eye(4))
    split = scored_split(store, "test", [head])
    assert list(split.scores_of_each([head])) == ["new"]
    for refused in (lambda: scored_split(store, "test", [None]), split.predictions):
        with pytest.raises(EvaluationError, match="holds features and no old head"):
            refused()


def test_whether_a_split_can_be_scored(tmp_path: Path) -> None:
    planted = {"train": (np.eye(2), [0, 1]), "test": (np.eye(2), [0, 1])}
    store = planted_store(tmp_path, planted, failures={"test": {0: "torn", 1: "torn"}})
    assert [is_scorable(store, name) for name in ("train", "test", "val")] == [True, False, False]
