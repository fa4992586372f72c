"""The Geometric Mean Loss beside the old head's probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.losses.geometric_mean import gml, gml_gradient
from pipeline.losses.softmax import mean_over_rows, single


def gml_distillation(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    teacher_logits: Tensor,
    reweight: bool = True,
    power: float = 1.0,
    distill_weight: float = 0.5,
    distill_temperature: float = 2.0,
) -> Tensor:
    """(1 - w) * `gml` + w * T^2 * divergence of the new head's probabilities from the old head's.

    Hinton et al. 2015: Kullback-Leibler divergence of softmax(o / T) from softmax(teacher / T), the
    mean over rows (their cross entropy, less what does not depend on the new head); T^2 keeps its
    gradient of one size for all temperatures. The new head's logits enter as they are used at test
    time, without the counts.

    Args:
        logits: (B, C) floating point, of the new head.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, above 0 for every class in the batch.
        teacher_logits: (B, C) of the old head for the same rows.
        reweight: of `gml`.
        power: of `gml`.
        distill_weight: w, from 0, which is `gml`, to 1.
        distill_temperature: T, above 0.
    """
    hard = gml(logits, labels, class_counts, reweight=reweight, power=power)
    teacher = _log_softmax_at(teacher_logits[None, :, None], distill_temperature)
    student = _log_softmax_at(single(logits, labels)[0], distill_temperature)
    soft = _divergence(student, teacher, distill_temperature).squeeze()
    return (1 - distill_weight) * hard + distill_weight * soft


def gml_distillation_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    teacher_logits: Tensor,
    reweight: bool = True,
    power: float = 1.0,
    distill_weight: float = 0.5,
    distill_temperature: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `gml_distillation` and its gradient; the teacher's logits are (G, B, C).

    The divergence's, T^2 included, is T / B * (softmax(o_i / T) - softmax(teacher_i / T)).
    """
    teacher = _log_softmax_at(teacher_logits.unsqueeze(2), distill_temperature)
    student = _log_softmax_at(logits, distill_temperature)
    soft = _divergence(student, teacher, distill_temperature)
    hard, gradient = gml_gradient(logits, labels, class_counts, reweight=reweight, power=power)
    pull = student.exp_().sub_(teacher.exp())
    gradient.mul_(1 - distill_weight)
    gradient.add_(pull, alpha=distill_weight * distill_temperature / logits.shape[1])
    return (1 - distill_weight) * hard + distill_weight * soft, gradient


def _log_softmax_at(logits: Tensor, temperature: float) -> Tensor:
    """New log probabilities (G, B, H, C) at a temperature."""
    # A constant in a row changes nothing; without it a low temperature cannot overflow.
    return ((logits - logits.detach().amax(3, keepdim=True)) / temperature).log_softmax(3)


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the divergence of log probabilities (G, B, H, C) from the teacher's, (G, H)."""
    # Log probabilities at the end of the floating point range are cut off, with room for T^2.
    lowest = torch.finfo(student.dtype).min / (4 * max(1, temperature**2))
    gaps = teacher.clamp_min(lowest) - student.clamp_min(lowest)
    return temperature**2 * mean_over_rows((teacher.exp() * gaps).sum(3))
