"""Label-aware smoothing, alone and beside the Geometric Mean Loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.losses.geometric_mean import gml, gml_gradient
from pipeline.losses.softmax import (
    log_true,
    lowest,
    mean_over_rows,
    shift_,
    single,
    softmax_,
    weighted_gradient_,
)


def label_aware_smoothing(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
) -> Tensor:
    """Cross entropy with labels that are smoothed more, the larger their class is.

    Zhong et al. 2021 (MiSLAS), sec. 3.2, in the concave form of their experiments,

        epsilon_j = tail + (head - tail) * sin(pi / 2 * (N_j - N_min) / (N_max - N_min)),

    and as their code has it: the share epsilon is spread evenly over all C classes. (Their equation
    leaves the true class out, which is the same with epsilon * (C - 1) / C.) Where all classes are
    of one size, the smoothing is the tail's.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class.
        smooth_head: smoothing of the largest class.
        smooth_tail: smoothing of the smallest class; with 0 for both this is cross entropy.
    """
    smoothing = _smoothing(class_counts, logits, smooth_head, smooth_tail)[labels]
    logits, labels = single(logits, labels)
    log_p = logits.log_softmax(3)
    return _loss(log_true(log_p, labels), log_p.sum(3), len(class_counts), smoothing).squeeze()


def label_aware_smoothing_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `label_aware_smoothing` and its gradient, cross entropy's with soft labels.

    At row i it is (softmax(o_i) - (1 - epsilon) * onehot(y_i) - epsilon / C) / B.
    """
    smoothing = _smoothing(class_counts, logits, smooth_head, smooth_tail)[labels]
    n_rows, n_classes = logits.shape[1], logits.shape[3]
    shifted = shift_(logits)
    total = shifted.sum(3)
    soft = softmax_(shifted, labels)
    loss = _loss(soft.log_true, total - n_classes * soft.log_sums, n_classes, smoothing)
    gradient = weighted_gradient_(
        soft,
        labels,
        total.new_full((1, 1, 1), 1 / n_rows),
        true_weights=(1 - smoothing).unsqueeze(2) / n_rows,
    )
    return loss, gradient.sub_((smoothing / (n_rows * n_classes)).view(*labels.shape, 1, 1))


def gml_label_aware_smoothing(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    reweight: bool = True,
    power: float = 1.0,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
) -> Tensor:
    """Sum of `gml` and `label_aware_smoothing`, which the paper uses together on MiSLAS (Table 5).

    It does not say with which weights; here they are equal.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, above 0 for every class in the batch.
        reweight: of `gml`.
        power: of `gml`.
        smooth_head: of `label_aware_smoothing`.
        smooth_tail: likewise.
    """
    smoothed = label_aware_smoothing(
        logits, labels, class_counts, smooth_head=smooth_head, smooth_tail=smooth_tail
    )
    return gml(logits, labels, class_counts, reweight=reweight, power=power) + smoothed


def gml_label_aware_smoothing_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    reweight: bool = True,
    power: float = 1.0,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `gml_label_aware_smoothing` and its gradient, the sum of both."""
    loss, gradient = label_aware_smoothing_gradient(
        logits.clone(), labels, class_counts, smooth_head=smooth_head, smooth_tail=smooth_tail
    )
    gml_loss, gml_part = gml_gradient(logits, labels, class_counts, reweight=reweight, power=power)
    return loss + gml_loss, gradient.add_(gml_part)


def _smoothing(class_counts: Tensor, like: Tensor, head: float, tail: float) -> Tensor:
    """Smoothing epsilon (C,) of each class."""
    counts = class_counts.to(torch.float64)
    above = counts - counts.min()
    places = above / above.max().clamp_min(1)  # 0 for the smallest class, 1 for the largest
    return (tail + (head - tail) * (math.pi / 2 * places).sin()).to(like.dtype)


def _loss(true: Tensor, total: Tensor, n_classes: int, smoothing: Tensor) -> Tensor:
    """Mean over rows (G, H) of the cross entropy with labels smoothed by (G, B).

    Args:
        true: (G, B, H) log p of each row's class.
        total: (G, B, H) sum of log p over the classes.
        n_classes: C.
        smoothing: epsilon of each row.
    """
    smoothing = smoothing.unsqueeze(-1)
    mean_log_p = total.clamp_min(lowest(total.dtype)) / n_classes
    return -mean_over_rows((1 - smoothing) * true + smoothing * mean_log_p)
