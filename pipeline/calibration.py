"""Calibration: temperature scaling (Guo et al. 2017), likelihood, and expected calibration error.

Legend: N rows, B rows of a block, C classes, K heads, F folds, T temperatures, M bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from cache.records import Count, Null, Positive, Result
from pipeline.ensemble import LogitBlock, Logits, mixture_probabilities, softmax
from pipeline.errors import EvaluationError
from pipeline.metrics import Floats, Ints

N_BINS = 15
"""Bins of confidence, as in Guo et al. 2017."""

LOWEST, HIGHEST = 2.0**-10, 2.0**10
"""Temperatures between which a head is calibrated."""

ROUNDS = 40
"""Newton steps at most; a handful is usual, and a halving of the interval takes the rest."""

CLOSE = 1e-6
"""Step in log temperature at which the search ends."""

Blocks = Callable[[], Iterable[LogitBlock]]
"""Reads the logits of a split, once more at every call."""


@dataclass(frozen=True)
class Reliability(Result):
    """How far confidence can be trusted (a reliability diagram), for one classifier."""

    temperatures: tuple[Positive, ...]
    """What the logits of each head in it were divided by."""

    nll: Annotated[float, Null(math.inf)]
    """Mean negative log-likelihood of the labels, in nats."""

    ece: float
    """Expected calibration error: mean distance of accuracy and confidence, in percent."""

    counts: tuple[Count, ...]
    """(M,) rows in each bin of confidence, evenly from 0 to 1."""

    accuracy: tuple[float | None, ...]
    """(M,) percent that is right in each bin; None in an empty bin."""

    confidence: tuple[float | None, ...]
    """(M,) mean confidence in each bin, in percent; None in an empty bin."""

    def __post_init__(self) -> None:
        """Refuse what a file may say, and nothing that was measured."""
        if not len(self.counts) == len(self.accuracy) == len(self.confidence) > 0:
            raise EvaluationError("a reliability diagram has the same bins in each of its lists.")


@dataclass(frozen=True)
class Calibration(Result):
    """Every head, and the ensemble, before and after temperature scaling."""

    fitted_on: str | None
    """Split that chose the temperatures; None where they were given."""

    split: str
    """Split on which the diagrams were measured."""

    before: Mapping[str, Reliability]
    """By classifier, at temperature 1."""

    after: Mapping[str, Reliability]
    """By classifier, at the chosen temperature."""


class ReliabilitySums:
    """Adds up what a reliability diagram needs, block by block."""

    def __init__(self) -> None:
        self._counts = np.zeros(N_BINS, np.int64)
        self._right = np.zeros(N_BINS)
        self._confidence = np.zeros(N_BINS)
        self._nll = 0.0

    def add(self, probabilities: Floats, labels: Ints) -> None:
        """Count a block of probabilities (B, C) with labels (B,)."""
        confidence = probabilities.max(axis=1)
        right = probabilities.argmax(axis=1) == labels
        bins = confidence_bins(confidence)
        self._counts += np.bincount(bins, minlength=N_BINS)
        self._right += np.bincount(bins, right, N_BINS)
        self._confidence += np.bincount(bins, confidence, N_BINS)
        with np.errstate(divide="ignore"):  # a label of probability 0 makes the mean infinite
            self._nll -= float(np.log(probabilities[np.arange(len(labels)), labels]).sum())

    def result(self, temperatures: tuple[float, ...]) -> Reliability:
        """The diagram of everything that was added."""
        n = int(self._counts.sum())
        counts = tuple(self._counts.tolist())
        shares = [_share(s, c) for s, c in zip(self._right, counts, strict=True)]
        means = [_share(s, c) for s, c in zip(self._confidence, counts, strict=True)]
        ece = float(100 * np.abs(self._right - self._confidence).sum() / n)
        return Reliability(temperatures, self._nll / n, ece, counts, tuple(shares), tuple(means))


def confidence_bins(confidence: Floats) -> NDArray[np.intp]:
    """Bin (...) of each confidence (...), from 0 to M - 1; 1 belongs to the last."""
    return np.minimum((confidence * N_BINS).astype(np.intp), N_BINS - 1)


def fit_temperatures(
    blocks: Blocks, n_heads: int, folds: Ints | None = None, n_folds: int = 1
) -> Floats:
    """Temperatures (F, K) that give each head on its own the best likelihood of the labels.

    The mean negative log-likelihood is convex in 1/t. Newton's method finds its lowest point, in
    an interval that its slope narrows; every step is one pass over the blocks.

    Args:
        blocks: reads logits (B, C) of K heads with labels.
        n_heads: K.
        folds: (N,) fold of each row; fold f's temperature comes from all other folds' rows.
        n_folds: F; 1 fits on all rows.

    Raises:
        EvaluationError: if there is no row to fit on.
    """
    low = np.full((n_folds, n_heads), 1 / HIGHEST)
    high = np.full((n_folds, n_heads), 1 / LOWEST)
    beta = np.ones((n_folds, n_heads))
    moving = np.ones((n_folds, n_heads), bool)
    for _ in range(ROUNDS):
        slope, curvature = _likelihood_slopes(blocks, beta, folds)
        low, high = np.where(slope < 0, beta, low), np.where(slope > 0, beta, high)
        # Newton in log(beta), where a scale of logits is a shift; halfway where it leaves the rest.
        bend = beta**2 * curvature + beta * np.abs(slope)
        step = np.divide(-beta * slope, bend, out=np.zeros_like(beta), where=bend > 0)
        newer = beta * np.exp(np.clip(step, -2, 2))
        newer = np.where((newer <= low) | (newer >= high), np.sqrt(low * high), newer)
        # One that has arrived stays, so that no fold's rows move another fold's digits.
        newer = np.where(moving & (slope != 0), newer, beta)
        moving &= np.abs(np.log(newer / beta)) >= CLOSE
        beta = newer
        if not moving.any():
            break
    return 1 / _at_bounds(blocks, beta, folds)


def _at_bounds(blocks: Blocks, beta: Floats, folds: Ints | None) -> Floats:
    """What halving left beside a bound is brought to it, where the likelihood leads beyond."""
    bounds = np.where(beta < 1, 1 / HIGHEST, 1 / LOWEST)
    beside = np.abs(np.log(beta / bounds)) < 10 * CLOSE
    if not beside.any():
        return beta
    slope, _ = _likelihood_slopes(blocks, np.where(beside, bounds, beta), folds)
    return np.where(beside & (slope * (bounds - 1) <= 0), bounds, beta)


def measure_calibration(
    blocks: Blocks,
    names: Sequence[str],
    temperatures: Sequence[float],
    *,
    split: str,
    fitted_on: str | None,
    weights: Sequence[float] | None = None,
) -> Calibration:
    """Reliability of every head and of the ensemble at temperature 1 and at those given.

    Args:
        blocks: reads logits (B, C) of K heads with labels, the old one first.
        names: of the K heads.
        temperatures: K.
        split: where the blocks come from.
        fitted_on: split that chose the temperatures.
        weights: of the heads in the ensemble.
    """
    ones = (1.0,) * len(names)
    sums = [[ReliabilitySums() for _ in (*names, "ensemble")] for _ in range(2)]
    for block in blocks():
        for own, chosen in zip(sums, (ones, tuple(temperatures)), strict=True):
            for k, (logits, t) in enumerate(zip(block.logits, chosen, strict=True)):
                own[k].add(softmax(logits, t), block.labels)
            own[-1].add(mixture_probabilities(block.logits, chosen, weights), block.labels)
    results = []
    for own, chosen in zip(sums, (ones, tuple(map(float, temperatures))), strict=True):
        used = [*((t,) for t in chosen), chosen]
        pairs = zip((*names, "ensemble"), own, used, strict=True)
        results.append({name: one.result(t) for name, one, t in pairs})
    return Calibration(fitted_on, split, *results)


def finite(value: float) -> float | None:
    """The number, or None for the infinity that JSON does not have."""
    return value if np.isfinite(value) else None


def _share(part: float, whole: int) -> float | None:
    """Percent, or None of nothing."""
    return float(100 * part / whole) if whole else None


def _likelihood_slopes(blocks: Blocks, beta: Floats, folds: Ints | None) -> tuple[Floats, Floats]:
    """First and second derivative (F, K) of the mean negative log-likelihood by 1/t."""
    first, second = np.zeros_like(beta), np.zeros_like(beta)
    used = np.zeros(len(beta))
    done = 0
    for block in blocks():
        rows = slice(done, done + len(block.labels))
        done = rows.stop
        for fold in range(len(beta)):
            keep = slice(None) if folds is None else folds[rows] != fold
            labels = block.labels[keep]
            used[fold] += len(labels)
            for head, logits in enumerate(block.logits):
                one, two = _slopes_of(logits[keep], labels, float(beta[fold, head]))
                first[fold, head] += one
                second[fold, head] += two
    if not used.all():
        raise EvaluationError("There are no rows to fit temperatures on: use fewer folds.")
    return first / used[:, None], second / used[:, None]


def _slopes_of(logits: Logits, labels: Ints, beta: float) -> tuple[float, float]:
    """Sums of both derivatives over some rows: mean less own logit, and variance of the logits."""
    if not len(labels):
        return 0.0, 0.0
    values = np.asarray(logits, np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    probabilities = softmax(shifted, 1 / beta)
    shifted[probabilities == 0] = 0.0  # -inf times 0
    means = (probabilities * shifted).sum(axis=1)
    squares = (probabilities * shifted**2).sum(axis=1)
    own = values[np.arange(len(labels)), labels] - values.max(axis=1)
    # A label that cannot be predicted has no likelihood at any temperature, and no say.
    own = np.where(np.isfinite(own), own, means)
    return float((means - own).sum()), float((squares - means**2).sum())
