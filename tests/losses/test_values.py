"""The other losses: values derived by hand, and all losses against the slow ones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.losses import LOSSES
from tests.losses.batches import DOUBLE, Batch, batches, own_settings, untimed
from tests.losses.slow import SLOW


def equal_logits(labels: list[int], counts: list[int]) -> Batch:
    zeros = torch.zeros(len(labels), len(counts), dtype=DOUBLE)
    return Batch(zeros, torch.tensor(labels), torch.tensor(counts), zeros)


def test_every_loss_has_a_slow_reference() -> None:
    assert set(SLOW) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
@untimed
@given(batch=batches(), data=st.data())
def test_values_agree_with_the_slow_reference(name: str, batch: Batch, data: st.DataObject) -> None:
    own = data.draw(own_settings(name))
    taught = {key: teacher.tolist() for key, teacher in batch.taught(name).items()}
    plain = batch.logits.tolist(), batch.labels.tolist(), batch.counts.tolist()
    expected = SLOW[name](*plain, **taught, **own)
    assert batch.loss(name, **own).item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_cross_entropy_and_balanced_softmax_of_equal_logits() -> None:
    # Cross entropy: log C. Balanced softmax: -log of the prior, a mean over rows:
    # counts 3 and 1, labels 0, 0, 1 -> -(2 log 3/4 + log 1/4) / 3.
    batch = equal_logits([0, 0, 1], [3, 1])
    assert batch.loss("cross-entropy").item() == pytest.approx(math.log(2))
    expected = -(2 * math.log(3 / 4) + math.log(1 / 4)) / 3
    assert batch.loss("balanced-softmax").item() == pytest.approx(expected)
    # Strength 2: the prior squared, 9/10 and 1/10.
    expected = -(2 * math.log(9 / 10) + math.log(1 / 10)) / 3
    assert batch.loss("balanced-softmax", tau=2.0).item() == pytest.approx(expected)


def test_label_aware_smoothing_of_a_large_a_middling_and_a_small_class() -> None:
    # Counts 9, 5, 1: smoothing 0.4 for the largest, 0.1 for the smallest, and half way
    # 0.1 + 0.3 sin(pi / 4) = 0.312. With logits (log 2, 0, 0) p = (1/2, 1/4, 1/4), and the mean
    # of -log p is (1 + 2 + 2) / 3 log 2 = 5/3 log 2. In units of log 2:
    # class 0: 0.6 * 1 + 0.4 * 5/3; class 1: 0.688 * 2 + 0.312 * 5/3; class 2: 0.9 * 2 + 0.1 * 5/3.
    half = 0.1 + 0.3 * math.sqrt(0.5)
    rows = [(0.4, 1), (half, 2), (0.1, 2)]
    expected = [((1 - e) * own + e * 5 / 3) * math.log(2) for e, own in rows]
    logits = torch.tensor([[math.log(2), 0.0, 0.0]], dtype=DOUBLE)
    for y in range(3):
        batch = Batch(logits, torch.tensor([y]), torch.tensor([9, 5, 1]), logits)
        value = batch.loss("label-aware-smoothing").item()
        assert value == pytest.approx(expected[y], abs=1e-15)


def test_label_aware_smoothing_of_classes_of_one_size_is_the_tails() -> None:
    # p = (2/3, 1/3), labels 1, smoothing 0.1: 0.95 log 3 + 0.05 log 3/2.
    logits = torch.tensor([[math.log(2), 0.0]], dtype=DOUBLE)
    batch = Batch(logits, torch.tensor([1]), torch.tensor([6, 6]), logits)
    expected = 0.95 * math.log(3) + 0.05 * math.log(3 / 2)
    assert batch.loss("label-aware-smoothing").item() == pytest.approx(expected, abs=1e-15)


def test_gml_and_label_aware_smoothing_are_added() -> None:
    # Counts 3 and 1, equal logits: GML -(log 3/4 + log 1/4) / 2; smoothing changes nothing at
    # equal probabilities: log 2.
    expected = -(math.log(3 / 4) + math.log(1 / 4)) / 2 + math.log(2)
    value = equal_logits([0, 0, 1], [3, 1]).loss("gml+label-aware-smoothing").item()
    assert value == pytest.approx(expected, abs=1e-15)


def test_ldam_takes_the_margin_from_the_true_class() -> None:
    # Counts 16 and 1: N^(-1/4) is 1/2 and 1, the margins 1/4 and 1/2; scale 4 makes them 1 and 2.
    # Equal logits: p = 1 / (1 + e) for class 0 and 1 / (1 + e^2) for class 1.
    batch = equal_logits([0, 1], [16, 1])
    expected = (math.log(1 + math.e) + math.log(1 + math.e**2)) / 2
    assert batch.loss("ldam", margin_scale=4.0).item() == pytest.approx(expected, abs=1e-15)


def test_focal_of_two_rows() -> None:
    # p = 3/4 and p = 1/4 at gamma 2: -(1/16 log 3/4 + 9/16 log 1/4) / 2.
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]], dtype=DOUBLE)
    batch = Batch(logits, torch.tensor([0, 1]), torch.tensor([1, 1]), logits)
    expected = -(math.log(3 / 4) / 16 + 9 * math.log(1 / 4) / 16) / 2
    assert batch.loss("focal").item() == pytest.approx(expected, abs=1e-15)


def test_class_balanced_weighs_with_effective_numbers() -> None:
    # beta 1/2, counts 1 and 2: effective numbers (1 - 1/2) / (1/2) = 1 and (1 - 1/4) / (1/2) = 3/2;
    # weights 1 and 2/3, scaled to a sum of 2: 6/5 and 4/5. Equal logits: log 2 a row;
    # labels 0, 1, 1: (6/5 + 2 * 4/5) / 3 log 2 = 14/15 log 2.
    batch = equal_logits([0, 1, 1], [1, 2])
    value = batch.loss("class-balanced", beta=0.5).item()
    assert value == pytest.approx(14 / 15 * math.log(2), abs=1e-15)


def test_class_balanced_near_beta_1_weighs_with_the_inverse_counts() -> None:
    # Weights 1 / 1000 and 1 / 10 scaled to a sum of 2: 2/101 and 200/101.
    batch = equal_logits([1], [1000, 10])
    value = batch.loss("class-balanced", beta=1 - 1e-12).item()
    assert value == pytest.approx(200 / 101 * math.log(2), rel=1e-6)


def test_vs_scales_and_shifts_the_logits() -> None:
    # Counts 4 and 1, gamma 1/2: scales 1 and 1/2; tau 1: offsets log 4/5 and log 1/5.
    # Logits (0, 2 log 8) become (log 4/5, log 8/5): p = 1/3 and 2/3.
    logits = torch.tensor([[0.0, 2 * math.log(8)]], dtype=DOUBLE)
    for y, p in ((0, 1 / 3), (1, 2 / 3)):
        batch = Batch(logits, torch.tensor([y]), torch.tensor([4, 1]), logits)
        assert batch.loss("vs", vs_gamma=0.5).item() == pytest.approx(-math.log(p), abs=1e-15)


def test_the_regulariser_of_lade_is_largest_where_logits_are_the_densities_ratio() -> None:
    # One feature with two values: of class 0 three rows in four have x = 0, of class 1 one in
    # four. Under equally frequent classes p(x) = 1/2 each, so log p(x | c) / p(x) is log 3/2 and
    # log 1/2: at these logits, the bound of each class is the divergence
    # 3/4 log 3/2 + 1/4 log 1/2, and Z_c = 0. Class 0 has twice the rows of class 1: the rows'
    # frequencies must not matter beside the classes' weights 2/3 and 1/3, whose sum is 1.
    x_and_y = [(0, 0)] * 6 + [(1, 0)] * 2 + [(0, 1)] + [(1, 1)] * 3
    high, low = math.log(3 / 2), math.log(1 / 2)
    table = {0: [high, low], 1: [low, high]}
    logits = torch.tensor([table[x] for x, _ in x_and_y], dtype=DOUBLE, requires_grad=True)
    labels = torch.tensor([y for _, y in x_and_y])
    batch = Batch(logits, labels, torch.tensor([800, 400]), logits)
    regulariser = batch.loss("lade", lade_weight=1.0) - batch.loss("balanced-softmax")
    divergence = 3 / 4 * high + 1 / 4 * low
    assert regulariser.item() == pytest.approx(-divergence, abs=1e-14)
    # It is the optimum over functions of x: the gradient, summed over rows with one x, is 0.
    (gradient,) = torch.autograd.grad(regulariser, logits)
    at_zero = torch.tensor([x == 0 for x, _ in x_and_y])
    for rows in (at_zero, ~at_zero):
        assert gradient[rows].sum(0).tolist() == pytest.approx([0, 0], abs=1e-14)


def test_distillation_is_the_divergence_from_the_old_head() -> None:
    # Equal counts, w = 1, T = 2: the old head's logits (2 log 3, 0) give (3/4, 1/4) at T, the new
    # head's (0, 0) give (1/2, 1/2): 4 * (3/4 log 3/2 + 1/4 log 1/2).
    new = torch.zeros(1, 2, dtype=DOUBLE)
    old = torch.tensor([[2 * math.log(3), 0.0]], dtype=DOUBLE)
    batch = Batch(new, torch.tensor([0]), torch.tensor([5, 5]), old)
    soft = 4 * (3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2))
    assert batch.loss("gml+distillation", distill_weight=1.0).item() == pytest.approx(soft)
    # At w = 1/4 beside GML's log 2.
    mixed = batch.loss("gml+distillation", distill_weight=0.25).item()
    assert mixed == pytest.approx(3 / 4 * math.log(2) + soft / 4)
