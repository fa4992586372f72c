"""Heads that nothing has to be learned for.

N training rows, C classes, D feature width.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from pipeline.config import FitConfig
from pipeline.fitting.parametrisations import require_teacher
from pipeline.fitting.rows import LinearFit, Rows, consecutive


@torch.no_grad()
def tau_normalised(rows: Rows, config: FitConfig) -> LinearFit:
    """The old head, each class's weight divided by its norm to a power; its bias is dropped.

    Kang et al. 2020, eq. (3): the norms of a long-tailed head grow with the class sizes.

    Raises:
        FitError: if there is no old head.
    """
    old = require_teacher(rows)
    norms = old.weight.norm(dim=1, keepdim=True).clamp_min(torch.finfo(old.weight.dtype).tiny)
    weight = old.weight / norms**config.norm_power
    return LinearFit(weight, torch.zeros_like(old.bias), normalized=old.normalized)


@torch.no_grad()
def logit_adjusted(rows: Rows, config: FitConfig) -> LinearFit:
    """The old head, from whose logits `config.tau` times the log of the training prior is taken.

    Menon et al. 2021, post-hoc logit adjustment: what an old head that was trained with plain
    cross entropy would say if all classes were equally frequent. One whose training corrected the
    prior already does not need it.

    Raises:
        FitError: if there is no old head.
    """
    old = require_teacher(rows)
    counts = rows.class_counts.to(torch.float64)
    shift = config.tau * (counts / counts.sum()).log()
    return LinearFit(old.weight, old.bias - shift.to(old.bias), normalized=old.normalized)


@torch.no_grad()
def nearest_mean(rows: Rows, config: FitConfig) -> LinearFit:
    """The head whose largest logit is the class with the nearest mean, views included.

    |f - m|^2 = |f|^2 - 2 (f m - |m|^2 / 2), and |f|^2 is the same for all classes: so the weight is
    m and the bias -|m|^2 / 2. With `config.normalize`, features and means have length 1.
    """
    n_versions = rows.n_versions if config.views else 1
    width = rows.like.shape[1]
    sums = rows.like.new_zeros(len(rows.class_counts), width, dtype=torch.float64)
    for batch in rows.stream(consecutive(n_versions * len(rows.labels), width)):
        values = batch.features[0]
        if config.normalize:
            values = functional.normalize(values, dim=1)
        sums.index_add_(0, rows.share.own(batch.labels, batch)[0], values.to(torch.float64))
    rows.share.add_up_(sums)
    means = sums / (n_versions * rows.class_counts.unsqueeze(1))
    if config.normalize:
        means = functional.normalize(means, dim=1)
    bias = -(means**2).sum(dim=1) / 2
    return LinearFit(means.to(rows.like), bias.to(rows.like), normalized=config.normalize)
