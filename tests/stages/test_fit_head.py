"""The stage `fit_head` on stores in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import Classifier
from pipeline.config import FitConfig, build_config
from pipeline.errors import ConfigError, FitError, HeadError
from pipeline.fitting import store_rows
from pipeline.heads import load_head, require_same_identity, save_head
from pipeline.progress import Snapshot
from pipeline.provenance import Fitted
from pipeline.stages.fit_head import FitResult, fit_head, fit_heads
from pipeline.versions import versions
from tests.training_stores import LABELS, planted_features, training_store

CONFIG = FitConfig(epochs=20, batch_size=16, weight_decay=1e-3)


def same_head(one: FitResult, other: FitResult) -> bool:
    """Equal to the bit."""
    return bool(
        (one.head.weight == other.head.weight).all() and (one.head.bias == other.head.bias).all()
    )


def test_every_planted_class_is_found() -> None:
    features = planted_features()
    result = fit_head(training_store(features), CONFIG)
    predictions = result.head.logits(planted_features(seed=1)[0]).argmax(axis=1)
    for c in range(3):
        assert (predictions[c == LABELS] == c).mean() >= 0.9
    assert result.n_samples == 54
    assert result.n_views == 0
    assert len(result.losses) == 20
    assert result.losses[-1] < result.losses[0]
    assert result.seconds > 0


def test_the_head_carries_its_provenance() -> None:
    store = training_store(planted_features())
    head = fit_head(store, CONFIG).head
    assert head.identity == store.identity
    assert head.class_names == ("head", "medium", "tail")
    assert head.class_counts == (40, 10, 4)
    assert head.provenance == Fitted(CONFIG.resolved())
    assert head.versions == versions()
    require_same_identity(head, store)
    with pytest.raises(HeadError, match="backbone"):
        require_same_identity(head, training_store(planted_features(), backbone="y"))


def test_failed_rows_are_left_out() -> None:
    # A store in which rows failed gives the head of a store that never had them.
    failed = {0: "truncated", 19: "no image", 45: "empty"}
    broken = planted_features(n_views=2)
    broken[:, list(failed)] = np.nan
    kept = np.setdiff1d(np.arange(54), list(failed))
    result = fit_head(training_store(broken, failures=failed), CONFIG)
    expected = fit_head(training_store(broken[:, kept], LABELS[kept]), CONFIG)
    assert same_head(result, expected)
    assert result.n_samples == 51
    assert result.head.class_counts == (38, 9, 4)


def test_how_the_store_was_cut_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features = planted_features(n_views=2)
    whole = fit_head(training_store(features, shard_rows=100), CONFIG)
    monkeypatch.setattr(store_rows, "BLOCK_ROWS", 7)
    assert same_head(fit_head(training_store(features, shard_rows=9), CONFIG), whole)


def test_views_are_used_where_asked_for() -> None:
    # The clean features say nothing, so only the views can have taught the classes.
    features = planted_features(n_views=3)
    features[0] = 0
    store, unseen = training_store(features), planted_features(seed=1)[0]
    with_views = fit_head(store, CONFIG)
    without = fit_head(store, replace(CONFIG, views=False))
    assert (with_views.n_views, without.n_views) == (3, 0)
    right = with_views.head.logits(unseen).argmax(axis=1) == LABELS
    assert all(right[c == LABELS].mean() >= 0.9 for c in range(3))
    assert same_head(without, fit_head(training_store(features[:1]), replace(CONFIG, views=False)))


def test_float16_features_are_fitted_as_the_float32_numbers_that_they_are() -> None:
    half = planted_features(n_views=1).astype(np.float16)
    assert same_head(
        fit_head(training_store(half), CONFIG),
        fit_head(training_store(half.astype(np.float32)), CONFIG),
    )


def test_gml_lifts_the_smallest_class() -> None:
    # 400 rows against 20 whose centre lies 1.5 away, standard deviation 0.5. The Bayes border
    # under these priors is log(400 / 20) * 0.5^2 / 1.5 = 0.5 beyond the middle, which leaves the
    # small class Phi((0.75 - 0.5) / 0.5) = 69 %; with equal priors it would have
    # Phi(0.75 / 0.5) = 93 %. GML weighs classes equally and takes out the prior besides.
    generator = np.random.default_rng(0)
    centres = np.array([[0, 0], [0, 2], [1.5, 0]])
    labels, balanced = np.repeat([0, 1, 2], [400, 40, 20]), np.repeat([0, 1, 2], 500)
    features = (centres[labels] + generator.normal(0, 0.5, (1, 460, 2))).astype(np.float32)
    unseen = (centres[balanced] + generator.normal(0, 0.5, (1500, 2))).astype(np.float32)
    store = training_store(features, labels)
    recall = {}
    for loss in ("cross-entropy", "gml"):
        config = build_config(FitConfig, loss=loss, epochs=50)
        predictions = fit_head(store, config).head.logits(unseen).argmax(axis=1)
        recall[loss] = (predictions[balanced == 2] == 2).mean()
    assert recall["cross-entropy"] < 0.75
    assert recall["gml"] > 0.93


def test_progress_is_told_after_each_epoch() -> None:
    seen: list[Snapshot] = []
    fit_head(training_store(planted_features()), replace(CONFIG, epochs=3), on_progress=seen.append)
    assert [(s.done, s.total) for s in seen] == [(1, 3), (2, 3), (3, 3)]


def test_a_class_without_training_rows_is_named() -> None:
    present = LABELS[LABELS != 2]
    with pytest.raises(FitError, match="Class 'tail' has no usable training row"):
        fit_head(training_store(planted_features()[:, LABELS != 2], present), CONFIG)
    failed = dict.fromkeys(np.flatnonzero(LABELS > 0).tolist(), "unreadable")
    with pytest.raises(FitError, match=r"Class 'medium' \(and 1 more\)"):
        fit_head(training_store(planted_features(), failures=failed), CONFIG)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The writer refuses such rows and the reader checks for them, so the store is changed in hand.
    store = training_store(planted_features(), failures={3: "unreadable"})
    read = type(store["train"]).features

    def changed(split: Any, start: int = 0, stop: int | None = None) -> Any:
        features = np.array(read(split, start, stop))
        if start <= 30 < (stop or 54):
            features[30 - start, 1] = value
        return features

    monkeypatch.setattr(type(store["train"]), "features", changed)
    monkeypatch.setattr(store_rows, "BLOCK_ROWS", 25)
    with pytest.raises(FitError, match=r"row 30 \(train/30\) are not finite"):
        fit_head(store, CONFIG)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="cuda:9"):
        fit_head(training_store(planted_features()), replace(CONFIG, device="cuda:9"))


def test_many_heads_of_a_store_are_those_of_single_fits() -> None:
    store = training_store(planted_features(n_views=2))
    configs = [
        replace(CONFIG, epochs=3, seed=seed, lr=lr, views=views)
        for seed in (0, 1) for lr in (0.1, 0.02) for views in (True, False)
    ]  # fmt: skip
    results = fit_heads(store, configs)
    for config, result in zip(configs, results, strict=True):
        assert result is not None
        alone = fit_head(store, config)
        np.testing.assert_allclose(result.head.weight, alone.head.weight, atol=2e-5)
        np.testing.assert_allclose(result.losses, alone.losses, atol=2e-5)
        assert result.head.provenance == Fitted(config.resolved())
        assert result.n_views == alone.n_views == (2 if config.views else 0)
    assert fit_heads(store, []) == []


def test_a_head_that_diverged_is_none_among_the_others() -> None:
    wild = replace(CONFIG, lr=1e30, weight_decay=1.0)
    calm, gone = fit_heads(training_store(planted_features()), [CONFIG, wild])
    assert gone is None
    assert calm is not None
    assert np.isfinite(calm.head.weight).all()


def test_heads_fitted_together_need_one_memory() -> None:
    with pytest.raises(ConfigError, match="one device and one memory"):
        fit_heads(training_store(planted_features()), [CONFIG, replace(CONFIG, memory="4GiB")])


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_stores_old_head_is_taken_with_its_scale(normalized: bool, scale: float) -> None:
    # With the norms left as they are (power 0) and without a bias, a tau-normalised head is the
    # old one, and its logits are those that the store gives.
    weight = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    old = Classifier(weight, scale=scale, normalized=normalized)
    features = planted_features()
    store = training_store(features, old=old)
    head = fit_head(store, FitConfig(head="tau-normalised", norm_power=0)).head
    assert head.normalized is normalized
    np.testing.assert_allclose(head.logits(features[0]), old.logits(features[0]), atol=1e-5)


def test_a_head_that_needs_the_old_one_wants_a_store_with_it() -> None:
    for settings in ({"loss": "gml+distillation"}, {"head": "learnable-scaling"}):
        with pytest.raises(FitError, match="nolb adopt-head"):
            fit_head(training_store(planted_features()), build_config(FitConfig, settings))


def test_a_head_on_normalised_features_is_saved_as_one(tmp_path: Path) -> None:
    features = planted_features()
    head = fit_head(training_store(features), replace(CONFIG, head="cosine")).head
    save_head(head, tmp_path / "head.safetensors")
    loaded = load_head(tmp_path / "head.safetensors")
    assert loaded.normalized
    logits = loaded.logits(features[0])
    np.testing.assert_array_equal(logits, head.logits(features[0]))
    np.testing.assert_allclose(logits, loaded.logits(3 * features[0]), atol=1e-4)
    assert abs(logits).max() <= 16 + 1e-3  # the scale of the cosines


def test_convergence_is_told() -> None:
    result = fit_head(training_store(planted_features()), replace(CONFIG, solver="l-bfgs"))
    assert result.convergence is not None
    assert result.convergence.iterations == len(result.losses)
    assert fit_head(training_store(planted_features()), CONFIG).convergence is None
