"""Losses for re-training a linear head: pure functions of logits, labels and training counts.

Every loss has the form `(logits, labels, class_counts) -> scalar`; a setting of its own is a
keyword-only argument named like the field of `FitConfig` that fills it.
B batch rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(logits (B, C), labels (B,) int64, class_counts (C,)) -> scalar`, differentiable in logits."""


def gml(logits: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    r"""Geometric Mean Loss, eq. (1)-(3) of Du and Wu, "No One Left Behind".

    With the training counts N_j as re-weighting,

        p_i = N_{y_i} exp(o_{i,y_i}) / sum_c N_c exp(o_{i,c})            (3)
        r_c = mean of p_i over the batch rows i of class c                (2)
        loss = -mean of log r_c over the classes present in the batch     (1)

    A class that is absent from the batch has no r_c and takes no part. All is computed in log
    space, so the loss is finite for any finite logits. Its gradient with respect to the logits
    is a weighted cross entropy's: (softmax(o_i + log N) - onehot(y_i)) * w_i with
    w_i = p_i / (sum of p over the rows of class y_i) / (number of classes present).

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, above 0 for every class in the batch.
    """
    log_p = _true_class(functional.log_softmax(_reweighted(logits, class_counts), dim=1), labels)
    # Logits at the end of the floating point range: p underflows even in log space. Half of the
    # range leaves room for the sum over classes.
    log_p = log_p.clamp_min(torch.finfo(log_p.dtype).min / 2)
    log_recalls, n_present = _log_class_means(log_p, labels, logits.shape[1])
    return -(log_recalls / n_present).sum()


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
    return functional.cross_entropy(logits, labels)


def balanced_softmax(logits: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    """Cross entropy of the re-weighted softmax of eq. (3): Ren et al. 2020, eq. (3)-(4).

    The mean over rows, where `gml` takes the logarithm of means over classes.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, above 0 for every class in the batch.
    """
    return functional.cross_entropy(_reweighted(logits, class_counts), labels)


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"gml": gml, "cross-entropy": cross_entropy, "balanced-softmax": balanced_softmax}
)
"""Losses by the names that `FitConfig.loss` knows."""


def _reweighted(logits: Tensor, class_counts: Tensor) -> Tensor:
    """Logits whose softmax is eq. (3): N_j exp(o_j) = exp(o_j + log N_j)."""
    # The logarithm first: a count above 65,504 would be infinite as a float16.
    return logits + class_counts.to(torch.float64).log().to(logits.dtype)


def _true_class(values: Tensor, labels: Tensor) -> Tensor:
    """The entry (B,) of each row of values (B, C) that its label names."""
    return values.gather(1, labels.unsqueeze(1)).squeeze(1)


def _log_class_means(log_values: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Logarithm of each class's mean value (C,), 0 for absent classes; the number present.

    Absent classes are carried along as log 1 rather than dropped: no data-dependent shape, and
    no synchronisation on a GPU.
    """
    rows = labels.bincount(minlength=n_classes)
    zeros = log_values.new_zeros(n_classes)
    # The largest value of each class is taken out before exp, so the class's sum is 1 or more.
    peaks = zeros.scatter_reduce(0, labels, log_values.detach(), "amax", include_self=False)
    sums = zeros.index_add(0, labels, (log_values - peaks[labels]).exp())
    log_means = peaks + ((sums + (rows == 0)) / rows.clamp_min(1)).log()
    return log_means, rows.count_nonzero()
