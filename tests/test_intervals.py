"""Exact ends, the lowest of several recalls, and how often intervals hold a known truth."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from pipeline.bootstrap import paired_bootstrap
from pipeline.intervals import basic_interval, exact_ends, lowest_ends, lowest_interval
from pipeline.metrics import Ints, harmonic_mean, score_hits, wilson_interval
from pipeline.small_counts import ENOUGH_HITS, few_ends, have_few_hits, small_count_limits
from pipeline.tables import bootstrap_table

ENDS = np.array([0.025, 0.975])


def of(*values: int) -> Ints:
    return np.array(values, np.int64)


def test_exact_ends_are_those_of_clopper_and_pearson() -> None:
    # 5 of 50: the published interval is 3.33 to 21.81. None of 100: 1 - 0.025 ** (1 / 100).
    found = exact_ends(ENDS, of(5, 0, 100), of(50, 100, 100))
    assert found[:, 0] == pytest.approx([3.3275, 21.8135], abs=1e-3)
    assert found[:, 1] == pytest.approx([0, 3.6217], abs=1e-3)
    assert found[:, 2] == pytest.approx([96.3783, 100], abs=1e-3)


def test_exact_ends_are_what_scipy_s_exact_interval_is() -> None:
    for hits, n in product((0, 1, 4, 7), (7, 20, 333)):
        known = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
        found = exact_ends(ENDS, of(hits), of(n))[:, 0]
        assert found == pytest.approx([100 * known.low, 100 * known.high])


def test_a_class_of_one_hit_never_counts_less_than_one_of_none() -> None:
    # At a level of 0.001 one hit of 100 lies at 0.001 %: a mean takes 0.1 %, as it does for zero.
    levels = np.array([0.001, 0.6])
    assert exact_ends(levels, of(1), of(100))[0, 0] == pytest.approx(0.001, rel=0.01)
    assert few_ends(levels, of(1, 0), of(100, 100))[0].tolist() == [pytest.approx(0.1), 0.0]
    assert few_ends(levels, of(0), of(5000))[1, 0] == pytest.approx(0.1)


def test_ends_of_many_classes_are_each_one_s_own() -> None:
    levels, rng = np.array([0.025, 0.3, 0.7, 0.975]), np.random.default_rng(0)
    samples = rng.integers(1, 9, 60)
    hits = rng.integers(0, samples + 1)
    alone = [few_ends(levels, of(h), of(n)) for h, n in zip(hits, samples, strict=True)]
    assert np.array_equal(few_ends(levels, hits, samples), np.hstack(alone))


def test_few_hits_are_fewer_than_enough_of_some_samples() -> None:
    found = have_few_hits(of(0, ENOUGH_HITS - 1, ENOUGH_HITS, 0), of(9, 9, 9, 0))
    assert found.tolist() == [True, True, False, False]


def test_the_lowest_of_one_class_is_its_own() -> None:
    levels = np.array([0.025, 0.4, 0.6, 0.975])
    for hits in (0, 5, 50):
        own = exact_ends(levels, of(hits), of(50))[:, 0]
        assert lowest_ends(levels, of(hits), of(50)) == pytest.approx(own, abs=0.05)


def test_the_lowest_of_ten_classes_without_a_hit() -> None:
    # None of 10 times 100 images: 1 - 0.025 ** (1 / 1000) = 0.3682 %, not the 3.6 % of one class.
    found = lowest_ends(ENDS, np.zeros(10, np.int64), np.full(10, 100))
    assert found == pytest.approx([0, 0.3682], abs=1e-3)


def slow_chance(hits: Ints, n: int, recall: float) -> float:
    """Chance of a lowest class as low as found, or of as many such, counted over all outcomes."""
    lowest = hits.min()
    ties = int((hits == lowest).sum())
    lower = [stats.binomtest(int(k), n).proportion_ci(0.95, method="exact").low for k in hits]
    chances = [stats.binom.pmf(np.arange(n + 1), n, max(recall, low)) for low in lower]
    fewer, as_few = 0.0, 0.0
    for outcome in product(range(n + 1), repeat=len(hits)):
        chance = float(np.prod([one[k] for one, k in zip(chances, outcome, strict=True)]))
        fewer += chance * (ties > 1 and min(outcome) < lowest)
        as_few += chance * (sum(k <= lowest for k in outcome) >= ties)
    return fewer + as_few


@pytest.mark.parametrize("hits", [(1, 3, 6), (2, 2, 5), (0, 0, 8), (4, 4, 4)])
def test_the_upper_end_of_the_lowest_is_where_so_low_a_class_is_rare(hits: tuple[int, ...]) -> None:
    counts, n = of(*hits), 8
    low, high = lowest_ends(ENDS, counts, np.full(3, n))
    assert low == pytest.approx(exact_ends(ENDS, of(min(hits)), of(n))[0, 0])
    assert slow_chance(counts, n, high / 100) == pytest.approx(0.025, abs=1e-3)


def test_a_class_of_few_samples_does_not_hide_the_others() -> None:
    # None of one image says nothing: the bound is that of 12 of 100 among two.
    alone = lowest_ends(ENDS, of(12, 30), of(100, 100))[1]
    assert lowest_ends(ENDS, of(0, 12, 30), of(1, 100, 100))[1] == pytest.approx(alone, abs=1.5)
    assert lowest_ends(ENDS, of(12, 0, 30), of(100, 0, 100))[1] == pytest.approx(alone)


def test_equal_classifiers_have_equal_levels_and_others_have_not() -> None:
    right = np.random.default_rng(0).random((1, 40)) < 0.5
    hits, samples = of(3, 0)[None], of(20, 20)
    first, same, other = (
        small_count_limits(rows, hits, samples, 50, 7) for rows in (right, right, ~right)
    )
    assert np.array_equal(first.ends, same.ends)
    assert not np.array_equal(first.ends, other.ends)
    # Every level once: half of the replicates at lower ends.
    assert (first.ends[:, 1] == 0).sum() == 25


def test_an_interval_holds_its_value() -> None:
    assert basic_interval(1.0, np.full(20, 5.0), (0, 4)) == (1.0, 4.0)


def test_the_lowest_recall_has_one_interval_everywhere() -> None:
    # 2 of 50 among 100 classes that recognise 25: with Wilson's interval for one class the truth is
    # 1.1 to 13.5 %. A class without samples changes nothing.
    hits, samples = np.full(101, 25), np.full(101, 50)
    hits[3], hits[100], samples[100] = 2, 0, 0
    labels = np.repeat(np.arange(101), samples)
    right = np.concatenate([np.arange(n) < h for h, n in zip(hits, samples, strict=True)])
    names = [str(c) for c in range(101)]
    known = score_hits(hits, samples, samples, names).lowest_interval
    found = paired_bootstrap({"a": right}, labels, 101, "test", replicates=50, seed=0)
    lowest = found.values["a"]["lowest_recall"]
    assert (lowest.low, lowest.high) == known == lowest_interval(hits, samples)
    assert known[0] == pytest.approx(exact_ends(ENDS, of(2), of(50))[0, 0])
    assert known != pytest.approx(wilson_interval(2, 50), abs=0.1)


def test_the_interval_of_a_lowest_recall_holds_it_where_all_classes_share_it() -> None:
    low, high = lowest_interval(np.full(400, 50), np.full(400, 100))
    assert low <= 50 <= high


def drawn(chances: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits of n images of each class at known chances, and their labels."""
    labels = np.repeat(np.arange(len(chances)), n)
    return np.random.default_rng(seed).random(len(labels)) < chances[labels], labels


