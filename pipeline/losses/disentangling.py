"""LADE: balanced softmax with a regulariser that frees the logits of the training prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.losses.cross_entropies import balanced_softmax, balanced_softmax_gradient
from pipeline.losses.softmax import label_index, row_counts, single


def lade(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    lade_weight: float = 0.1,
    lade_square: float = 0.1,
) -> Tensor:
    """Balanced softmax plus `lade_weight` times LADER, Hong et al. 2021, eq. (15), (16) and (20).

    The logit of class c is to become log p(x | c) / p(x) under equally frequent classes, whatever
    the training prior: that is where the Donsker-Varadhan bound of their divergence,
    E[o_c | c] - log E[exp o_c], is largest. The second expectation is over equally frequent
    classes, so a training row i counts with u_i = (1 / C) / (N_{y_i} / N):

        Z_c = log (1/B sum_i u_i exp(o_{i,c}))
        LADER = sum_c N_c / N * (-mean of o_{i,c} over the rows of class c + Z_c + s Z_c^2)

    over the classes present in the batch; s is `lade_square`. The square keeps Z_c near 0, which
    the bound leaves free.
    This is the paper's form. (The authors' code divides by the prior of c in place of that of y_i:
    all rows then count alike, and Z_c is shifted by a constant. It also keeps the terms in Z_c of
    absent classes.) Finite unless Z_c^2 overflows, at logits of 1e19 in float32.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64 in 0..C-1; B at least 1.
        class_counts: (C,) training rows of each class, all above 0.
        lade_weight: their alpha; 0 is balanced softmax.
        lade_square: their lambda; 0.1 in their code, in their experiments 0.01 on CIFAR-100-LT,
            0.1 on Places-LT and 0.5 on ImageNet-LT.
    """
    estimate = _estimate(*single(logits, labels), class_counts)
    balanced = balanced_softmax(logits, labels, class_counts)
    return balanced + lade_weight * _regulariser(estimate, lade_square).squeeze()


def lade_gradient(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    lade_weight: float = 0.1,
    lade_square: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Loss (G, H) of `lade` and its gradient, balanced softmax's plus LADER's.

    That of LADER at row i and a class c that is present is, with p_i the softmax over the batch
    rows of o_{i,c} + log u_i,

        N_c / N * ((1 + 2 s Z_c) p_i - [y_i = c] / (rows of c)).
    """
    estimate = _estimate(logits, labels, class_counts)
    slopes = lade_weight * estimate.weights * (1 + 2 * lade_square * estimate.log_partitions)
    part = estimate.weighted.softmax(1).mul_(slopes.unsqueeze(1))
    true = (estimate.weights / estimate.rows.clamp_min(1)).squeeze(1).gather(1, labels)
    index = label_index(labels, logits.shape[2])
    part.scatter_add_(3, index, (-lade_weight * true).view(*labels.shape, 1, 1).expand_as(index))
    loss, gradient = balanced_softmax_gradient(logits, labels, class_counts)
    return loss + lade_weight * _regulariser(estimate, lade_square), gradient.add_(part)


class _Estimate(NamedTuple):
    """What LADER is made of, for every class; H is 1 where heads share it."""

    weighted: Tensor
    """(G, B, H, C) o_{i,c} + log u_i."""

    log_partitions: Tensor
    """(G, H, C) Z_c."""

    true_means: Tensor
    """(G, H, C) mean of o_{i,c} over the rows of class c; 0 for an absent class."""

    rows: Tensor
    """(G, 1, C) batch rows of each class."""

    weights: Tensor
    """(G, 1, C) N_c / N, 0 for an absent class."""


def _estimate(logits: Tensor, labels: Tensor, class_counts: Tensor) -> _Estimate:
    """Both terms of the bound for logits (G, B, H, C) and labels (G, B)."""
    _, n_rows, n_heads, n_classes = logits.shape
    prior = class_counts.to(torch.float64) / class_counts.sum()
    log_u = (-prior.log() - math.log(n_classes)).to(logits.dtype)
    weighted = logits + log_u[labels].view(*labels.shape, 1, 1)
    log_partitions = weighted.logsumexp(1) - math.log(n_rows)
    rows = row_counts(labels, n_classes, logits).unsqueeze(1)
    index = label_index(labels, n_heads)
    true = (logits.gather(3, index) / rows.squeeze(1).gather(1, labels)[..., None, None]).squeeze(3)
    zeros = logits.new_zeros(len(labels), n_classes, n_heads)
    true_means = zeros.scatter_add(1, index.squeeze(3), true).transpose(1, 2)
    weights = prior.to(logits.dtype) * rows.clamp_max(1)
    return _Estimate(weighted, log_partitions, true_means, rows, weights)


def _regulariser(estimate: _Estimate, lade_square: float) -> Tensor:
    """LADER (G, H)."""
    z = estimate.log_partitions
    return (estimate.weights * (z - estimate.true_means + lade_square * z.square())).sum(2)
