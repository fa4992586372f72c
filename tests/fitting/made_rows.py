"""Small long-tailed rows in memory, for the tests of the solvers."""

from __future__ import annotations

import torch

from pipeline.config import FitConfig
from pipeline.fitting import LinearFit, LinearMap, TrainingRows, fit_head_on_rows

STANDING = 1e-30
"""A learning rate whose steps change no float64 of the initial head."""


def long_tailed_rows(
    n_views: int = 0,
    width: int = 5,
    dtype: torch.dtype = torch.float32,
    *,
    teacher: bool = False,
    spread: float = 0.5,
) -> TrainingRows:
    """Three classes of 40, 10 and 3 rows around different points; an old head where asked for."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.tensor([0] * 40 + [1] * 10 + [2] * 3)
    centres = torch.randn(3, width, generator=generator, dtype=dtype)
    noise = torch.randn(1 + n_views, 53, width, generator=generator, dtype=dtype)
    old = LinearMap(
        torch.randn(3, width, generator=generator, dtype=dtype),
        torch.randn(3, generator=generator, dtype=dtype),
    )
    features = centres[labels] + spread * noise
    return TrainingRows(features, labels, labels.bincount(), old if teacher else None)


def same(one: LinearFit, other: LinearFit) -> bool:
    """Equal to the bit."""
    return torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def assert_close(one: LinearFit, other: LinearFit, atol: float) -> None:
    """Equal up to rounding."""
    torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=atol)
    torch.testing.assert_close(one.bias, other.bias, rtol=0, atol=atol)
    torch.testing.assert_close(one.losses, other.losses, rtol=0, atol=10 * atol)


def predictions(rows: TrainingRows, fit: LinearFit) -> torch.Tensor:
    """Classes (N,) of the clean rows."""
    return LinearMap(fit.weight, fit.bias, fit.normalized).logits(rows.features[0]).argmax(1)


def fitted(rows: TrainingRows, config: FitConfig) -> LinearFit:
    """One head."""
    return fit_head_on_rows(rows, config)
