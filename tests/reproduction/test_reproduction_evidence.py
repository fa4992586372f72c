"""Numbers with intervals, and verdicts: laws first, then planted truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import resampling
from pipeline.bootstrap import paired_bootstrap
from pipeline.config import FitConfig
from pipeline.metrics import IN_PERCENT, Floats
from pipeline.reproduction.claims import Finding, Relation, difference, gain, judge, verdict_on
from pipeline.reproduction.evidence import (
    ANYWHERE,
    Evidence,
    Interval,
    PaperNumbers,
    WithIntervals,
    in_paper,
    over_seeds,
)
from pipeline.reproduction.experiments import EXPERIMENTS
from pipeline.reproduction.notes import ViewCounts, notes_on
from pipeline.reproduction.paper import TABLE_3, TABLE_6, TABLE_8
from pipeline.resampling import Numbers, Statistic

N_CLASSES, PER_CLASS = 5, 40

Ends = tuple[float, float]


def made(hits: dict[str, np.ndarray]) -> Evidence:
    labels = np.repeat(np.arange(N_CLASSES), PER_CLASS)
    names = tuple(f"c{c}" for c in range(N_CLASSES))
    return Evidence(labels, names, np.array([200, 110, 50, 19, 5]), hits)


def random_hits(n_seeds: int, chance: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((n_seeds, N_CLASSES * PER_CLASS)) < chance


def metric(label: str, name: str) -> Statistic:
    return lambda numbers: numbers.metric(label, name)


def one(evidence: Evidence, statistic: Statistic, replicates: int = 300) -> WithIntervals:
    return evidence.estimate([statistic], [ANYWHERE], replicates=replicates)[0]


def test_the_interval_over_seeds_is_students() -> None:
    # Mean 2, deviation 1, and t = 4.3026527 for two degrees of freedom: 4.3026527 / sqrt(3).
    assert over_seeds(np.array([1.0, 2.0, 3.0])) == Interval(
        pytest.approx(2 - 2.484138), pytest.approx(2 + 2.484138)
    )
    assert over_seeds(np.array([1.0, 2.0, 3.0]), (0.0, 4.0)) == Interval(0.0, 4.0)
    assert over_seeds(np.array([7.0])) is None


def test_metrics_are_those_of_the_scores() -> None:
    evidence = made({"a": random_hits(3, 0.4)})
    numbers = evidence.numbers()
    for k in range(3):
        scores = evidence.scores("a", k)
        for name in ("accuracy", "geometric_mean", "harmonic_mean", "lowest_recall"):
            assert numbers.metric("a", name)[k] == pytest.approx(getattr(scores, name))
    with pytest.raises(KeyError):
        numbers.metric("a", "loudness")


def test_intervals_over_images_are_those_of_the_paired_bootstrap() -> None:
    hits = {"a": random_hits(1, 0.6, 1), "b": random_hits(1, 0.4, 2)}
    evidence = made(hits)
    known = paired_bootstrap(
        {name: rows[0] for name, rows in hits.items()}, evidence.labels, N_CLASSES, "test",
        replicates=300, seed=0,
    )  # fmt: skip
    for name in IN_PERCENT:
        found = one(evidence, difference(name, "a", "b"))
        expected = known.differences["b"][name]
        images = found.images
        assert (found.value, images.low, images.high) == (
            expected.value, expected.low, expected.high
        )  # fmt: skip


def test_a_range_of_equal_numbers_is_not_told_from_none() -> None:
    # Three classifiers of the same chances: the largest lowest recall less the smallest one is
    # above zero whatever the truth is, and so in every replicate; reflected it is not.
    hits = {name: random_hits(2, 0.5, seed) for name, seed in (("a", 1), ("b", 2), ("c", 3))}
    for name in ("lowest_recall", "harmonic_mean"):

        def spread(numbers: Numbers, name: str = name) -> Floats:
            return np.ptp(np.stack([numbers.metric(label, name) for label in "abc"]), axis=0)

        found = made(hits).estimate([spread], [(0.0, 100.0)], replicates=300)[0]
        assert found.value > 0
        assert found.images.low == 0


def test_classes_of_few_hits_lie_at_either_end() -> None:
    # 2 of 40 in one class and none in another: of 40, none is up to 8.81 %, 2 up to 16.92 %.
    right = np.tile(np.arange(PER_CLASS) < 30, (1, N_CLASSES))
    right[:, :PER_CLASS] = False
    right[:, PER_CLASS : 2 * PER_CLASS] = np.arange(PER_CLASS) < 2
    evidence = made({"a": right, "b": random_hits(1, 0.6)})
    assert evidence.few_hits() == {"a": 2}
    found = one(evidence, metric("a", "harmonic_mean"))
    assert found.value == pytest.approx(100 * 5 / (1000 + 20 + 4))
    assert found.images.high == pytest.approx(100 * 5 / (1 / 0.0881 + 1 / 0.1692 + 4), rel=0.05)
    assert one(evidence, metric("a", "accuracy")).images.high < 55
    # One of two classes without a hit once in 40 times: 1 - (1 - q) ** 2 = 0.025 with q the chance
    # of none of 40, (1 - t) ** 40, so that t is 10.36 %.
    assert one(evidence, metric("a", "lowest_recall")).images == Interval(
        0, pytest.approx(10.36, abs=0.3)
    )


def test_what_classifiers_share_cancels() -> None:
    rows = random_hits(4, 0.5)
    found = one(made({"a": rows, "b": rows.copy()}), difference("harmonic_mean", "a", "b"))
    assert (found.value, found.images, found.seeds) == (0, Interval(0, 0), Interval(0, 0))


def test_what_has_no_seed_has_no_interval_over_seeds() -> None:
    evidence = made({"old": random_hits(1, 0.3), "new": random_hits(4, 0.6)})
    assert one(evidence, metric("old", "accuracy")).seeds is None
    both = one(evidence, difference("accuracy", "new", "old"))
    assert both.seeds is not None
    assert both.n_seeds == 4
    assert both.interval == both.seeds
    assert set(both.intervals) == {both.seeds, both.images}


def test_the_images_drawn_depend_on_nothing_but_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_hits(2, 0.5)
    whole = one(made({"a": rows}), metric("a", "accuracy"))
    beside = one(made({"b": random_hits(5, 0.3, 1), "a": rows}), metric("a", "accuracy"))
    assert beside == whole
    monkeypatch.setattr(resampling, "HELD", 7 * 2 * N_CLASSES)  # seven replicates at a time
    assert one(made({"a": rows}), metric("a", "accuracy")) == whole
    monkeypatch.setattr(resampling, "DRAWN", 3 * PER_CLASS)  # three at a time, 3 + 3 + 1 of seven
    assert one(made({"a": rows}), metric("a", "accuracy")) == whole


def test_classes_without_samples_are_in_no_mean() -> None:
    labels = np.array([0, 0, 2, 2])
    right = np.array([[True, True, True, False]])
    evidence = Evidence(labels, ("a", "b", "c"), np.array([9, 9, 9]), {"x": right})
    assert one(evidence, metric("x", "lowest_recall")).value == 50
    assert one(evidence, metric("x", "accuracy")).value == 75


def test_the_paper_has_numbers_and_no_recalls() -> None:
    assert in_paper(difference("lowest_recall", "PaCo + GML", "PaCo"), TABLE_3) == 4
    assert in_paper(difference("accuracy", "CE + GML", "CE"), TABLE_6) is None
    assert in_paper(lambda numbers: numbers.recalls("CE").mean(axis=-1), TABLE_3) is None
    both = PaperNumbers(TABLE_3, TABLE_8)
    assert both.metric("RIDE", "accuracy") == 48.64


@pytest.mark.parametrize(
    ("relation", "threshold", "inside", "outside", "between"),
    [
        (">", 0.0, (0.1, 2), (-3, 0), (0, 1)),
        (">=", -2.0, (-2, 1), (-9, -2.1), (-3, 0)),
        ("<=", 5.0, (1, 5), (5.1, 9), (4, 6)),
        ("within", 2.0, (-2, 2), (2.1, 3), (-3, 0)),
    ],
)
def test_verdicts(
    relation: Relation, threshold: float, inside: Ends, outside: Ends, between: Ends
) -> None:
    yes, no, open_ = (Interval(*ends) for ends in (inside, outside, between))
    assert verdict_on((yes,), relation, threshold) == "holds"
    assert verdict_on((yes, yes), relation, threshold) == "holds"
    assert verdict_on((no, no), relation, threshold) == "does not hold"
    assert verdict_on((open_,), relation, threshold) == "cannot be told"
    assert verdict_on((yes, no), relation, threshold) == "cannot be told"
    assert verdict_on((yes, open_), relation, threshold) == "cannot be told"


@given(st.floats(-50, 50), st.floats(0, 20), st.floats(-50, 50))
def test_at_least_and_at_most_contradict_each_other_off_the_threshold(
    low: float, width: float, threshold: float
) -> None:
    interval = (Interval(low, low + width),)
    above, most = (verdict_on(interval, relation, threshold) for relation in (">", "<="))
    opposite = {"holds": "does not hold", "does not hold": "holds"}
    assert most == opposite.get(above, above)


def planted(better: float, worse: float, n_seeds: int = 6) -> Finding:
    """The verdict on "a is better than b" where the chances of a hit are known."""
    evidence = made({"a": random_hits(n_seeds, better, 3), "b": random_hits(n_seeds, worse, 4)})
    claim = gain("here", "a beats b.", "accuracy", "a", "b")
    return judge([claim], [one(evidence, claim.statistic)])[0]


def test_planted_truths_are_found() -> None:
    assert planted(0.9, 0.3).verdict == "holds"
    assert planted(0.3, 0.9).verdict == "does not hold"
    assert planted(0.5, 0.5).verdict == "cannot be told"


def test_the_images_may_leave_open_what_the_seeds_agree_on() -> None:
    # The same 55 % for every seed against 50 %: certain of these images, not of others.
    right = np.arange(N_CLASSES * PER_CLASS) % 20
    better = np.repeat((right < 11)[None], 5, axis=0)
    worse = np.repeat((right[::-1] < 10)[None], 5, axis=0)
    evidence = made({"a": better, "b": worse})
    claim = gain("here", "a beats b.", "accuracy", "a", "b")
    (finding,) = judge([claim], [one(evidence, claim.statistic)])
    assert finding.verdict == "cannot be told"
    assert finding.on_these_images == "holds"
    assert finding.to_json()["verdict_on_these_images"] == "holds"


def test_estimates_do_not_depend_on_what_else_is_asked() -> None:
    evidence = made({"a": random_hits(3, 0.5)})

    def third(numbers: Numbers) -> Floats:
        return numbers.metric("a", "accuracy") / 3

    alone = one(evidence, metric("a", "accuracy"))
    together = evidence.estimate(
        [third, metric("a", "accuracy")], [ANYWHERE, ANYWHERE], replicates=300
    )
    assert together[1] == alone


def test_few_hits_are_named_in_a_note() -> None:
    evidence = made({"CE": random_hits(1, 0.02), "CE + GML": random_hits(2, 0.6)})
    notes = notes_on(EXPERIMENTS["table6"], evidence, FitConfig(), 2, {"CE": ViewCounts(0, 0)})
    (note,) = [note for note in notes if "fewer than 5 hits" in note]
    assert "fewer than 5 hits: CE (5)." in note
    sure = made({"CE": random_hits(1, 0.5)})
    assert not any(
        "hits" in note for note in notes_on(EXPERIMENTS["table6"], sure, FitConfig(), 1, {})
    )
