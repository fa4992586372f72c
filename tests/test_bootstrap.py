from __future__ import annotations

import numpy as np
import pytest

from pipeline.bootstrap import cells_within_noise, paired_bootstrap
from pipeline.ensemble import LogitBlock
from pipeline.metrics import harmonic_mean, score_hits
from pipeline.plane import HitPlane, collect_hits, plane_members

LABELS = np.repeat(np.arange(4), 50)


def right(*shares: float, seed: int = 0) -> np.ndarray:
    """Rows that are right with a probability for each class."""
    return np.random.default_rng(seed).random(len(LABELS)) < np.repeat(shares, 50)


def test_values_are_the_metrics_and_intervals_hold_them() -> None:
    hits = right(0.9, 0.5, 0.3, 0.7)
    found = paired_bootstrap({"old": hits}, LABELS, 4, "test", replicates=200, seed=0)
    counts = [int(hits[c == LABELS].sum()) for c in range(4)]
    scores = score_hits(counts, [50] * 4, [9] * 4, list("abcd"))
    for name, estimate in found.values["old"].items():
        assert estimate.value == pytest.approx(getattr(scores, name))
        assert estimate.low < estimate.value < estimate.high
    assert found.differences == {}


def test_the_interval_of_accuracy_is_as_wide_as_its_standard_error() -> None:
    # Stratified: the variance is the mean of p (1 - p) over classes, by N = 200 rows.
    hits = right(0.9, 0.5, 0.3, 0.7)
    shares = np.array([hits[c == LABELS].mean() for c in range(4)])
    error = 100 * np.sqrt((shares * (1 - shares)).mean() / 200)
    found = paired_bootstrap({"old": hits}, LABELS, 4, "test", replicates=4000, seed=0)
    accuracy = found.values["old"]["accuracy"]
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_equal_classifiers_differ_by_nothing_in_every_replicate() -> None:
    hits = right(0.9, 0.5, 0.3, 0.7)
    found = paired_bootstrap({"a": hits, "b": hits}, LABELS, 4, "test", replicates=50, seed=0)
    for estimate in found.differences["b"].values():
        assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_what_both_get_wrong_does_not_blur_their_difference() -> None:
    hits = right(0.9, 0.5, 0.3, 0.7)
    better = hits.copy()
    better[np.flatnonzero(~hits)[:4]] = True
    pair = {"better": better, "other": hits}
    found = paired_bootstrap(pair, LABELS, 4, "test", replicates=500, seed=0)
    lead = found.differences["other"]["accuracy"]
    assert lead.value == pytest.approx(2.0)
    alone = found.values["other"]["accuracy"]
    assert lead.high - lead.low < (alone.high - alone.low) / 2


def test_the_seed_decides_and_json_is_plain() -> None:
    pair = {"a": right(0.9, 0.5, 0.3, 0.7), "b": right(0.5, 0.5, 0.5, 0.5, seed=1)}
    runs = [paired_bootstrap(pair, LABELS, 4, "val", replicates=30, seed=s) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    content = runs[0].to_json()
    assert content["split"] == "val"
    assert len(content["differences"]["b"]["harmonic_mean"]) == 3


def test_a_class_without_rows_is_in_no_mean() -> None:
    found = paired_bootstrap(
        {"a": right(0.9, 0.5, 0.3, 0.7)}, LABELS, 6, "test", replicates=30, seed=0
    )
    assert found.values["a"]["lowest_recall"].value > 0


def plane_of(hits: np.ndarray) -> HitPlane:
    """A plane of one row of cells whose hits (N, cells) are given."""
    rows = np.flatnonzero(hits.any(axis=1) & ~hits.all(axis=1))
    return HitPlane(
        shape=(1, hits.shape[1]), labels=LABELS, n_classes=4, always=hits.all(axis=1),
        varying=rows, bits=np.packbits(hits[rows], axis=1),
    )  # fmt: skip


def test_a_far_worse_cell_is_told_apart_and_an_equal_one_is_not() -> None:
    best = right(0.9, 0.8, 0.7, 0.8)
    nearly = best.copy()
    nearly[np.flatnonzero(best)[0]] = False
    worse = best & right(0.4, 0.4, 0.4, 0.4, seed=1)
    plane = plane_of(np.stack([best, best, nearly, worse], axis=1))
    within = cells_within_noise(plane, (0, 0), replicates=200, seed=0)
    assert within.tolist() == [[True, True, True, False]]


def test_cells_in_several_tiles_are_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(200, 4)) + 2 * np.eye(4)[LABELS] for _ in range(2)]
    grid = np.geomspace(0.25, 8, 6)
    plane = collect_hits(
        [LogitBlock(LABELS, tuple(logits), None)], plane_members(grid, grid), 4, threads=1
    )
    whole = cells_within_noise(plane, (2, 3), replicates=50, seed=0)
    monkeypatch.setattr("pipeline.bootstrap.TILE", 1)
    assert np.array_equal(cells_within_noise(plane, (2, 3), replicates=50, seed=0), whole)


def test_resampled_rows_have_the_mean_and_spread_of_drawing_with_replacement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 50 rows of a class: 20 always right, 10 right in the cell, 20 wrong: Binomial(50, 0.6), whose
    # mean is 30 and whose variance is 12; in parts of three rows as in one.
    from pipeline.bootstrap import _resampled_hits

    hits = np.zeros((200, 2), bool)
    hits[:20] = True
    hits[20:30, 0] = True
    plane = plane_of(hits)
    for rows in (512, 3):
        monkeypatch.setattr("pipeline.bootstrap.ROWS_UNPACKED", rows)
        generator = np.random.default_rng(0)
        drawn = _resampled_hits(plane, 0, slice(0, 2), generator, 20_000)
        assert drawn.mean(axis=0) == pytest.approx([30, 20], abs=0.1)
        assert drawn.var(axis=0) == pytest.approx([12, 12], rel=0.05)
        assert drawn.max() <= 50


def test_equally_good_cells_are_seldom_told_apart() -> None:
    # 12 cells with the same chances, a third of the rows of each drawn anew. Every cell is kept in
    # 95 % of the draws or more: of 30 draws more than 5 lose one once in 300 times. Without the
    # correction for the choice of the best one, 12 of these do.
    chances, lost = np.array([0.2, 0.5, 0.6, 0.8]), 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        shared = rng.random(len(LABELS)) < chances[LABELS]
        again = rng.random((len(LABELS), 12)) < 1 / 3
        others = rng.random((len(LABELS), 12)) < chances[LABELS, None]
        plane = plane_of(np.where(again, others, shared[:, None]))
        counts = np.concatenate([some for _, some in plane.counts()])
        best = int(harmonic_mean(100 * counts / 50).argmax())
        lost += not cells_within_noise(plane, (0, best), replicates=200, seed=seed).all()
    assert lost <= 5


def test_a_cell_of_few_hits_is_not_told_from_one_of_none() -> None:
    # 3 of 50 against 0 of 50 in one class: the harmonic means are 20 and 0.4.
    shared = right(0.9, 0.8, 0.7, 0.0)
    three = shared.copy()
    three[150:153] = True
    within = cells_within_noise(
        plane_of(np.stack([three, shared], axis=1)), (0, 0), replicates=200, seed=0
    )
    assert within.all()
    # 20 of 50 are: at 7.1 % the mean of the other cell is below 23, and that of this one is 63.
    twenty = shared.copy()
    twenty[150:170] = True
    within = cells_within_noise(
        plane_of(np.stack([twenty, shared], axis=1)), (0, 0), replicates=200, seed=0
    )
    assert within.tolist() == [[True, False]]
