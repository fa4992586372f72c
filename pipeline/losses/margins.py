"""Cross entropy of logits that are changed class by class: LDAM's margins, VS's scales."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.losses.softmax import (
    label_index,
    mean_cross_entropy,
    mean_cross_entropy_gradient_,
    single,
)


def ldam(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    max_margin: float = 0.5,
    margin_scale: float = 30.0,
) -> Tensor:
    """Cross entropy with a margin on the true class that grows as its class gets smaller.

    Cao et al. 2019, eq. (12)-(13): margin_j = max_margin * (N_min / N_j)^(1/4) is taken from the
    true class's logit; then, as in their code, all logits are multiplied by the scale. Meant for
    the cosines of a cosine head; on a linear head's larger logits the scale makes it a hard loss.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, all above 0.
        max_margin: margin of the smallest class.
        margin_scale: factor of the logits, above 0.
    """
    logits, labels = single(logits, labels)
    adjusted = _with_margins(logits, labels, class_counts, max_margin, margin_scale)
    return mean_cross_entropy(adjusted, labels).squeeze()


def ldam_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    max_margin: float = 0.5,
    margin_scale: float = 30.0,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `ldam` and its gradient, cross entropy's at the changed logits times scale."""
    adjusted = _with_margins(logits, labels, class_counts, max_margin, margin_scale)
    loss, gradient = mean_cross_entropy_gradient_(adjusted, labels)
    return loss, gradient.mul_(margin_scale)


def margin_shares(class_counts: Tensor) -> Tensor:
    """LDAM's margin of each class as a share of the largest (C,), float64: (N_min / N_j)^(1/4).

    Cao et al. 2019, eq. (13).
    """
    counts = class_counts.to(torch.float64)
    return (counts.min() / counts).pow(0.25)


def _with_margins(
    logits: Tensor, labels: Tensor, class_counts: Tensor, max_margin: float, margin_scale: float
) -> Tensor:
    """New logits (G, B, H, C): less the true class's margin, times the scale."""
    margins = max_margin * margin_shares(class_counts).to(logits.dtype)
    # A constant in a row changes nothing; without it the scale cannot overflow.
    largest = logits.detach().amax(3, keepdim=True)
    index = label_index(labels, logits.shape[2])
    less = -margins[labels].view(*labels.shape, 1, 1).expand_as(index)
    return (logits - largest).scatter_add(3, index, less) * margin_scale


def vs(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    tau: float = 1.0,
    vs_gamma: float = 0.05,
) -> Tensor:
    """Vector-scaling loss: cross entropy of (N_j / N_max)^gamma * o_j + tau log(N_j / N).

    Kini et al. 2021, eq. (2), with scales and prior as in their code and equal row weights. The
    prior moves the decision early in the training, the scales move it once all rows are right.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, all above 0.
        tau: strength of the prior.
        vs_gamma: strength of the scales; 0 is balanced softmax.
    """
    scales, offsets = _scales_and_offsets(class_counts, logits, tau, vs_gamma)
    return mean_cross_entropy(*single(logits * scales + offsets, labels)).squeeze()


def vs_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    tau: float = 1.0,
    vs_gamma: float = 0.05,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `vs` and its gradient, cross entropy's at the changed logits times scales."""
    scales, offsets = _scales_and_offsets(class_counts, logits, tau, vs_gamma)
    loss, gradient = mean_cross_entropy_gradient_(logits.mul_(scales).add_(offsets), labels)
    return loss, gradient.mul_(scales)


def _scales_and_offsets(
    class_counts: Tensor, like: Tensor, tau: float, vs_gamma: float
) -> tuple[Tensor, Tensor]:
    """What the classes' logits are multiplied by, and what is added; (C,) each."""
    counts = class_counts.to(torch.float64)
    scales = (counts / counts.max()).pow(vs_gamma)
    offsets = tau * (counts / counts.sum()).log()
    return scales.to(like.dtype), offsets.to(like.dtype)
