"""New weights for a head, fitted to its own probabilities on unlabelled images.

A head is fitted on images that its backbone was trained on. On images that are new to the backbone
its probabilities, as soft pseudo-labels, are right often enough that a plain classifier fitted to
them errs in other ways than the head: the average of the two is better than either
(docs/recipe.md, fifth round). It is one linear layer again.

Legend: N images, C classes, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.special import softmax

from pipeline.ensemble import Logits
from pipeline.errors import EvaluationError
from pipeline.metrics import Floats

RIDGE = 0.1
"""Decay of the regression on standardised features. 0.01 to 0.3 gave results within the error."""

BLOCK_BYTES = 2**25
"""Memory for one block of rows in float64 (32 MiB); a few such are held."""


@dataclass(frozen=True)
class Refit:
    """What a head becomes: kept logits + features @ weight.T + bias, of mean 0 over the classes."""

    kept: float
    """Share of the head's own logits."""

    weight: Floats
    """(C, D)"""

    bias: Floats
    """(C,)"""

    def logits(self, features: NDArray[np.float32], logits: Logits) -> NDArray[np.float32]:
        """(N, C) of images, of their features (N, D) and the head's logits (N, C)."""
        found = features @ self.weight.T.astype(np.float32)
        found += np.float32(self.kept) * logits
        found += self.bias.astype(np.float32)
        return np.asarray(found, np.float32)


def refit(
    features: NDArray[np.float32],
    logits: Logits,
    shares: Floats,
    share: float,
    ridge: float = RIDGE,
) -> Refit:
    """Average a head with a ridge regression on its own probabilities.

    The pseudo-labels p = softmax(l + log q), divided by q, are regressed on the standardised
    features; the fitted values, centred over the classes, are given the spread of the head's
    centred logits and weigh `share`.

    Args:
        features: (N, D), as the head's product takes them.
        logits: l (N, C) of the head, as `matching_shifts` leaves them.
        shares: q (C,) of the classes among these images.
        share: of the regression in the mean, from 0 to 1.
        ridge: decay, of squares whose mean over the images is 1.

    Raises:
        EvaluationError: if `share` is out of range, shapes disagree, or no feature varies.
    """
    _check(features, logits, share)
    mean, scale = _standardisation(features)
    covariance, slopes = _moments(features, logits, shares, mean, scale)
    found = solve(covariance + ridge * np.eye(len(covariance)), slopes, assume_a="pos")
    found -= found.mean(axis=1, keepdims=True)
    spread = np.sqrt(((covariance @ found) * found).sum())  # likewise of the fitted values
    found *= share * _spread(logits) / max(spread, np.finfo(np.float64).tiny)
    weight = (found / scale[:, None]).T
    return Refit(1 - share, weight, -weight @ mean)


def _check(features: NDArray[np.float32], logits: Logits, share: float) -> None:
    """Refuse what no regression is made of."""
    if not 0 <= share <= 1:
        raise EvaluationError(f"The share of the refitted weights is from 0 to 1, not {share:g}.")
    if features.ndim != 2 or len(features) != len(logits):  # noqa: PLR2004  # (N, D)
        raise EvaluationError(
            f"Features (N, D) and logits (N, C) of the same images are needed, not "
            f"{features.shape} and {logits.shape}."
        )


def _standardisation(features: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Mean (D,) and deviation (D,) of the features; 1 for those that do not vary."""
    mean = features.mean(axis=0, dtype=np.float64)
    square = sum(((block - mean) ** 2).sum(axis=0) for block in _blocks(features))
    scale = np.sqrt(square / len(features))
    varies = scale > np.finfo(np.float32).eps * np.abs(mean)
    if not varies.any():
        raise EvaluationError("No feature varies over these images: there is nothing to refit on.")
    return mean, np.where(varies, scale, 1.0)


def _moments(
    features: NDArray[np.float32], logits: Logits, shares: Floats, mean: Floats, scale: Floats
) -> tuple[Floats, Floats]:
    """Covariance (D, D) of standardised features, and theirs (D, C) with the pseudo-labels."""
    n, width = features.shape
    covariance, slopes = np.zeros((width, width)), np.zeros((width, len(shares)))
    for rows, scores in zip(_blocks(features, len(shares)), _blocks(logits, width), strict=True):
        standardised = (rows - mean) / scale
        pseudo_labels = softmax(scores + np.log(shares), axis=1) / (len(shares) * shares)
        covariance += standardised.T @ standardised / n
        slopes += standardised.T @ pseudo_labels / n  # of mean 0 already: the features are centred
    return covariance, slopes


def _spread(logits: Logits) -> float:
    """Root of the mean over the images of the squared length of centred logits (C,)."""
    squares = sum(
        ((block - block.mean(axis=1, keepdims=True)) ** 2).sum() for block in _blocks(logits)
    )
    return float(np.sqrt(squares / len(logits)))


def _blocks(rows: NDArray[np.floating], more: int = 0) -> Iterator[Floats]:
    """Rows in float64, some at a time.

    Args:
        rows: (N, K).
        more: numbers beside the K that a row takes.
    """
    size = max(1, BLOCK_BYTES // (8 * (int(rows.shape[1]) + more)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size].astype(np.float64)
