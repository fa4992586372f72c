"""Noise like the spread that rows have within their classes.

N training rows, C classes, D feature width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.fitting.rows import Rows, consecutive


def within_class_root(rows: Rows) -> Tensor:
    """A matrix R (D, D) whose R R^T is the pooled covariance of clean rows within their classes.

    Standard normal numbers times R^T are then spread as the rows of a class are around their mean,
    which tail classes have too few rows to show themselves.
    """
    width, n_rows = rows.like.shape[1], len(rows.labels)
    counts = rows.class_counts.to(torch.float64)
    sums = torch.zeros(len(counts), width, dtype=torch.float64, device=rows.like.device)
    products = sums.new_zeros(width, width)
    for batch in rows.stream(consecutive(n_rows, width)):
        values = batch.features[0].to(torch.float64)
        sums.index_add_(0, rows.share.own(batch.labels, batch)[0], values)
        products += values.T @ values
    rows.share.add_up_(sums)
    rows.share.add_up_(products)
    products -= (sums / counts.unsqueeze(1)).T @ sums
    values, vectors = torch.linalg.eigh(products / n_rows)
    root: Tensor = vectors * values.clamp_min(0).sqrt()
    return root.to(rows.like.dtype)
