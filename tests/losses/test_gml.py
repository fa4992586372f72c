"""The Geometric Mean Loss: values derived by hand, what it must not do, its p-mean form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.losses import balanced_softmax, gml
from tests.losses.batches import DOUBLE, Batch, batches, untimed


def test_gml_of_equal_logits_is_the_log_of_the_priors() -> None:
    # Equal logits, counts 3 and 1: by eq. (3) p is 3/4 for class 0 and 1/4 for class 1.
    # r = (3/4, 1/4), whatever the number of rows: loss = -(log 3/4 + log 1/4) / 2.
    logits, labels = torch.zeros(3, 2, dtype=DOUBLE), torch.tensor([0, 0, 1])
    loss = gml(logits, labels, torch.tensor([3, 1]))
    assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2, abs=1e-15)
    # Without re-weighting both classes have p = 1/2.
    plain = gml(logits, labels, torch.tensor([3, 1]), reweight=False)
    assert plain.item() == pytest.approx(math.log(2), abs=1e-15)


def test_gml_takes_the_mean_over_a_class_before_the_logarithm() -> None:
    # Balanced counts; p = 0.9 and p = 0.1 in one class: r = 0.5, loss = log 2 = 0.693.
    # (A mean of logarithms, as in cross entropy, would be -(log 0.9 + log 0.1) / 2 = 1.204.)
    logits = torch.tensor([[math.log(9), 0.0], [0.0, math.log(9)]], dtype=DOUBLE)
    loss = gml(logits, torch.tensor([0, 0]), torch.tensor([7, 7]))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-15)


def test_classes_absent_from_the_batch_take_no_part() -> None:
    # Three classes of equal counts and logits, two of them present: r = 1/3 each, loss = log 3.
    # Dividing by C = 3 instead of 2 would give 2/3 log 3.
    loss = gml(torch.zeros(4, 3, dtype=DOUBLE), torch.tensor([0, 0, 2, 2]), torch.tensor([5] * 3))
    assert loss.item() == pytest.approx(math.log(3), abs=1e-15)


@untimed
@given(batches())
def test_gml_weighs_classes_not_rows(batch: Batch) -> None:
    logits, labels, counts, _ = batch
    twice = labels == labels[0]
    more = torch.cat([logits, logits[twice]]), torch.cat([labels, labels[twice]]), counts
    torch.testing.assert_close(gml(*more), gml(logits, labels, counts), rtol=0, atol=1e-11)


@untimed
@given(batches())
def test_of_one_row_a_class_gml_is_balanced_softmax(batch: Batch) -> None:
    logits, _, counts, _ = batch
    n = min(len(logits), len(counts))
    one_each = logits[:n], torch.arange(n), counts
    torch.testing.assert_close(gml(*one_each), balanced_softmax(*one_each), rtol=0, atol=1e-11)


def test_gml_of_hopeless_logits_is_their_distance() -> None:
    # The true class is 2e4 below the other, equal counts: log p = -2e4 in every row.
    labels = torch.tensor([0, 0, 1])
    logits = 1e4 - 2e4 * torch.nn.functional.one_hot(labels, 2).float()
    assert gml(logits, labels, torch.tensor([3, 3])).item() == pytest.approx(2e4)


def test_a_far_row_does_not_hide_its_class_from_the_gradient() -> None:
    # One row at p = e^-1000 beside one at p = e^-2: the near row carries the class's gradient,
    # weight p / (sum of p) = 1 in floating point; the far row's weight is 0.
    logits = torch.tensor([[-1000.0, 0.0], [-2.0, 0.0]], dtype=DOUBLE, requires_grad=True)
    loss = gml(logits, torch.tensor([0, 0]), torch.tensor([1, 1]))
    (gradient,) = torch.autograd.grad(loss, logits)
    p = 1 / (1 + math.exp(2))
    expected = torch.tensor([[0.0, 0.0], [p - 1, 1 - p]], dtype=DOUBLE)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-15)


def test_gml_is_finite_in_half_precision_with_large_counts() -> None:
    # 100,000 is beyond the largest float16, 65,504.
    counts = torch.tensor([100_000, 5, 1])
    logits = torch.zeros(3, 3, dtype=torch.float16)
    labels = torch.arange(3)
    exact = gml(logits.double(), labels, counts).item()
    assert gml(logits, labels, counts).item() == pytest.approx(exact, rel=2e-3)


def test_the_power_mean_of_two_classes() -> None:
    # Equal counts, one row of each class with p = 1/2 and p = 1/8 (log odds 0 and -log 7):
    # -log r = (1, 3) log 2; power 2: sqrt((1 + 9) / 2) log 2.
    logits = torch.tensor([[0.0, 0.0], [math.log(7), 0.0]], dtype=DOUBLE)
    loss = gml(logits, torch.tensor([0, 1]), torch.tensor([4, 4]), power=2)
    assert loss.item() == pytest.approx(math.sqrt(5) * math.log(2), abs=1e-15)


@untimed
@given(batches(), st.floats(1, 20), st.floats(1, 20))
def test_larger_powers_look_more_at_the_worst_class(batch: Batch, one: float, two: float) -> None:
    smaller, larger = sorted([one, two])
    low, high = (batch.loss("gml", power=p).item() for p in (smaller, larger))
    worst = max(
        gml(batch.logits[rows], batch.labels[rows], batch.counts).item()
        for rows in (batch.labels == c for c in batch.labels.unique())
    )
    # The mean at power p lies between worst / C^(1/p) and worst, where all but one class are right.
    n_present = len(batch.labels.unique())
    assert low <= high + 1e-12
    assert high <= worst + 1e-12
    assert high >= worst * n_present ** (-1 / larger) - 1e-12


def test_powers_neither_overflow_nor_underflow() -> None:
    # (-log r)^300 is beyond float64 for one class, and 0 in it for the other.
    labels = torch.tensor([0, 1])
    for size in (1e4, 1e-4):
        logits = torch.tensor([[0.0, size], [0.0, size]], dtype=DOUBLE, requires_grad=True)
        loss = gml(logits, labels, torch.tensor([1, 1]), power=300)
        worst = -torch.log_softmax(logits, 1)[0, 0].item()
        # Of the two classes the mean is worst * ((1 + (other / worst)^300) / 2)^(1 / 300).
        assert worst * 0.5 ** (1 / 300) <= loss.item() <= worst * (1 + 1e-12)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()
        assert gradient.any()
