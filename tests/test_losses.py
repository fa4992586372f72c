"""Losses against hand-derived values, a slow reference, closed-form gradients and their laws."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config import FitConfig
from pipeline.losses import LOSSES, balanced_softmax, cross_entropy, gml

untimed = settings(deadline=None)  # torch loads parts of itself at their first use
DOUBLE = torch.float64
FLOAT32_MAX = torch.finfo(torch.float32).max


def batches(max_logit: float = 20.0) -> st.SearchStrategy[tuple[Tensor, Tensor, Tensor]]:
    """Logits (B, C) float64, labels (B,) and counts (C,) of any small size."""

    @st.composite
    def draw(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
        n_rows, n_classes = draw(st.integers(1, 7)), draw(st.integers(1, 5))
        logit = st.floats(-max_logit, max_logit)
        row = st.lists(logit, min_size=n_classes, max_size=n_classes)
        logits = draw(st.lists(row, min_size=n_rows, max_size=n_rows))
        label = st.integers(0, n_classes - 1)
        labels = draw(st.lists(label, min_size=n_rows, max_size=n_rows))
        counts = draw(st.lists(st.integers(1, 2000), min_size=n_classes, max_size=n_classes))
        return torch.tensor(logits, dtype=DOUBLE), torch.tensor(labels), torch.tensor(counts)

    return draw()


def slow_probabilities(logits: list[float], counts: list[int]) -> list[float]:
    """Eq. (3) for one row, literally but for the largest exponent that is taken out."""
    top = max(logits)
    parts = [n * math.exp(o - top) for n, o in zip(counts, logits, strict=True)]
    return [part / math.fsum(parts) for part in parts]


def slow_gml(logits: Tensor, labels: Tensor, class_counts: Tensor) -> float:
    """Eq. (1)-(3) in plain Python, class by class and row by row."""
    of_class: dict[int, list[float]] = {}
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        p = slow_probabilities(row, class_counts.tolist())
        of_class.setdefault(label, []).append(p[label])
    logs = [math.log(math.fsum(ps) / len(ps)) for ps in of_class.values()]
    return -math.fsum(logs) / len(logs)


def slow_gml_gradient(logits: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    """Weighted cross entropy: (p_i - onehot) p_{i,y} / (sum of p over the class) / C_present."""
    p = [slow_probabilities(row, class_counts.tolist()) for row in logits.tolist()]
    y = labels.tolist()
    sums = {c: math.fsum(p[i][c] for i in range(len(y)) if y[i] == c) for c in set(y)}
    rows = []
    for i, c in enumerate(y):
        weight = p[i][c] / sums[c] / len(sums)
        rows.append([weight * (p_ij - (j == c)) for j, p_ij in enumerate(p[i])])
    return torch.tensor(rows, dtype=DOUBLE)


def test_gml_of_equal_logits_is_the_log_of_the_priors() -> None:
    # Equal logits, counts 3 and 1: by eq. (3) p is 3/4 for class 0 and 1/4 for class 1.
    # r = (3/4, 1/4), whatever the number of rows: loss = -(log 3/4 + log 1/4) / 2.
    logits, labels = torch.zeros(3, 2, dtype=DOUBLE), torch.tensor([0, 0, 1])
    loss = gml(logits, labels, torch.tensor([3, 1]))
    assert loss.item() == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2, abs=1e-15)


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


def test_cross_entropy_and_balanced_softmax_of_equal_logits() -> None:
    # Cross entropy: log C. Balanced softmax: -log of the prior, a mean over rows:
    # counts 3 and 1, labels 0, 0, 1 -> -(2 log 3/4 + log 1/4) / 3.
    logits, labels, counts = torch.zeros(3, 2), torch.tensor([0, 0, 1]), torch.tensor([3, 1])
    assert cross_entropy(logits, labels, counts).item() == pytest.approx(math.log(2))
    expected = -(2 * math.log(3 / 4) + math.log(1 / 4)) / 3
    assert balanced_softmax(logits, labels, counts).item() == pytest.approx(expected)


@untimed
@given(batches())
def test_gml_agrees_with_the_slow_reference(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    assert gml(*batch).item() == pytest.approx(slow_gml(*batch), rel=1e-10, abs=1e-10)


@untimed
@given(batches())
def test_gradient_of_gml_is_the_closed_form(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, counts = batch
    (gradient,) = torch.autograd.grad(gml(logits.requires_grad_(), labels, counts), logits)
    torch.testing.assert_close(
        gradient, slow_gml_gradient(logits, labels, counts), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    logits = torch.randn(9, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    labels, counts = torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3]), torch.tensor([500, 40, 7, 5])
    assert torch.autograd.gradcheck(
        lambda o: LOSSES[name](o, labels, counts), (logits.requires_grad_(),)
    )


@pytest.mark.parametrize("name", LOSSES)
@untimed
@given(batch=batches())
def test_a_constant_added_to_a_row_changes_nothing(
    name: str, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    logits, labels, counts = batch
    shifts = torch.linspace(-50, 50, len(logits), dtype=DOUBLE).unsqueeze(1)
    shifted = LOSSES[name](logits + shifts, labels, counts)
    torch.testing.assert_close(shifted, LOSSES[name](*batch), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", LOSSES)
@untimed
@given(batch=batches(), data=st.data())
def test_the_order_of_classes_and_of_rows_changes_nothing(
    name: str, batch: tuple[Tensor, Tensor, Tensor], data: st.DataObject
) -> None:
    logits, labels, counts = batch
    classes = torch.tensor(data.draw(st.permutations(range(len(counts)))))
    rows = torch.tensor(data.draw(st.permutations(range(len(labels)))))
    permuted = LOSSES[name](
        logits[rows][:, classes], classes.argsort()[labels[rows]], counts[classes]
    )
    torch.testing.assert_close(permuted, LOSSES[name](*batch), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["gml", "balanced-softmax"])
@untimed
@given(batch=batches(), factor=st.integers(2, 1000))
def test_only_the_ratios_of_the_counts_matter(
    name: str, batch: tuple[Tensor, Tensor, Tensor], factor: int
) -> None:
    logits, labels, counts = batch
    scaled = LOSSES[name](logits, labels, factor * counts)
    torch.testing.assert_close(scaled, LOSSES[name](*batch), rtol=0, atol=1e-11)


@untimed
@given(batch=batches(), count=st.integers(1, 1000))
def test_balanced_counts_do_not_reweight(batch: tuple[Tensor, Tensor, Tensor], count: int) -> None:
    logits, labels, counts = batch
    balanced = torch.full_like(counts, count)
    torch.testing.assert_close(
        balanced_softmax(logits, labels, balanced),
        cross_entropy(logits, labels, balanced),
        rtol=0,
        atol=1e-11,
    )


@untimed
@given(batches())
def test_gml_weighs_classes_not_rows(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, labels, counts = batch
    twice = labels == labels[0]
    more = torch.cat([logits, logits[twice]]), torch.cat([labels, labels[twice]]), counts
    torch.testing.assert_close(gml(*more), gml(*batch), rtol=0, atol=1e-11)


@untimed
@given(batches())
def test_of_one_row_a_class_gml_is_balanced_softmax(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, _, counts = batch
    n = min(len(logits), len(counts))
    one_each = logits[:n], torch.arange(n), counts
    torch.testing.assert_close(gml(*one_each), balanced_softmax(*one_each), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_predictions_cost_nothing(name: str) -> None:
    labels = torch.tensor([0, 0, 1, 2])
    logits = 1e4 * torch.nn.functional.one_hot(labels, 3).float()
    assert LOSSES[name](logits, labels, torch.tensor([1000, 10, 1])).item() == 0.0


def test_gml_of_hopeless_logits_is_their_distance() -> None:
    # The true class is 2e4 below the other, equal counts: log p = -2e4 in every row.
    labels = torch.tensor([0, 0, 1])
    logits = 1e4 - 2e4 * torch.nn.functional.one_hot(labels, 2).float()
    assert gml(logits, labels, torch.tensor([3, 3])).item() == pytest.approx(2e4)


@untimed
@example([-FLOAT32_MAX, FLOAT32_MAX, -FLOAT32_MAX, FLOAT32_MAX, FLOAT32_MAX, -FLOAT32_MAX])
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
def test_gml_and_its_gradient_are_finite_for_any_finite_logits(values: list[float]) -> None:
    logits = torch.tensor(values, dtype=torch.float32).view(3, 2).requires_grad_()
    loss = gml(logits, torch.tensor([0, 0, 1]), torch.tensor([500, 5]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_far_row_does_not_hide_its_class_from_the_gradient() -> None:
    # One row at p = e^-1000 beside one at p = e^-2: the near row carries the class's gradient,
    # weight p / (sum of p) = 1 in floating point; the far row's weight is 0.
    logits = torch.tensor([[-1000.0, 0.0], [-2.0, 0.0]], dtype=DOUBLE, requires_grad=True)
    loss = gml(logits, torch.tensor([0, 0]), torch.tensor([1, 1]))
    (gradient,) = torch.autograd.grad(loss, logits)
    p = 1 / (1 + math.exp(2))
    expected = torch.tensor([[0.0, 0.0], [p - 1, 1 - p]], dtype=DOUBLE)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-15)


def test_the_settings_know_the_losses() -> None:
    assert set(get_args(get_type_hints(FitConfig)["loss"])) == set(LOSSES)


def test_gml_is_finite_in_half_precision_with_large_counts() -> None:
    # 100,000 is beyond the largest float16, 65,504.
    counts = torch.tensor([100_000, 5, 1])
    logits = torch.zeros(3, 3, dtype=torch.float16)
    labels = torch.arange(3)
    exact = gml(logits.double(), labels, counts).item()
    assert gml(logits, labels, counts).item() == pytest.approx(exact, rel=2e-3)
