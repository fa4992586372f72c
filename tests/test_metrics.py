from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from pipeline.errors import EvaluationError
from pipeline.intervals import lowest_interval
from pipeline.metrics import (
    Scores,
    count_hits,
    count_per_class,
    count_zeros,
    geometric_mean,
    group_means,
    harmonic_mean,
    recalls_of_hits,
    score,
    score_hits,
    wilson_interval,
)
from tests.processes import python

recall_lists = st.lists(st.floats(0.2, 100), min_size=1, max_size=30)


@st.composite
def classified(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Predictions and labels of a handful of samples, some classes without any."""
    n_classes = draw(st.integers(1, 6))
    n_samples = draw(st.integers(1, 40))
    classes = st.lists(st.integers(0, n_classes - 1), min_size=n_samples, max_size=n_samples)
    return np.array(draw(classes)), np.array(draw(classes)), n_classes


def scored(predictions: ArrayLike, labels: ArrayLike, n_classes: int) -> Scores:
    return score(predictions, labels, [50] * n_classes, [f"c{i}" for i in range(n_classes)])


def test_the_papers_example() -> None:
    # Sec. 3.3: HM(0.01, 0.99) = 2 / (1/0.01 + 1/0.99) = 0.0198, printed 0.02;
    # GM(0.01, 0.99) = sqrt(0.0099) = 0.099499, printed 0.10; the arithmetic mean is 0.5.
    assert harmonic_mean([1.0, 99.0]) == pytest.approx(2 / (1 / 1 + 1 / 99))
    assert harmonic_mean([1.0, 99.0]) == pytest.approx(1.98)
    assert geometric_mean([1.0, 99.0]) == pytest.approx(math.sqrt(99))


def test_a_zero_counts_as_a_tenth_of_a_percent() -> None:
    # One zero class in 100, the others at 50 %: HM = 100 / (99/50 + 1/0.1) = 8.3472 %.
    # A floor of 0.001 % instead would give 100 / (99/50 + 1/0.001) = 0.0998 %.
    recalls = [0.0] + [50.0] * 99
    assert harmonic_mean(recalls) == pytest.approx(100 / (99 / 50 + 10))
    assert geometric_mean(recalls) == pytest.approx(
        math.exp((math.log(0.1) + 99 * math.log(50)) / 100)
    )
    assert count_zeros(recalls) == 1


def test_ten_zeros_in_a_hundred_give_a_harmonic_mean_below_one() -> None:
    # As the CE row of CIFAR-100-LT: ten zeros alone bring the sum of 1/r to 10 / 0.1 = 100, so
    # that HM < 100 / 100 = 1 whatever the other ninety classes do.
    assert harmonic_mean([0.0] * 10 + [100.0] * 90) == pytest.approx(100 / (100 + 0.9))


def test_a_small_recall_above_zero_is_not_lifted_to_the_substitute() -> None:
    assert geometric_mean([0.05]) == pytest.approx(0.05)
    assert count_zeros([0.05]) == 0


def test_means_leave_out_classes_without_samples_and_work_on_any_leading_axes() -> None:
    recalls = np.array([[40.0, np.nan, 10.0], [np.nan, np.nan, np.nan]])
    assert geometric_mean(recalls)[0] == pytest.approx(20)  # sqrt(400)
    assert harmonic_mean(recalls)[0] == pytest.approx(16)  # 2 / (1/40 + 1/10)
    assert np.isnan(geometric_mean(recalls)[1])
    assert np.isnan(harmonic_mean(recalls)[1])


def test_recall_is_nan_without_samples() -> None:
    labels = [0, 0, 0, 1]
    recalls = recalls_of_hits(count_hits([0, 0, 2, 1], labels, 3), count_per_class(labels, 3))
    assert recalls[:2] == pytest.approx([200 / 3, 100])
    assert np.isnan(recalls[2])


def test_whole_percents_stay_whole() -> None:
    assert [float(recalls_of_hits(k, 100)) for k in range(101)] == [float(k) for k in range(101)]


def test_group_limits_are_strict() -> None:
    # Sec. 4.3: many > 100, few < 20; 100 and 20 are medium. Means 1, (2+3)/2 and 4.
    groups = group_means([1.0, 2.0, 3.0, 4.0], [101, 100, 20, 19])
    assert groups == {"many": 1.0, "medium": 2.5, "few": 4.0}


def test_an_absent_group_is_none_and_so_is_one_without_samples() -> None:
    assert group_means([10.0, np.nan], [500, 5]) == {"many": 10.0, "medium": None, "few": None}


def test_cifar_100_lt_has_35_35_30_classes_in_its_groups() -> None:
    counts = np.array([int(500 * 100 ** -(c / 99)) for c in range(100)])
    assert counts.sum() == 10_847  # Table 2
    marks = np.concatenate([np.full(35, 1.0), np.full(35, 2.0), np.full(30, 3.0)])
    assert group_means(marks, counts) == {"many": 1.0, "medium": 2.0, "few": 3.0}


def test_wilson_interval_golden() -> None:
    # 0 of 100 at z = 1.959964: z^2 / (n + z^2) = 3.841459 / 103.841459 = 3.6994 %.
    assert wilson_interval(0, 100) == pytest.approx((0, 3.6994), abs=1e-4)
    # 1 of 2: the centre is 1/2; half width z/(1 + z^2/2) * sqrt(1/8 + z^2/16) = 0.405469.
    assert wilson_interval(1, 2) == pytest.approx((9.4531, 90.5469), abs=1e-4)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_recall_and_mirrors(pair: tuple[int, int]) -> None:
    successes, n = pair
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= 100 * successes / n <= high <= 100
    mirrored = wilson_interval(n - successes, n)
    assert mirrored == pytest.approx((100 - high, 100 - low), abs=1e-9)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(0, 0, 0.95), (3, 2, 0.95), (1, 2, 1)])
def test_wilson_interval_refuses_what_is_no_proportion(
    successes: int, n: int, confidence: float
) -> None:
    with pytest.raises(EvaluationError, match="An interval needs"):
        wilson_interval(successes, n, confidence)


@given(recall_lists)
def test_harmonic_below_geometric_below_arithmetic_mean(recalls: list[float]) -> None:
    slack = 1 + 1e-12
    assert min(recalls) <= harmonic_mean(recalls) * slack
    assert harmonic_mean(recalls) <= geometric_mean(recalls) * slack
    assert geometric_mean(recalls) <= np.mean(recalls) * slack


@given(classified(), st.randoms(use_true_random=False))
def test_permuting_classes_permutes_recalls_and_changes_no_metric(
    sample: tuple[np.ndarray, np.ndarray, int], random: object
) -> None:
    predictions, labels, n_classes = sample
    order = np.array(random.sample(range(n_classes), n_classes))  # type: ignore[attr-defined]  # hypothesis types it as object
    one, other = (
        scored(predictions, labels, n_classes),
        scored(order[predictions], order[labels], n_classes),
    )
    assert [other.recalls[c] for c in order] == list(one.recalls)
    for name in ("accuracy", "lowest_recall", "substituted_zeros", "n_samples"):
        assert getattr(one, name) == getattr(other, name)
    assert other.geometric_mean == pytest.approx(one.geometric_mean)
    assert other.harmonic_mean == pytest.approx(one.harmonic_mean)


@given(classified())
def test_on_a_balanced_split_accuracy_is_the_mean_recall(
    sample: tuple[np.ndarray, np.ndarray, int],
) -> None:
    predictions, _, n_classes = sample
    n = len(predictions) // n_classes * n_classes
    if n:
        labels = np.arange(n) % n_classes
        scores = scored(predictions[:n], labels, n_classes)
        assert scores.mean_recall == pytest.approx(scores.accuracy)


def test_scores_of_a_small_split() -> None:
    # cat 3 of 4, dog 0 of 2, eel without samples, fox 0 of 1.
    scores = score(
        [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 3], [200, 50, 5, 5], ["cat", "dog", "eel", "fox"],
        split="val", n_failed=2,
    )  # fmt: skip
    assert scores.recalls == (75.0, 0.0, None, 0.0)
    assert scores.accuracy == pytest.approx(100 * 3 / 7)
    assert scores.mean_recall == pytest.approx(25)
    assert scores.harmonic_mean == pytest.approx(3 / (1 / 75 + 2 / 0.1))
    assert scores.geometric_mean == pytest.approx((75 * 0.1 * 0.1) ** (1 / 3))
    assert (scores.lowest_recall, scores.lowest_class) == (0.0, "dog")  # the first on ties
    assert scores.lowest_classes == ("dog", "fox")
    # Two classes without a hit: what is below both lower ends and above the joint upper end.
    assert scores.lowest_interval == lowest_interval(np.array([3, 0, 0, 0]), np.array([4, 2, 0, 1]))
    assert scores.substituted_zeros == 2
    assert scores.classes_without_samples == 1
    assert scores.class_samples == (4, 2, 0, 1)
    assert scores.groups == {"many": 75.0, "medium": 0.0, "few": 0.0}
    assert (scores.split, scores.n_samples, scores.n_failed) == ("val", 7, 2)


def test_json_has_the_contracts_keys_first_and_no_nan() -> None:
    content = scored([0, 1], [0, 1], 3).to_json()
    contract = (
        "accuracy", "geometric_mean", "harmonic_mean", "lowest_recall", "substituted_zeros",
        "recalls", "groups", "split", "n_samples", "class_names",
    )  # fmt: skip
    assert tuple(content)[: len(contract)] == contract
    assert content["recalls"] == [100.0, 100.0, None]
    assert content["groups"] == {"many": None, "medium": 100.0, "few": None}
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_hits_and_predictions_give_the_same_scores() -> None:
    by_hits = score_hits([3, 0], [4, 2], [50, 50], ["c0", "c1"])
    assert by_hits == scored([0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1], 2)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([], [], "no samples to score"),
        ([0, 1], [0], "two lists of one length"),
        ([[0]], [[0]], "two lists of one length"),
        ([0, 3], [0, 1], "Each prediction must be a class index from 0 to 1, not 3"),
        ([0, 1], [-1, 1], "Each label must be a class index from 0 to 1, not -1"),
    ],
)
def test_wrong_input_is_one_sentence(
    predictions: ArrayLike, labels: ArrayLike, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        scored(predictions, labels, 2)


def test_counts_of_another_length_are_refused() -> None:
    with pytest.raises(EvaluationError, match="2 class names need as many"):
        score([0], [0], [50, 50, 50], ["c0", "c1"])


def test_metrics_and_ensemble_need_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, pipeline.metrics, pipeline.ensemble;"
        "print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    assert python("-c", code).strip() == "[]"
