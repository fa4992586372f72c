"""Cross entropy, with the training prior or with weights on the batch rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.losses.softmax import (
    log_counts,
    log_true,
    mean_cross_entropy,
    mean_cross_entropy_gradient_,
    mean_over_rows,
    shift_,
    single,
    softmax_,
    weighted_gradient_,
)


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,  # noqa: ARG001  # every loss is called alike
) -> Tensor:
    """Mean cross entropy over the batch rows, the baseline that favours large classes.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,), not used.
    """
    return mean_cross_entropy(*single(logits, labels)).squeeze()


def cross_entropy_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,  # noqa: ARG001  # every loss is called alike
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `cross_entropy` and its gradient (softmax(o_i) - onehot(y_i)) / B."""
    return mean_cross_entropy_gradient_(logits, labels)


def balanced_softmax(
    logits: Tensor, labels: Tensor, class_counts: Tensor, *, tau: float = 1.0
) -> Tensor:
    """Cross entropy of the logits o_j + tau log N_j; at tau 1 of the probabilities of eq. (3).

    Ren et al. 2020, eq. (3)-(4), for tau 1; the logit-adjusted loss of Menon et al. 2021, eq. (10),
    for others. The mean over rows, where `gml` takes the logarithm of means over classes.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, above 0 for every class in the batch.
        tau: strength of the prior; 0 is cross entropy.
    """
    prior = balanced_softmax_offset(class_counts, logits, tau=tau)
    return mean_cross_entropy(*single(logits + prior, labels)).squeeze()


def balanced_softmax_offset(class_counts: Tensor, like: Tensor, *, tau: float = 1.0) -> Tensor:
    """What `balanced_softmax` adds to every row's logits, tau log N (C,) of another's type."""
    return log_counts(class_counts, like, tau)


def balanced_softmax_gradient(
    logits: Tensor, labels: Tensor, class_counts: Tensor, *, tau: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `balanced_softmax` and its gradient, cross entropy's at o + tau log N."""
    shifted = logits.add_(balanced_softmax_offset(class_counts, logits, tau=tau))
    return mean_cross_entropy_gradient_(shifted, labels)


def class_balanced(
    logits: Tensor, labels: Tensor, class_counts: Tensor, *, beta: float = 0.9999
) -> Tensor:
    """Cross entropy whose rows weigh the inverse of their class's effective number of samples.

    Cui et al. 2019, eq. (2) and (8): a class of N rows counts as (1 - beta^N) / (1 - beta)
    samples; the weights are scaled to a mean of 1 over all classes.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, all above 0.
        beta: from 0, which is cross entropy, to below 1, near which the weights become 1 / N.
    """
    weights = effective_weights(class_counts, beta).to(logits.dtype)[labels]
    return mean_cross_entropy(*single(logits, labels), weights[None]).squeeze()


def class_balanced_gradient(
    logits: Tensor, labels: Tensor, class_counts: Tensor, *, beta: float = 0.9999
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `class_balanced` and its gradient, cross entropy's times the weights."""
    weights = effective_weights(class_counts, beta).to(logits.dtype)[labels]
    return mean_cross_entropy_gradient_(logits, labels, weights)


def effective_weights(class_counts: Tensor, beta: float) -> Tensor:
    """The inverse of each class's effective number of samples (C,), float64, their mean 1.

    Cui et al. 2019, eq. (2): a class of N rows counts as (1 - beta^N) / (1 - beta) samples.

    Args:
        class_counts: (C,) training rows of each class, all above 0.
        beta: from 0, where all weigh the same, to below 1.
    """
    # 1 - beta^N for a beta near 1, without the loss of digits of that difference.
    log_beta = math.log(beta) if beta > 0 else -math.inf
    weights = -1 / torch.expm1(class_counts.to(torch.float64) * log_beta)
    return weights / weights.mean()


def focal(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,  # noqa: ARG001  # every loss is called alike
    *,
    focal_gamma: float = 2.0,
) -> Tensor:
    """Mean of -(1 - p_i)^gamma log p_i over the batch rows, p_i the softmax at the true class.

    Lin et al. 2017, eq. (4), with a softmax in place of the logistic function.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,), not used.
        focal_gamma: 0 is cross entropy; the larger, the less do rows count that are right already.
    """
    logits, labels = single(logits, labels)
    log_p = log_true(logits.log_softmax(3), labels)
    # At p = 1 a power below 1 has no slope; the smallest number instead of 0 has one.
    wrong = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).tiny)
    return -mean_over_rows(wrong.pow(focal_gamma) * log_p).squeeze()


def focal_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,  # noqa: ARG001  # every loss is called alike
    *,
    focal_gamma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `focal` and its gradient, cross entropy's with weighted rows.

    w_i = (1 - p_i)^gamma * (1 - gamma p_i log p_i / (1 - p_i)) / B.
    """
    soft = softmax_(shift_(logits), labels)
    log_p = soft.log_true
    wrong = -log_p.expm1()
    powers = wrong.pow(focal_gamma)
    # -log p / (1 - p) goes to 1 as p does.
    ratios = torch.where(wrong > 0, -log_p / wrong, 1)
    weights = powers * (1 + focal_gamma * log_p.exp() * ratios) / log_p.shape[1]
    return -mean_over_rows(powers * log_p), weighted_gradient_(soft, labels, weights)