EVEN = np.linspace(0.1, 0.8, 40)
SHAPES = {
    "even": (EVEN, 100),
    "even, few images": (EVEN, 15),
    "exact zeros": (np.where(np.arange(40) < 4, 0, EVEN), 30),
    "two groups": (np.where(np.arange(40) < 8, 0.05, 0.6), 25),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_hold_the_truth(shape: str) -> None:
    # Of 40 draws at 95 % fewer than 34 hold it once in 90,000 times (binomial). The bootstrap
    # alone, without the rules for few hits, holds the harmonic mean of "few images" in 15, of "two
    # groups" in 1.
    chances, n = SHAPES[shape]
    truth = {
        "harmonic_mean": float(harmonic_mean(100 * chances)),
        "lowest_recall": 100 * chances.min(),
    }
    held = dict.fromkeys(truth, 0)
    for seed in range(40):
        right, labels = drawn(chances, n, seed)
        found = paired_bootstrap({"a": right}, labels, 40, "drawn", replicates=200, seed=seed)
        for name, value in truth.items():
            held[name] += (
                found.values["a"][name].low <= value + 1e-9 <= found.values["a"][name].high + 2e-9
            )
    assert min(held.values()) >= 34, held


@pytest.mark.parametrize("n", [100, 15])
def test_equally_good_classifiers_are_seldom_told_apart(n: int) -> None:
    # Either way in 5 % of the draws: of 40 more than 7 are once in 500 times.
    apart = dict.fromkeys(("harmonic_mean", "lowest_recall"), 0)
    for seed in range(40):
        first, labels = drawn(EVEN, n, seed)
        again = np.random.default_rng(1000 + seed).random(len(labels)) < 0.3
        second = np.where(again, drawn(EVEN, n, 2000 + seed)[0], first)
        found = paired_bootstrap(
            {"a": first, "b": second}, labels, 40, "drawn", replicates=200, seed=seed
        )
        for name in apart:
            lead = found.differences["b"][name]
            apart[name] += lead.low > 0 or lead.high < 0
    assert max(apart.values()) <= 7, apart


def test_with_enough_hits_intervals_of_means_are_the_bootstrap_s_own() -> None:
    # The slow reference: rows drawn with replacement, class by class, reflected around the value.
    chances = np.array([0.9, 0.5, 0.3, 0.7])
    right, labels = drawn(chances, 50, 0)
    rng = np.random.default_rng(1)
    own = [right[labels == c] for c in range(4)]
    found = float(harmonic_mean(np.array([100 * one.mean() for one in own])))
    means = [
        float(harmonic_mean(np.array([100 * rng.choice(one, 50).mean() for one in own])))
        for _ in range(3000)
    ]
    low, high = 2 * found - np.quantile(means, [0.975, 0.025])
    estimate = paired_bootstrap({"a": right}, labels, 4, "drawn", replicates=3000, seed=0)
    ends = estimate.values["a"]["harmonic_mean"]
    # Two draws of 3,000 replicates of a mean whose standard error is 3.
    assert (ends.low, ends.high) == (pytest.approx(low, abs=0.6), pytest.approx(high, abs=0.6))
    assert estimate.few_hits == {}
    assert estimate.note == ""


def test_few_hits_are_said_and_make_the_interval_hold_both_ends() -> None:
    right = np.zeros(200, bool)
    right[:150] = True  # three classes right, the fourth without a hit
    found = paired_bootstrap(
        {"old": right}, np.repeat(np.arange(4), 50), 4, "val", replicates=400, seed=0
    )
    mean = found.values["old"]["harmonic_mean"]
    # 4 / (3 + 1000) at zero, and at the upper end of 7.11 %: 4 / (3 + 1 / 0.0711).
    assert mean.value == mean.low == pytest.approx(100 * 4 / 1003)
    assert mean.high == pytest.approx(100 * 4 / (3 + 1 / 0.0711), rel=0.02)
    lowest = found.values["old"]["lowest_recall"]
    assert (lowest.low, lowest.high) == (0, pytest.approx(7.11, abs=0.1))
    assert "fewer than 5 hits" in found.note
    assert found.note.endswith("old (1). More val images of them would narrow these.")
    assert found.to_json()["few_hits"] == {"old": 1}
    assert found.note in str(bootstrap_table(found).caption)
