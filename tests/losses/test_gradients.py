"""Gradients in closed form against autograd, for many heads at once and in every setting."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.losses import GRADIENTS, LOSSES, SHIFTED
from tests.losses.batches import DOUBLE, OWN, counts, own_settings

each_loss = pytest.mark.parametrize("name", LOSSES)


class Heads:
    """Logits (G, B, H, C) of H heads on each of G draws, and what else the gradients take."""

    def __init__(self, logits: Tensor, labels: Tensor, class_counts: Tensor, teacher: Tensor):
        self.logits, self.labels = logits, labels
        self.class_counts, self.teacher = class_counts, teacher

    def closed(self, name: str, **own: Any) -> tuple[Tensor, Tensor]:
        taught = {"teacher_logits": self.teacher} if name == "gml+distillation" else {}
        with torch.no_grad():
            # In the memory layout of the logits given, and free to be overwritten.
            return GRADIENTS[name](
                self.logits.clone(memory_format=torch.preserve_format),
                self.labels,
                self.class_counts,
                **taught,
                **own,
            )

    def in_two_parts(self, name: str, **own: Any) -> tuple[Tensor, Tensor]:
        offset, gradient = SHIFTED[name]
        taught = {"teacher_logits": self.teacher} if name == "gml+distillation" else {}
        with torch.no_grad():
            moved = offset(self.class_counts, self.logits, **taken(offset, own)) + self.logits
            return gradient(moved, self.labels, self.class_counts, **taught, **taken(gradient, own))

    def by_autograd(self, name: str, **own: Any) -> tuple[Tensor, Tensor]:
        """Loss and gradient of every draw and head by itself."""
        losses, gradients = torch.empty_like(self.logits[:, 0, :, 0]), torch.empty_like(self.logits)
        for g, h in torch.cartesian_prod(*map(torch.arange, losses.shape)).tolist():
            taught = {"teacher_logits": self.teacher[g]} if name == "gml+distillation" else {}
            logits = self.logits[g, :, h].clone().requires_grad_()
            loss = LOSSES[name](logits, self.labels[g], self.class_counts, **taught, **own)
            (gradients[g, :, h],) = torch.autograd.grad(loss, logits)
            losses[g, h] = loss.detach()
        return losses, gradients

    def check(self, name: str, **own: Any) -> None:
        references = self.by_autograd(name, **own)
        for results in (self.closed(name, **own), self.in_two_parts(name, **own)):
            for closed, reference in zip(results, references, strict=True):
                assert closed.isfinite().all()
                torch.testing.assert_close(closed, reference, rtol=1e-10, atol=1e-10)


def taken(function: Callable[..., Any], own: dict[str, Any]) -> dict[str, Any]:
    """Settings that a function has."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in own.items() if name in known}


def drawn_heads(
    n_draws: int, n_rows: int, n_heads: int, n_classes: int, seed: int = 0, size: float = 3.0
) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    shapes = (n_draws, n_rows, n_heads, n_classes), (n_draws, n_rows, n_classes)
    logits, teacher = (
        size * torch.randn(shape, dtype=DOUBLE, generator=generator) for shape in shapes
    )
    labels = torch.randint(n_classes, (n_draws, n_rows), generator=generator)
    return Heads(logits, labels, torch.linspace(500, 5, n_classes).long(), teacher)


@st.composite
def heads(draw: st.DrawFn) -> Heads:
    """Any small size: one row, one class, classes absent from a batch; logits up to some 1e4.

    Numbers come from a drawn seed, which is many times faster than drawing each of them.
    """
    shape = [draw(st.integers(1, n)) for n in (3, 6, 3, 5)]
    size = draw(st.sampled_from([0.1, 3.0, 30.0, 1e4]))
    drawn = drawn_heads(*shape, seed=draw(st.integers(0, 2**32)), size=size)
    drawn.class_counts = draw(counts(shape[-1]))
    # One class alone, as a batch of a sorted data set has it.
    if draw(st.booleans()):
        drawn.labels = drawn.labels[:, :1].expand_as(drawn.labels)
    # Exact ties, and rows that are right or wrong beyond any rounding.
    if draw(st.booleans()):
        drawn.logits, drawn.teacher = (
            size * (values / size).round() for values in (drawn.logits, drawn.teacher)
        )
    return drawn


