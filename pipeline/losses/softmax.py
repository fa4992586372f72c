"""What losses on a softmax share: log probabilities, their true classes, mean cross entropy.

G draws with batches of their own, B batch rows, H heads on each draw, C classes. A function whose
name ends in an underscore overwrites its first argument.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG2_E = 1 / math.log(2)
"""exp(x) = exp2(x * LOG2_E); on CPUs torch's exp2 takes a quarter of the time of its exp."""


def single(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, C) and labels (B,) as those of one draw and one head, (1, B, 1, C) and (1, B)."""
    return logits[None, :, None], labels[None]


def lowest(dtype: torch.dtype) -> float:
    """What a log probability is taken for that underflows even as a logarithm.

    That is only so at the end of the floating point range; half of it leaves room for sums.
    """
    return torch.finfo(dtype).min / 2


def log_counts(class_counts: Tensor, like: Tensor, strength: float = 1.0) -> Tensor:
    """Strength times the logarithm of the counts, (C,), of another tensor's type; 0 * log 0 is 0.

    At least in float32: a count above 65,504 would be infinite as a float16.
    """
    counts = class_counts.to(torch.promote_types(like.dtype, torch.float32))
    logarithms: Tensor = torch.special.xlogy(strength, counts)
    return logarithms.to(like.dtype)


def row_counts(labels: Tensor, n_classes: int, like: Tensor) -> Tensor:
    """Batch rows of each class, (G, C), from labels (G, B); of another tensor's type."""
    return like.new_zeros(len(labels), n_classes).scatter_(1, labels, 1.0, reduce="add")


def label_index(labels: Tensor, n_heads: int) -> Tensor:
    """Labels (G, B) as an index (G, B, H, 1) into the classes of (G, B, H, C)."""
    return labels.view(*labels.shape, 1, 1).expand(-1, -1, n_heads, 1)


class Softmax(NamedTuple):
    """Probabilities p of every head's classes, not divided by their sums yet."""

    powers: Tensor
    """(G, B, H, C) exp(o - max o), in the memory of the logits o; p is this divided by the sums."""

    sums: Tensor
    """(G, B, H, 1) sum of the powers over the classes, 1 or more."""

    log_sums: Tensor
    """(G, B, H) their logarithms."""

    log_true: Tensor
    """(G, B, H) log p of each row's class."""


def shift_(logits: Tensor) -> Tensor:
    """Take each head's largest logit from its logits (G, B, H, C), which changes no softmax."""
    return logits.sub_(logits.amax(3, keepdim=True))


def softmax_(shifted: Tensor, labels: Tensor) -> Softmax:
    """The softmax of logits (G, B, H, C) that `shift_` has shifted, at labels (G, B).

    On a CPU the gradient takes six tenths of the time that it takes by way of torch's log_softmax,
    whose exp is the dearer one; and nothing is divided before it has to be multiplied anyway.
    """
    true = shifted.gather(3, label_index(labels, shifted.shape[2])).squeeze(3)
    powers = shifted.mul_(LOG2_E).exp2_()
    sums = powers.sum(3, keepdim=True)
    log_sums = sums.squeeze(3).log()
    return Softmax(powers, sums, log_sums, (true - log_sums).clamp_min_(lowest(true.dtype)))


def log_true(log_p: Tensor, labels: Tensor) -> Tensor:
    """Log probability of each row's class, (G, B, H), from those of all classes (G, B, H, C)."""
    true = log_p.gather(3, label_index(labels, log_p.shape[2])).squeeze(3)
    return true.clamp_min(lowest(true.dtype))


def mean_over_rows(values: Tensor) -> Tensor:
    """Mean (G, H) of values (G, B, H); finite also where their sum is not."""
    return (values / values.shape[1]).sum(1)


def mean_cross_entropy(logits: Tensor, labels: Tensor, row_weights: Tensor | None = None) -> Tensor:
    """Cross entropy (G, H), the mean over rows with weights (G, B); 1 each where not given."""
    log_p = log_true(logits.log_softmax(3), labels)
    return -mean_over_rows(log_p if row_weights is None else log_p * row_weights.unsqueeze(2))


def mean_cross_entropy_gradient_(
    logits: Tensor, labels: Tensor, row_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same and its gradient (softmax(o_i) - onehot(y_i)) * w_i / B, in place of the logits."""
    soft = softmax_(shift_(logits), labels)
    weights = soft.sums.new_full((1, 1, 1), 1 / logits.shape[1])
    if row_weights is not None:
        weights = row_weights.unsqueeze(2) * weights
    loss = -(soft.log_true * weights).sum(1)
    return loss, weighted_gradient_(soft, labels, weights)


def weighted_gradient_(
    soft: Softmax, labels: Tensor, weights: Tensor, true_weights: Tensor | None = None
) -> Tensor:
    """w_i p_i - v_i onehot(y_i); for v = w the gradient of sum_i -w_i log p_{i,y_i} at fixed w.

    Args:
        soft: p; its powers (G, B, H, C) are overwritten with the gradient.
        labels: (G, B) int64.
        weights: w, (G, B, H) or what broadcasts to it.
        true_weights: v, likewise; w where not given.
    """
    gradient = soft.powers.mul_(weights.unsqueeze(3) / soft.sums)
    minus = (weights if true_weights is None else true_weights).neg().unsqueeze(3)
    index = label_index(labels, gradient.shape[2])
    return gradient.scatter_add_(3, index, minus.expand(*gradient.shape[:3], 1))
