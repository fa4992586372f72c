"""Laws of the losses: what must not matter, what one setting makes of a loss, what stays finite."""

from __future__ import annotations

import inspect
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config import FitConfig
from pipeline.losses import GRADIENTS, LOSSES, balanced_softmax, cross_entropy
from tests.losses.batches import OWN, Batch, batches, untimed

FLOAT32_MAX = torch.finfo(torch.float32).max
each_loss = pytest.mark.parametrize("name", LOSSES)


def test_the_settings_know_the_losses() -> None:
    assert set(get_args(get_type_hints(FitConfig)["loss"])) == set(LOSSES) == set(GRADIENTS)


@each_loss
def test_own_settings_are_the_configurations_with_its_defaults(name: str) -> None:
    defaults = FitConfig()
    for function in (LOSSES[name], GRADIENTS[name]):
        own = {
            key: parameter.default
            for key, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and key != "teacher_logits"
        }
        assert own == {key: getattr(defaults, key) for key in OWN[name]}


# vs scales the logits class by class, lade compares rows with each other.
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"vs", "lade"}))
@untimed
@given(batch=batches())
def test_a_constant_added_to_a_row_changes_nothing(name: str, batch: Batch) -> None:
    shifts = torch.linspace(-50, 50, len(batch.labels), dtype=torch.float64).unsqueeze(1)
    shifted = batch._replace(logits=batch.logits + shifts, teacher=batch.teacher - shifts)
    torch.testing.assert_close(shifted.loss(name), batch.loss(name), rtol=1e-12, atol=1e-11)


@each_loss
@untimed
@given(batch=batches(), data=st.data())
def test_the_order_of_classes_and_of_rows_changes_nothing(
    name: str, batch: Batch, data: st.DataObject
) -> None:
    logits, labels, counts, teacher = batch
    classes = torch.tensor(data.draw(st.permutations(range(len(counts)))))
    rows = torch.tensor(data.draw(st.permutations(range(len(labels)))))
    permuted = Batch(
        logits[rows][:, classes],
        classes.argsort()[labels[rows]],
        counts[classes],
        teacher[rows][:, classes],
    )
    torch.testing.assert_close(permuted.loss(name), batch.loss(name), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("name", ["gml", "balanced-softmax", "ldam", "vs", "lade"])
@untimed
@given(batch=batches(), factor=st.integers(2, 1000))
def test_only_the_ratios_of_the_counts_matter(name: str, batch: Batch, factor: int) -> None:
    scaled = batch._replace(counts=factor * batch.counts)
    torch.testing.assert_close(scaled.loss(name), batch.loss(name), rtol=1e-12, atol=1e-11)


@untimed
@given(batch=batches(), count=st.integers(1, 1000))
def test_balanced_counts_do_not_reweight(batch: Batch, count: int) -> None:
    batch = batch._replace(counts=torch.full_like(batch.counts, count))
    plain = batch.loss("cross-entropy")
    for name in ("balanced-softmax", "class-balanced", "vs"):
        torch.testing.assert_close(batch.loss(name), plain, rtol=0, atol=1e-11)
    unweighted = batch.loss("gml", reweight=False)
    torch.testing.assert_close(batch.loss("gml"), unweighted, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "own", "simpler"),
    [
        ("balanced-softmax", {"tau": 0.0}, "cross-entropy"),
        ("label-aware-smoothing", {"smooth_head": 0.0, "smooth_tail": 0.0}, "cross-entropy"),
        ("ldam", {"max_margin": 0.0, "margin_scale": 1.0}, "cross-entropy"),
        ("focal", {"focal_gamma": 0.0}, "cross-entropy"),
        ("class-balanced", {"beta": 0.0}, "cross-entropy"),
        ("vs", {"vs_gamma": 0.0}, "balanced-softmax"),
        ("vs", {"vs_gamma": 0.0, "tau": 0.0}, "cross-entropy"),
        ("lade", {"lade_weight": 0.0}, "balanced-softmax"),
        ("gml+distillation", {"distill_weight": 0.0}, "gml"),
        # Nearly 1: the exact 1 is another branch.
        ("gml", {"power": 1 + 1e-14}, "gml"),
    ],
)
@untimed
@given(batch=batches())
def test_a_setting_of_nothing_gives_the_simpler_loss(
    name: str, own: dict[str, float], simpler: str, batch: Batch
) -> None:
    torch.testing.assert_close(batch.loss(name, **own), batch.loss(simpler), rtol=1e-12, atol=1e-11)


@untimed
@given(batch=batches())
def test_there_is_nothing_to_learn_from_an_old_head_that_agrees(batch: Batch) -> None:
    alike = batch._replace(teacher=batch.logits + 3)
    loss = alike.loss("gml+distillation", distill_weight=1.0)
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("gml", {}),
        ("gml", {"reweight": False}),
        ("gml", {"power": 3.0}),
        *((n, {}) for n in ("cross-entropy", "balanced-softmax", "ldam", "focal", "vs")),
        ("focal", {"focal_gamma": 0.5}),
        ("class-balanced", {}),
    ],
)
def test_perfect_predictions_cost_nothing(name: str, own: dict[str, float]) -> None:
    labels = torch.tensor([0, 0, 1, 2])
    logits = 1e4 * torch.nn.functional.one_hot(labels, 3).float().requires_grad_()
    loss = LOSSES[name](logits, labels, torch.tensor([1000, 10, 1]), **own)
    assert loss.item() == 0.0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient.any()


# The square in lade overflows beyond logits of 1e19.
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"lade"}))
@untimed
@example(values=[-FLOAT32_MAX, FLOAT32_MAX] * 2 + [FLOAT32_MAX, -FLOAT32_MAX])
@given(
    values=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6
    )
)
def test_losses_and_their_gradients_are_finite_for_any_finite_logits(
    name: str, values: list[float]
) -> None:
    labels, counts = torch.tensor([0, 0, 1]), torch.tensor([500, 5])
    logits = torch.tensor(values, dtype=torch.float32).view(3, 2).requires_grad_()
    batch = Batch(logits, labels, counts, logits.detach().flip(1))
    loss = batch.loss(name)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    taught = {key: teacher[None] for key, teacher in batch.taught(name).items()}
    with torch.no_grad():
        closed = GRADIENTS[name](logits[None, :, None].clone(), labels[None], counts, **taught)
    assert all(part.isfinite().all() for part in closed)


def test_balanced_softmax_of_a_count_of_zero_outside_the_batch() -> None:
    # A class without training rows has the prior 0: it takes no probability. At tau 0 it does.
    logits, labels, counts = torch.zeros(1, 3), torch.tensor([0]), torch.tensor([2, 2, 0])
    prior = balanced_softmax(logits, labels, counts)
    torch.testing.assert_close(prior, torch.tensor(2.0).log())
    none = balanced_softmax(logits, labels, counts, tau=0.0)
    torch.testing.assert_close(none, cross_entropy(logits, labels, counts))
