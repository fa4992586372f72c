"""Features of one scale for the fit, folded back into the head.

N training rows, C classes, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import FitConfig
from pipeline.errors import FitError
from pipeline.fitting.rows import Rows, consecutive


@dataclass(frozen=True, eq=False)
class Standardisation:
    """Features minus their means, over their deviations."""

    mean: Tensor
    """(D,) float64."""

    factor: Tensor
    """(D,) float64; 0 for a feature that never changes."""

    def __call__(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return (features - self.mean.to(features.dtype)) * self.factor.to(features.dtype)

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (C, D) and bias (C,) for features as they are, from those for standardised ones.

        In float64: where a mean is large beside the deviation, the products nearly cancel.
        """
        folded = weight.double() * self.factor
        shifted = bias.double() - folded @ self.mean
        return folded.to(weight.dtype), shifted.to(bias.dtype)


def standardisation_for(rows: Rows, config: FitConfig) -> Standardisation | None:
    """Means and deviations of the clean training features, where the settings ask for them."""
    return standardisation(rows) if config.standardize else None


def standardisation(rows: Rows) -> Standardisation:
    """Means and deviations of the clean training features, from one pass over them.

    A feature is constant where its deviation is below the distance of neighbouring numbers of its
    type at its mean, or below what the type can invert. So what rounding made of a constant
    before it came here is constant too.

    Raises:
        FitError: if the squares of a feature are beyond float64.
    """
    n_rows, limits = len(rows.labels), torch.finfo(rows.like.dtype)
    mean, squares = _moments(rows)
    deviation = (squares / n_rows).sqrt()
    if not deviation.isfinite().all():
        column = int(deviation.isfinite().to(torch.uint8).argmin())
        raise FitError(
            f"Feature {column} is too large to be standardised: divide it by a power of ten."
        )
    changes = deviation > (limits.eps * mean.abs()).clamp_min(limits.tiny)
    return Standardisation(mean, torch.where(changes, 1 / deviation, torch.zeros_like(mean)))


def _moments(rows: Rows) -> tuple[Tensor, Tensor]:
    """Mean (D,) of the clean features of all rows, and the sum (D,) of squares around it.

    Blocks are merged by their means and sums (Chan, Golub and LeVeque 1983), which loses no digits
    where a mean is large beside the deviation.
    """
    width = rows.like.shape[1]
    done = 0
    # Values are taken relative to the first row, so that those of a constant are exactly 0.
    first = mean = squares = rows.like.new_zeros(width, dtype=torch.float64)
    for batch in rows.stream(consecutive(len(rows.labels), width)):
        values = batch.features[0].to(torch.float64)
        if len(values) == 0:
            continue
        if done == 0:
            first = values[0].clone()
        values = values - first
        centre, share = values.mean(dim=0), len(values) / (done + len(values))
        step = centre - mean
        squares = squares + (values - centre).square().sum(dim=0) + step**2 * (done * share)
        mean, done = mean + step * share, done + len(values)
    mean = mean + first
    if rows.share.whole:
        return mean, squares
    total = rows.share.add_up_(mean * done) / len(rows.labels)
    return total, rows.share.add_up_(squares + (mean - total) ** 2 * done)
