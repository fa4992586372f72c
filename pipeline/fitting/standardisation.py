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

_SMALLEST = torch.finfo(torch.float64).tiny  # of a unit: dividing by less would overflow
_LARGEST_EXPONENT = 1023  # of a power of two in float64


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
        FitError: if the distances of a feature are beyond float64, or all features are constant.
    """
    n_rows, limits = len(rows.labels), torch.finfo(rows.like.dtype)
    mean, squares, unit = _moments(rows)
    deviation = (squares / n_rows).sqrt() * unit
    if not deviation.isfinite().all():
        column = int(deviation.isfinite().to(torch.uint8).argmin())
        raise FitError(
            f"Feature {column} is too large to be standardised: divide it by a power of ten."
        )
    changes = deviation > (limits.eps * mean.abs()).clamp_min(limits.tiny)
    if not changes.any():
        raise FitError(
            f"Every one of the {len(changes)} features is constant over the {n_rows} training rows,"
            f" up to the rounding of {str(rows.like.dtype).removeprefix('torch.')}, so there is "
            "nothing to learn from: check the features, or take away what they have in common "
            "before they are rounded."
        )
    return Standardisation(mean, torch.where(changes, 1 / deviation, torch.zeros_like(mean)))


def _moments(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,) of the clean features of all rows, sum (D,) of squares around it, its unit (D,).

    The squares are those of numbers divided by the unit, a power of two above nearly all of them:
    squares of numbers as small as 1e-170, or as large as 1e170, are beyond float64.

    Blocks are merged by their means and sums (Chan, Golub and LeVeque 1983), which loses no digits
    where a mean is large beside the deviation.
    """
    width = rows.like.shape[1]
    done = 0
    # Values are taken relative to the first row, so that those of a constant are exactly 0.
    first = mean = squares = rows.like.new_zeros(width, dtype=torch.float64)
    unit = torch.full_like(squares, _SMALLEST)
    for batch in rows.stream(consecutive(len(rows.labels), width)):
        values = batch.features[0].to(torch.float64)
        if len(values) == 0:
            continue
        if done == 0:
            first = values[0].clone()
        values = values - first
        larger = torch.maximum(unit, _power_of_two(values.abs().amax(dim=0)))
        squares, unit = squares * (unit / larger).square(), larger
        centre, share = values.mean(dim=0), len(values) / (done + len(values))
        step = centre - mean
        squares = squares + ((values - centre) / unit).square().sum(dim=0)
        squares = squares + (step / unit).square() * (done * share)
        mean, done = mean + step * share, done + len(values)
    mean = mean + first
    if rows.share.whole:
        return mean, squares, unit
    total = rows.share.add_up_(mean * done) / len(rows.labels)
    # A unit for all processes: above each one's own, though not by much.
    common = _power_of_two(rows.share.add_up_(torch.maximum(unit, (mean - total).abs())))
    squares = squares * (unit / common).square() + ((mean - total) / common).square() * done
    return total, rows.share.add_up_(squares), common


def _power_of_two(values: Tensor) -> Tensor:
    """The smallest power of two above each value; within float64, and no division by 0."""
    _, exponent = torch.frexp(values.clamp(max=torch.finfo(torch.float64).max))
    powers = torch.ldexp(torch.ones_like(values), exponent.clamp(max=_LARGEST_EXPONENT))
    return torch.where(values > _SMALLEST, powers, torch.full_like(values, _SMALLEST))
