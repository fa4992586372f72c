"""Batches and settings that the tests of the losses draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.losses import LOSSES

untimed = settings(deadline=None, max_examples=50)  # torch loads parts of itself at their first use
DOUBLE = torch.float64


class Batch(NamedTuple):
    """What a loss is called with; the old head's logits only where it asks for them."""

    logits: Tensor
    labels: Tensor
    counts: Tensor
    teacher: Tensor

    def loss(self, name: str, **own: Any) -> Tensor:
        return LOSSES[name](self.logits, self.labels, self.counts, **self.taught(name), **own)

    def taught(self, name: str) -> dict[str, Tensor]:
        return {"teacher_logits": self.teacher} if name == "gml+distillation" else {}


def batches(max_logit: float = 20.0, max_classes: int = 5) -> st.SearchStrategy[Batch]:
    """Logits (B, C) float64, labels (B,) and counts (C,) of any small size."""

    @st.composite
    def draw(draw: st.DrawFn) -> Batch:
        n_rows, n_classes = draw(st.integers(1, 7)), draw(st.integers(1, max_classes))
        logits, teacher = (tensor(draw, (n_rows, n_classes), max_logit) for _ in range(2))
        labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=n_rows, max_size=n_rows))
        return Batch(logits, torch.tensor(labels), draw(counts(n_classes)), teacher)

    return draw()


def tensor(draw: st.DrawFn, shape: tuple[int, ...], largest: float) -> Tensor:
    """Float64 numbers up to a size."""
    size = torch.Size(shape).numel()
    values = draw(st.lists(st.floats(-largest, largest), min_size=size, max_size=size))
    return torch.tensor(values, dtype=DOUBLE).view(shape)


def counts(n_classes: int) -> st.SearchStrategy[Tensor]:
    """Training counts (C,) int64."""
    each = st.lists(st.integers(1, 2000), min_size=n_classes, max_size=n_classes)
    return each.map(torch.tensor)


def own_settings(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of the loss of a name, each over the range that the configuration allows."""
    return st.fixed_dictionaries({}, optional=OWN[name])


_OF_GML = {"reweight": st.booleans(), "power": st.just(1.0) | st.floats(1, 8)}
_OF_SMOOTHING = {"smooth_head": st.floats(0, 0.99), "smooth_tail": st.floats(0, 0.99)}
OWN: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "gml": _OF_GML,
    "cross-entropy": {},
    "balanced-softmax": {"tau": st.floats(0, 3)},
    "label-aware-smoothing": _OF_SMOOTHING,
    "gml+label-aware-smoothing": _OF_GML | _OF_SMOOTHING,
    "ldam": {"max_margin": st.floats(0, 2), "margin_scale": st.floats(0.1, 40)},
    "focal": {"focal_gamma": st.just(0.0) | st.floats(0.1, 5)},
    "class-balanced": {"beta": st.just(0.0) | st.floats(0.5, 0.99999)},
    "vs": {"tau": st.floats(0, 3), "vs_gamma": st.floats(0, 1)},
    "lade": {"lade_weight": st.floats(0, 2), "lade_square": st.floats(0, 1)},
    "gml+distillation": _OF_GML
    | {"distill_weight": st.floats(0, 1), "distill_temperature": st.floats(0.2, 10)},
}
"""What the settings of each loss are drawn from."""
