"""The Geometric Mean Loss, with its p-mean form, and its gradient."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.losses.softmax import (
    log_counts,
    log_true,
    lowest,
    row_counts,
    shift_,
    single,
    softmax_,
    weighted_gradient_,
)


def gml(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    reweight: bool = True,
    power: float = 1.0,
) -> Tensor:
    r"""Geometric Mean Loss, eq. (1)-(3) of Du and Wu, "No One Left Behind".

    With the training counts N_j as re-weighting,

        p_i = N_{y_i} exp(o_{i,y_i}) / sum_c N_c exp(o_{i,c})            (3)
        r_c = mean of p_i over the batch rows i of class c                (2)
        loss = -mean of log r_c over the classes present in the batch     (1)

    A class that is absent from the batch has no r_c and takes no part. All is computed in log
    space, so the loss is finite for any finite logits.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, above 0 for every class in the batch.
        reweight: False leaves the N out of eq. (3), the ablation of Table 8.
        power: exponent p of (mean of (-log r_c)^p)^(1/p), the form of the authors' later work;
            1 is eq. (1), larger ones look more at the worst classes.
    """
    shifted = logits + gml_offset(class_counts, logits, reweight=reweight)
    logits, labels = single(shifted, labels)
    log_p = log_true(logits.log_softmax(3), labels)
    return _loss(_recalls(log_p, labels, logits.shape[3]), power).squeeze()


def gml_offset(class_counts: Tensor, like: Tensor, *, reweight: bool = True) -> Tensor:
    """What `gml` adds to every row's logits, log N (C,) of another tensor's type, or 0."""
    return log_counts(class_counts, like, float(reweight))


def gml_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    reweight: bool = True,
    power: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `gml` and its gradient, that of `gml_shifted_gradient` at o + log N."""
    shifted = logits.add_(gml_offset(class_counts, logits, reweight=reweight))
    return gml_shifted_gradient(shifted, labels, class_counts, power=power)


def gml_shifted_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,  # noqa: ARG001  # every loss is called alike
    *,
    power: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `gml` and its gradient for logits o that have the offset already.

    At row i it is a cross entropy's with weighted rows, (softmax(o_i) - onehot(y_i)) * w_i, where

        w_i = p_i / (sum of p over the rows of class y_i) / (number of classes present),

    times (-log r / loss)^(power - 1) of class y_i for another power than 1.
    """
    soft = softmax_(shift_(logits), labels)
    recalls = _recalls(soft.log_true, labels, logits.shape[3])
    loss = _loss(recalls, power)
    divisors = recalls.sums * recalls.n_present
    if power != 1:
        # Where all recalls are 1 so is every p_i, and p_i - onehot is 0 whatever the weight.
        losses = (-recalls.log_means).clamp_min_(0) / torch.where(loss > 0, loss, 1).unsqueeze(1)
        divisors /= losses.pow(power - 1)
    weights = recalls.values / divisors.gather(1, recalls.classes)
    return loss, weighted_gradient_(soft, labels, weights)


class _Recalls(NamedTuple):
    """The classes' mean probabilities in a batch; an absent class has the mean 1."""

    log_means: Tensor
    """(G, C, H) log r_c."""

    sums: Tensor
    """(G, C, H) sum of p_i over a class's rows, divided by the largest of them."""

    values: Tensor
    """(G, B, H) p_i, divided by the largest of its class."""

    classes: Tensor
    """(G, B, H) the labels, for gather along the classes."""

    n_present: Tensor
    """(G, 1, 1) classes in the batch, floating point."""


def _recalls(log_p: Tensor, labels: Tensor, n_classes: int) -> _Recalls:
    """Mean over each class's rows of probabilities given as logarithms, (G, B, H).

    Absent classes are carried along rather than dropped: no shape that depends on the data, and
    no synchronisation on a GPU.
    """
    classes = labels.unsqueeze(2).expand_as(log_p)
    shape = (len(labels), n_classes, log_p.shape[2])
    rows = row_counts(labels, n_classes, log_p).unsqueeze(2)
    present = rows.clamp_max(1)
    # The largest value of each class is taken out before exp, so the class's sum is 1 or more.
    peaks = log_p.new_full(shape, lowest(log_p.dtype))
    peaks.scatter_reduce_(1, classes, log_p.detach(), "amax")
    values = (log_p - peaks.gather(1, classes)).exp()
    # An absent class has next to nothing in its count and in its sum, so their ratio is 1; beside
    # the 1 or more of a class that is present, it vanishes in the rounding.
    nothing = torch.finfo(log_p.dtype).tiny
    sums = log_p.new_full(shape, nothing).scatter_add_(1, classes, values)
    log_means = ((sums / rows.clamp_min_(nothing)).log() + peaks) * present
    return _Recalls(log_means, sums, values, classes, present.sum(1, keepdim=True))


def _loss(recalls: _Recalls, power: float) -> Tensor:
    """Power mean (G, H) of -log r_c over the classes present."""
    n_present = recalls.n_present
    if power == 1:
        return -(recalls.log_means / n_present).sum(1)
    losses = (-recalls.log_means).clamp_min(0)  # rounding may leave a recall just above 1
    # The largest is taken out: neither do its powers overflow, nor do all of them underflow.
    largest = losses.detach().amax(1, keepdim=True)
    perfect = (largest == 0).to(losses.dtype)
    means = ((losses / (largest + perfect)).pow(power) / n_present).sum(1, keepdim=True)
    return (largest * (means + perfect).pow(1 / power)).squeeze(1)
