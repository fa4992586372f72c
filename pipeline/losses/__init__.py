"""Losses for re-training a linear head: pure functions of logits, labels and training counts.

Every loss has the form `(logits, labels, class_counts) -> scalar`; a setting of its own is a
keyword-only argument named like the field of `FitConfig` that fills it. Beside it stands its
gradient in closed form, for many heads at once: most are a cross entropy's of changed logits, with
weights on the rows.
B batch rows, C classes, G draws with batches of their own, H heads on each draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from pipeline.losses.cross_entropies import (
    balanced_softmax,
    balanced_softmax_gradient,
    balanced_softmax_offset,
    class_balanced,
    class_balanced_gradient,
    cross_entropy,
    cross_entropy_gradient,
    focal,
    focal_gradient,
)
from pipeline.losses.disentangling import lade, lade_gradient
from pipeline.losses.distillation import gml_distillation, gml_distillation_gradient
from pipeline.losses.geometric_mean import (
    gml,
    gml_gradient,
    gml_offset,
    gml_shifted_gradient,
)
from pipeline.losses.margins import ldam, ldam_gradient, vs, vs_gradient
from pipeline.losses.smoothing import (
    gml_label_aware_smoothing,
    gml_label_aware_smoothing_gradient,
    label_aware_smoothing,
    label_aware_smoothing_gradient,
)

__all__ = [
    "GRADIENTS",
    "LOSSES",
    "SHIFTED",
    "Gradient",
    "Loss",
    "Shifted",
    "balanced_softmax",
    "cross_entropy",
    "gml",
]

Loss = Callable[..., Tensor]
"""`(logits (B, C), labels (B,) int64, class_counts (C,), *, own settings) -> scalar`,
differentiable in logits. A loss with the keyword `teacher_logits` (B, C) needs the old head's."""

Gradient = Callable[..., tuple[Tensor, Tensor]]
"""`(logits (G, B, H, C), labels (G, B) int64, class_counts (C,), *, own settings)
-> (loss (G, H), gradient (G, B, H, C))`.

For every g and h the value and the gradient of the loss on `logits[g, :, h]` and `labels[g]`; the
old head's logits, where the loss needs them, are `teacher_logits` (G, B, C). The logits are
overwritten, and the gradient may share their memory. Without autograd (call it under
`torch.no_grad()`), without shapes that depend on the data, without synchronisation of a GPU.
"""

_PAIRS: Mapping[str, tuple[Loss, Gradient]] = {
    "gml": (gml, gml_gradient),
    "cross-entropy": (cross_entropy, cross_entropy_gradient),
    "balanced-softmax": (balanced_softmax, balanced_softmax_gradient),
    "label-aware-smoothing": (label_aware_smoothing, label_aware_smoothing_gradient),
    "gml+label-aware-smoothing": (gml_label_aware_smoothing, gml_label_aware_smoothing_gradient),
    "ldam": (ldam, ldam_gradient),
    "focal": (focal, focal_gradient),
    "class-balanced": (class_balanced, class_balanced_gradient),
    "vs": (vs, vs_gradient),
    "lade": (lade, lade_gradient),
    "gml+distillation": (gml_distillation, gml_distillation_gradient),
}

LOSSES: Mapping[str, Loss] = MappingProxyType({name: loss for name, (loss, _) in _PAIRS.items()})
"""Losses by the names that `FitConfig.loss` knows."""

GRADIENTS: Mapping[str, Gradient] = MappingProxyType(
    {name: gradient for name, (_, gradient) in _PAIRS.items()}
)
"""Their gradients, by the same names and with the same settings."""


class Shifted(NamedTuple):
    """A loss that looks at logits with an offset for each class, in two parts.

    Who computes the logits can add the offset to their bias, which spares a pass over all of them.
    """

    offset: Callable[..., Tensor]
    """`(class_counts (C,), like, *, own settings) -> (C,)` of another tensor's type."""

    gradient: Gradient
    """The loss and its gradient for logits that have the offset already."""


def no_offset(class_counts: Tensor, like: Tensor) -> Tensor:
    """0 for each class, of another tensor's type."""
    return like.new_zeros(len(class_counts))


SHIFTED: Mapping[str, Shifted] = MappingProxyType(
    {name: Shifted(no_offset, gradient) for name, gradient in GRADIENTS.items()}
    | {
        "gml": Shifted(gml_offset, gml_shifted_gradient),
        "balanced-softmax": Shifted(balanced_softmax_offset, cross_entropy_gradient),
    }
)
"""The same in two parts; most losses also look at the logits as they are, and have no offset."""