@each_loss
@settings(deadline=None, max_examples=60)
@given(drawn=heads(), data=st.data())
def test_closed_forms_agree_with_autograd(name: str, drawn: Heads, data: st.DataObject) -> None:
    drawn.check(name, **data.draw(own_settings(name)))


@each_loss
def test_closed_forms_agree_with_autograd_at_the_size_of_real_batches(name: str) -> None:
    # 40 rows of 60 classes: most are absent from a batch, some have several rows.
    drawn_heads(3, 40, 4, 60).check(name)


@each_loss
def test_closed_forms_do_not_depend_on_the_layout_of_the_logits(name: str) -> None:
    # As a product of features with all heads' weights leaves them: classes before rows.
    drawn = drawn_heads(2, 9, 3, 5)
    loss, gradient = drawn.closed(name)
    drawn.logits = drawn.logits.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not drawn.logits.is_contiguous()
    turned_loss, turned = drawn.closed(name)
    torch.testing.assert_close(turned_loss, loss, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(turned, gradient, rtol=1e-13, atol=1e-13)


@each_loss
def test_closed_forms_in_float32_are_those_in_float64_to_rounding(name: str) -> None:
    drawn = drawn_heads(2, 30, 3, 20)
    exact_loss, exact = drawn.closed(name)
    drawn.logits, drawn.teacher = drawn.logits.float(), drawn.teacher.float()
    loss, gradient = drawn.closed(name)
    assert loss.dtype == gradient.dtype == torch.float32
    # Logits up to 10, times 30 in ldam, carry a relative error of 6e-8: 2e-5 of a probability.
    torch.testing.assert_close(loss.double(), exact_loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-4, atol=1e-5)


@each_loss
def test_gradients_agree_with_finite_differences(name: str) -> None:
    drawn = drawn_heads(1, 9, 1, 4)
    labels = torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3])
    taught = {"teacher_logits": drawn.teacher[0]} if name == "gml+distillation" else {}
    assert torch.autograd.gradcheck(
        lambda logits: LOSSES[name](logits, labels, torch.tensor([500, 40, 7, 5]), **taught),
        (drawn.logits[0, :, 0].requires_grad_(),),
    )


@each_loss
@pytest.mark.parametrize("power", [1.0, 2.5])
def test_no_shape_and_no_step_depends_on_the_data(name: str, power: float) -> None:
    # Tensors without data: reading a value back, as a GPU would have to wait for, raises.
    drawn = drawn_heads(2, 9, 3, 5)
    own = {"power": power} if "power" in OWN[name] else {}
    there = [part.to("meta") for part in (drawn.logits, drawn.labels, drawn.class_counts)]
    taught = {"teacher_logits": drawn.teacher.to("meta")} if name == "gml+distillation" else {}
    with torch.no_grad():
        loss, gradient = GRADIENTS[name](*there, **taught, **own)
    assert loss.shape == (2, 3)
    assert gradient.shape == drawn.logits.shape


@each_loss
def test_losses_leave_their_arguments_alone(name: str) -> None:
    drawn = drawn_heads(1, 9, 1, 4)
    given_ = drawn.logits[0, :, 0], drawn.labels[0], drawn.class_counts
    before = [part.clone() for part in (*given_, drawn.teacher)]
    taught = {"teacher_logits": drawn.teacher[0]} if name == "gml+distillation" else {}
    LOSSES[name](*given_, **taught)
    drawn.closed(name)
    for part, was in zip((*given_, drawn.teacher), before, strict=True):
        assert torch.equal(part, was)
