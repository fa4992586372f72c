"""Features of one scale for the fit, folded back into the head.

N training rows, C classes, D feature width, b rows of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import FitConfig
from pipeline.fitting.noise import BLOCK_ROWS
from pipeline.fitting.rows import Rows


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
    if not config.standardize:
        return None
    n_rows = len(rows.labels)
    sums = torch.zeros(2, rows.like.shape[1], dtype=torch.float64, device=rows.like.device)
    blocks = torch.arange(n_rows).split(BLOCK_ROWS)
    for batch in rows.stream(block.unsqueeze(0) for block in blocks):
        values = batch.features[0].double()
        sums += torch.stack([values.sum(dim=0), values.square().sum(dim=0)])
    rows.share.add_up_(sums)
    mean, square = sums / n_rows
    # What is left of a constant by rounding is no deviation.
    deviation = (square - mean**2).clamp_min(0).sqrt()
    changes = deviation > 1e-7 * mean.abs()
    return Standardisation(mean, torch.where(changes, 1 / deviation, torch.zeros_like(mean)))
