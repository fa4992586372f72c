"""What losses on a softmax share: log probabilities, their true classes, mean cross entropy.

G draws with batches of their own, B batch rows, H heads on each draw, C classes. A function whose
name ends in an underscore overwrites its first argument.
"""

from __future__ import annotations

import math

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
    ones = like.new_ones(()).expand(labels.shape)
    return like.new_zeros(len(labels), n_classes).scatter_add_(1, labels, ones)


def label_index(labels: Tensor, n_heads: int) -> Tensor:
    """Labels (G, B) as an index (G, B, H, 1) into the classes of (G, B, H, C)."""
    return labels.view(*labels.shape, 1, 1).expand(-1, -1, n_heads, 1)


def log_softmax_(logits: Tensor) -> Tensor:
    """Log probabilities (G, B, H, C) of the logits, on a CPU in their place."""
    # The CPU's kernel has read a row before it writes it; a large tensor takes a sixth longer in
    # fresh memory.
    return torch.log_softmax(logits, 3, out=logits if logits.is_cpu else None)


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
    log_p = log_softmax_(logits)
    weights = log_p.new_full((1, 1, 1), 1 / log_p.shape[1])
    if row_weights is not None:
        weights = row_weights.unsqueeze(2) * weights
    loss = -(log_true(log_p, labels) * weights).sum(1)
    return loss, weighted_gradient_(log_p, labels, weights)


def weighted_gradient_(
    log_p: Tensor, labels: Tensor, weights: Tensor, true_weights: Tensor | None = None
) -> Tensor:
    """w_i p_i - v_i onehot(y_i); for v = w the gradient of sum_i -w_i log p_{i,y_i} at fixed w.

    Three passes over the largest tensor: weights and probabilities are multiplied as logarithms.

    Args:
        log_p: (G, B, H, C), a result of log_softmax; overwritten with the gradient.
        labels: (G, B) int64.
        weights: w, 0 or more, (G, B, H) or what broadcasts to it.
        true_weights: v, likewise; w where not given.
    """
    torch.add(weights.log2().unsqueeze(3), log_p, alpha=LOG2_E, out=log_p).exp2_()
    minus = (weights if true_weights is None else true_weights).neg().unsqueeze(3)
    return log_p.scatter_add_(
        3, label_index(labels, log_p.shape[2]), minus.expand(*log_p.shape[:3], 1)
    )
