"""Shifts found without labels: laws, golden values, a slow reference, and planted truths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from pipeline.balancing.shifts import (
    MEANS,
    SHARPNESS,
    Mean,
    decided_shares,
    estimated_recalls,
    levelling_shifts,
    matching_shifts,
)
from pipeline.errors import EvaluationError
from pipeline.metrics import (
    Floats,
    Ints,
    count_hits,
    count_per_class,
    harmonic_mean,
    recalls_of_hits,
)

SEEDS = st.integers(0, 10_000)


def drawn_logits(seed: int, n: int = 60, n_classes: int = 4) -> Floats:
    return np.random.default_rng(seed).normal(0, 2, (n, n_classes))


def drawn_shares(seed: int, n_classes: int = 4) -> Floats:
    return (
        np.random.default_rng(seed + 1).dirichlet(np.full(n_classes, 5.0)) * 0.9 + 0.1 / n_classes
    )


def balancing_shifts(
    logits: Floats, q: Floats, mean: Mean = "harmonic", temperature: float = 1.5
) -> Floats:
    """Both steps, as `balance_head` takes them."""
    b = matching_shifts(logits, q)
    return b + levelling_shifts(logits + b, q, mean, temperature)


def equal(n_classes: int = 4) -> Floats:
    return np.full(n_classes, 1 / n_classes)


@given(SEEDS, st.sampled_from([0.5, 1.0, 4.0]))
def test_probabilities_have_the_shares_as_means(seed: int, sharpness: float) -> None:
    logits, q = drawn_logits(seed), drawn_shares(seed)
    b = matching_shifts(logits, q, sharpness)
    means = softmax(sharpness * (logits + b + np.log(q)), axis=1).mean(axis=0)
    assert np.abs(means - q).max() <= 0.0101 * q.min()
    assert abs(b.mean()) < 1e-12


def test_golden_shift_of_one_image() -> None:
    # One image with logits (0, 1, 3) and equal shares: its probabilities are 1/3 each where
    # l + b is the same number three times. The mean of l is 4/3, so b = 4/3 - l.
    b = matching_shifts(np.array([[0.0, 1.0, 3.0]]), equal(3), sharpness=1.0)
    assert b == pytest.approx([4 / 3, 1 / 3, -5 / 3], abs=0.05)


@given(SEEDS)
def test_a_planted_shift_is_taken_out_again(seed: int) -> None:
    logits, q = drawn_logits(seed), drawn_shares(seed)
    planted = np.random.default_rng(seed + 2).normal(size=4)
    planted -= planted.mean()
    plain = matching_shifts(logits, q, 1.0)
    shifted = matching_shifts(logits + planted, q, 1.0)
    assert shifted == pytest.approx(plain - planted, abs=0.1)


def reference_log_mean(
    w: torch.Tensor, logits: Floats, q: Floats, temperature: float, mean: str
) -> torch.Tensor:
    """The estimated mean, image by image, for autograd."""
    hits = torch.zeros(len(q), dtype=torch.float64)
    log_q = torch.log(torch.from_numpy(q))
    for row in torch.from_numpy(logits):
        p = torch.softmax(row / temperature + log_q, dim=0)
        hits = hits + p * torch.softmax(SHARPNESS * (row / temperature + w), dim=0)
    recalls = hits / (len(logits) * torch.from_numpy(q))
    if mean == "geometric":
        return torch.log(recalls).mean()
    return -torch.log((1 / recalls).mean())


@pytest.mark.parametrize("mean", ["harmonic", "geometric"])
@pytest.mark.parametrize("seed", range(3))
def test_levelling_ends_where_autograd_finds_no_slope(mean: str, seed: int) -> None:
    logits, q, temperature = drawn_logits(seed, n=40), drawn_shares(seed), 1.5
    shifts = levelling_shifts(logits, q, mean, temperature)  # type: ignore[arg-type]
    w = torch.tensor(shifts / temperature, requires_grad=True)
    top = reference_log_mean(w, logits, q, temperature, mean)
    top.backward()  # type: ignore[no-untyped-call]
    assert w.grad is not None
    assert w.grad.abs().max() < 1e-4
    before = reference_log_mean(torch.zeros(4, dtype=torch.float64), logits, q, temperature, mean)
    assert top > before


def test_the_arithmetic_mean_needs_no_shift() -> None:
    logits = drawn_logits(0)
    assert not levelling_shifts(logits, equal(), "arithmetic").any()


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_shifts_are_of_mean_0(mean: Mean, temperature: float) -> None:
    logits, q = drawn_logits(8), drawn_shares(8)
    assert abs(matching_shifts(logits, q).mean()) < 1e-9
    assert abs(levelling_shifts(logits, q, mean, temperature).mean()) < 1e-9


def test_every_mean_and_temperature_has_shifts_of_its_own() -> None:
    logits, q = planted_pool()[0][:400], np.array([0.1, 0.2, 0.3, 0.4])
    chosen: list[tuple[Mean, float]] = [("harmonic", 1.5), ("harmonic", 3.0), ("geometric", 1.5)]
    shifts = [balancing_shifts(logits, q, mean, temperature) for mean, temperature in chosen]
    for i in range(len(shifts)):
        for other in shifts[:i]:
            assert np.abs(shifts[i] - other).max() > 0.02


def test_what_is_chosen_where_nothing_is_said() -> None:
    logits, q = drawn_logits(9), drawn_shares(9)
    plain = matching_shifts(logits, q)
    assert np.array_equal(plain, matching_shifts(logits, q, 4.0))
    assert np.abs(plain - matching_shifts(logits, q, 1.0)).max() > 0.1
    plain = levelling_shifts(logits, q)
    assert np.array_equal(plain, levelling_shifts(logits, q, "harmonic", 1.5))


@given(SEEDS)
def test_classes_in_another_order_have_their_own_shifts(seed: int) -> None:
    logits, q = drawn_logits(seed), drawn_shares(seed)
    order = np.random.default_rng(seed + 3).permutation(4)
    shifts = balancing_shifts(logits, q)
    # Both stop within the tolerance of the search, on other sides of the top.
    assert balancing_shifts(logits[:, order], q[order]) == pytest.approx(shifts[order], abs=0.1)


def test_many_rows_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = drawn_logits(5)
    decisions = logits.argmax(axis=1)
    whole = balancing_shifts(logits, equal())
    recalls = estimated_recalls(logits, equal(), 2, decisions)
    monkeypatch.setattr("pipeline.balancing.shifts.BLOCK_BYTES", 8 * 4 * 7)
    assert balancing_shifts(logits, equal()) == pytest.approx(whole, abs=1e-6)
    assert estimated_recalls(logits, equal(), 2, decisions) == pytest.approx(recalls)


def test_estimated_recalls_are_the_hits_expected_of_the_decisions() -> None:
    logits, q, shifts = drawn_logits(1), drawn_shares(1), np.array([0.3, -0.2, 0.0, -0.1])
    hits, mass = np.zeros(4), np.zeros(4)
    for row in logits:
        p = softmax(row / 2.0 + np.log(q))
        c = int((row + shifts).argmax())
        hits[c] += p[c]
        mass += p
    decisions = (logits + shifts).argmax(axis=1)
    assert estimated_recalls(logits, q, 2.0, decisions) == pytest.approx(100 * hits / mass)
    # Where one class is decided for on all images, all that it has lies there, and no more.
    always = estimated_recalls(logits, q, 2.0, np.full(len(logits), 3))
    assert always == pytest.approx([0, 0, 0, 100])


def planted_pool(seed: int = 0) -> tuple[Floats, Ints]:
    """Logits whose softmax are the true probabilities, but for one class that is pushed down."""
    rng = np.random.default_rng(seed)
    labels = np.arange(4000) % 4
    centres = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 0]])
    features = centres[labels] + rng.normal(size=(4000, 3))
    # Log-likelihoods of unit normal distributions, up to what is the same for all classes.
    logits = features @ centres.T - 0.5 * (centres**2).sum(axis=1)
    logits[:, 3] -= 2.0
    return logits, labels


def test_a_class_that_was_pushed_down_is_found_without_labels() -> None:
    logits, _ = planted_pool()
    assert decided_shares(logits)[3] < 0.05
    b = matching_shifts(logits, equal(), 1.0)
    assert b - b[0] == pytest.approx([0, 0, 0, 2], abs=0.15)


def test_the_harmonic_mean_rises_where_probabilities_are_right() -> None:
    logits, labels = planted_pool()
    matched = logits + matching_shifts(logits, equal(), 1.0)
    w = levelling_shifts(matched, equal(), "harmonic", 1.0)
    before, after = (
        recalls_of_hits(count_hits(z.argmax(1), labels, 4), count_per_class(labels, 4))
        for z in (matched, matched + w)
    )
    assert harmonic_mean(after) > harmonic_mean(before) + 1
    assert after.min() > before.min() + 5
    estimate = estimated_recalls(matched, equal(), 1.0, (matched + w).argmax(axis=1))
    assert estimate == pytest.approx(after, abs=4)


@pytest.mark.parametrize(
    ("logits", "q", "message"),
    [
        (np.zeros((0, 2)), equal(2), "at least one"),
        (np.zeros((3, 3)), equal(2), r"need logits \(N, 2\)"),
        (np.zeros((3, 2)), np.array([0.0, 1.0]), "above 0"),
        (np.zeros((3, 2)), np.array([0.5, 0.6]), "sum 1"),
        (np.array([[0.0, np.nan]]), equal(2), "NaN or infinite"),
        (np.array([[0.0, -np.inf]]), equal(2), "NaN or infinite"),
    ],
)
def test_what_does_not_belong_together(logits: Floats, q: Floats, message: str) -> None:
    for shifts in (matching_shifts, levelling_shifts):
        with pytest.raises(EvaluationError, match=message):
            shifts(logits, q)


def test_numbers_out_of_range() -> None:
    logits = drawn_logits(0)
    with pytest.raises(EvaluationError, match="Sharpness is a number above 0, not 0"):
        matching_shifts(logits, equal(), 0.0)
    with pytest.raises(EvaluationError, match="temperature is a number above 0, not nan"):
        levelling_shifts(logits, equal(), temperature=float("nan"))
    with pytest.raises(EvaluationError, match="not 'median'"):
        levelling_shifts(logits, equal(), "median")  # type: ignore[arg-type]


def test_logits_far_apart() -> None:
    logits = np.array([[0.0, 1e4], [0.0, 1e4], [1e4, 0.0], [0.0, 9e3]])
    shifts = balancing_shifts(logits, equal(2))
    assert np.isfinite(shifts).all()
    assert decided_shares(logits + matching_shifts(logits, equal(2))) == pytest.approx([0.5, 0.5])


def test_a_class_that_no_image_can_be_of() -> None:
    far = pytest.raises(EvaluationError, match="too far apart to be balanced")
    with far:
        levelling_shifts(np.array([[0.0, 1e6], [0.0, 2e6]]), equal(2))


def test_logits_that_are_all_alike() -> None:
    assert balancing_shifts(np.ones((5, 3)), equal(3)) == pytest.approx([0, 0, 0])
