"""Shifts of a head's logits, found on unlabelled images, that raise its lowest recalls.

Two things are known about unlabelled images: how a head classifies them, and, if they were sampled
so, how frequent the classes are among them. That is enough for one number per class, in two steps.
`matching_shifts` makes the head predict each class about as often as it occurs: a class that is
predicted too seldom has lost its images to others. `levelling_shifts` then maximises the harmonic
(or geometric) mean of the recalls, which tempered probabilities estimate without labels. A linear
head takes both into its bias.

Legend: N images, C classes, l logits (N, C), b and w shifts (C,), q the classes' shares (C,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from pipeline.config.balance import BalanceConfig, Mean
from pipeline.ensemble import Logits
from pipeline.errors import EvaluationError
from pipeline.metrics import Floats, Ints, count_per_class

MEANS: tuple[Mean, ...] = get_args(Mean)

SHARPNESS = 4.0
"""Factor of logits whose softmax stands for decisions, which have no slope. On held-out images 3 to
10 were equally good for matching, where 1, the probabilities themselves, was worse; and 2 to 8 for
levelling (docs/recipe.md)."""

TEMPERATURE = BalanceConfig.temperature
"""On held-out images 1.2 to 2 gave the best likelihood, and 1 to 3 recalls that differ by a point
(docs/recipe.md)."""

CLOSE = 0.01
"""A share that is this part of the smallest wanted share away from what is wanted is reached."""

FLAT = 1e-5
"""Slope of the logarithm of a mean recall at which its top is reached."""

SMOOTHEST = 1e-6
"""Part of the last sharpness at which the search begins at the latest, some 20 rounds of it."""

ROUNDS = 500
"""Most steps of L-BFGS at one sharpness; some tens are usual."""

BLOCK_BYTES = 2**25
"""Memory for one block of rows in float64 (32 MiB); a few such are held."""


def matching_shifts(logits: Logits, shares: Floats, sharpness: float = SHARPNESS) -> Floats:
    """Shifts b (C,), of mean 0, with which softmax(s (l + b + log q)) has the means q.

    log q makes of logits for equally frequent classes (those of a head fitted with GML) logits for
    these images (Menon et al. 2021, sec. 4.1); b is what is missing to be right on average. The
    mean over the images of logsumexp(s (l + b + log q)) / s, less q b, is convex in b and has its
    lowest point there.

    Args:
        logits: l (N, C), finite.
        shares: q (C,), above 0 and of the sum 1.
        sharpness: s, above 0. Where it is large, shares of decisions are matched.

    Raises:
        EvaluationError: if shapes disagree, there is no row, or a number is out of range.
    """
    _check(logits, shares)
    if not 0 < sharpness < np.inf:
        raise EvaluationError(f"Sharpness is a number above 0, not {sharpness:g}.")
    log_q = np.log(shares)

    def slope(b: Floats, sharpness: float) -> tuple[float, Floats]:
        height, means = 0.0, np.zeros(len(b))
        for block in _blocks(logits):
            values = sharpness * (block + (b + log_q))
            sums = logsumexp(values, axis=1, keepdims=True)
            height += float(sums.sum()) / (sharpness * len(logits))
            means += np.exp(values - sums).sum(axis=0) / len(logits)
        return height - float(shares @ b), means - shares

    shifts = np.zeros(len(shares))
    # From smooth to sharp: where decisions hardly overlap the slope is a staircase, and L-BFGS
    # had better begin near the bottom.
    spread = float(np.std(logits, dtype=np.float64))
    for factor in _up_to(sharpness, max(1 / max(spread, 1e-12), SMOOTHEST * sharpness)):
        shifts = _lowest(slope, shifts, (factor,), CLOSE * float(shares.min()))
    return shifts


def levelling_shifts(
    logits: Logits,
    shares: Floats,
    mean: Mean = "harmonic",
    temperature: float = TEMPERATURE,
) -> Floats:
    """Shifts w (C,), of mean 0, whose decisions have a high estimated mean of recalls.

    With p = softmax(l / T + log q), the probabilities of the classes, and d = softmax(s (l + w) /
    T) in the place of decisions, the recall of class c is estimated as the mean over the images of
    p_c d_c / q_c. So with the geometric mean this is GML, eq. (1), that has
    probabilities for labels and fits shifts alone; the harmonic one lifts the lowest recalls
    further. Where p is right, no decisions are better for a mean of recalls than such with one
    number per class (Narasimhan et al. 2015); here it is so only roughly. The mean is not concave
    in w: this is the top that is reached from no shift.

    Args:
        logits: l (N, C), as `matching_shifts` leaves them.
        shares: q (C,), above 0 and of the sum 1.
        mean: which mean of the recalls. For the arithmetic one no shift is better than none.
        temperature: T, above 0, with which the probabilities are about right.

    Raises:
        EvaluationError: if shapes disagree, there is no row, or a number is out of range.
    """
    _check(logits, shares)
    if mean not in MEANS:
        raise EvaluationError(f"Recalls have a mean {', '.join(MEANS)}, not {mean!r}.")
    if not 0 < temperature < np.inf:
        raise EvaluationError(f"A temperature is a number above 0, not {temperature:g}.")
    if mean == "arithmetic":
        return np.zeros(len(shares))
    log_q, n = np.log(shares), len(logits)

    def tempered() -> Iterator[tuple[Floats, Floats]]:
        for block in _blocks(logits):
            scaled = block / temperature
            yield scaled, softmax(scaled + log_q, axis=1)

    # What is found of one block is kept; of more it is found again, and memory stays bounded.
    one_block = len(logits) <= _block_rows(logits)
    held = list(tempered()) if one_block else None

    def slope(w: Floats) -> tuple[float, Floats]:
        def estimates() -> Iterator[tuple[Floats, Floats]]:
            for scaled, p in held or tempered():
                yield p, softmax(SHARPNESS * (scaled + w), axis=1)

        found = list(estimates()) if one_block else None
        recalls = sum(((p * d).sum(axis=0) for p, d in found or estimates()), np.zeros(len(w)))
        height, by_recall = _log_mean(recalls / (n * shares), mean)
        by_hit = by_recall / (n * shares)
        by_shift = np.zeros(len(w))
        for p, d in found or estimates():
            gain = p * d * by_hit
            by_shift += SHARPNESS * (gain - d * gain.sum(axis=1, keepdims=True)).sum(axis=0)
        return -height, -by_shift

    return temperature * _lowest(slope, np.zeros(len(shares)), (), FLAT)


def decided_shares(logits: Logits) -> Floats:
    """Share (C,) of the images (N, C) that are decided for each class, ties for the lower one."""
    decisions = np.asarray(logits).argmax(axis=1)
    return count_per_class(decisions, np.shape(logits)[1]) / len(decisions)


def estimated_recalls(
    logits: Logits, shares: Floats, temperature: float, decisions: Ints
) -> Floats:
    """Recalls (C,) in percent of decisions, estimated without labels.

    Of a class's probability among the images, the part that lies on those decided for it. The order
    of the classes is worth more than the figures, which are too high where a head is too sure.

    Args:
        logits: (N, C), as `matching_shifts` leaves them.
        shares: (C,) of the classes among the images.
        temperature: divides the logits of the probabilities, as in `levelling_shifts`.
        decisions: (N,) classes, of these logits or of others.
    """
    log_q = np.log(shares)
    hits, mass = np.zeros(len(shares)), np.zeros(len(shares))
    done = 0
    for block in _blocks(logits):
        probabilities = softmax(block / temperature + log_q, axis=1)
        decided = decisions[done : done + len(block)]
        hits += np.bincount(decided, probabilities[np.arange(len(block)), decided], len(shares))
        mass += probabilities.sum(axis=0)
        done += len(block)
    return np.asarray(100 * hits / mass)


def _check(logits: Logits, shares: Floats) -> None:
    """Raise unless logits and shares belong together."""
    if logits.ndim != 2 or not len(logits) or logits.shape[1] != len(shares):  # noqa: PLR2004  # (N, C)
        raise EvaluationError(
            f"Shares of {len(shares)} classes need logits (N, {len(shares)}) of at least one "
            f"image, not {logits.shape}."
        )
    if not np.isfinite(logits).all():
        raise EvaluationError("There are NaN or infinite logits: fit the head, or extract, again.")
    if not (shares > 0).all() or abs(float(shares.sum()) - 1) > 1e-9:  # noqa: PLR2004  # rounding
        raise EvaluationError("Shares of classes are above 0 and have the sum 1.")


def _lowest(
    slope: Callable[..., tuple[float, Floats]], start: Floats, args: tuple[float, ...], flat: float
) -> Floats:
    """The lowest point (C,), of mean 0, of what gives its height and slope."""
    with np.errstate(divide="ignore", invalid="ignore"):  # told below
        found = minimize(
            slope, start, args=args, jac=True, method="L-BFGS-B",
            options={"maxiter": ROUNDS, "gtol": flat, "ftol": 0.0},
        )  # fmt: skip
    if not np.isfinite(found.fun):
        raise EvaluationError(
            "The logits are too far apart to be balanced: one class's probability is 0 for all "
            "images at this temperature. Raise the temperature, or fit the head again."
        )
    return np.asarray(found.x - found.x.mean(), np.float64)


def _log_mean(recalls: Floats, mean: Mean) -> tuple[float, Floats]:
    """Logarithm of the mean of recalls (C,), and its derivative (C,) by each."""
    if mean == "geometric":
        return float(np.log(recalls).mean()), 1 / (len(recalls) * recalls)
    inverse = 1 / recalls
    return -float(np.log(inverse.mean())), inverse**2 / inverse.sum()


def _up_to(last: float, first: float) -> Iterator[float]:
    """first, 2 first, 4 first, ..., last; the last alone where it is the smaller one."""
    while first < last:
        yield first
        first *= 2
    yield last


def _blocks(logits: Logits) -> Iterator[Floats]:
    """Rows in float64, some at a time."""
    rows = _block_rows(logits)
    for start in range(0, len(logits), rows):
        yield logits[start : start + rows].astype(np.float64)


def _block_rows(logits: Logits) -> int:
    """Rows of a block."""
    return max(1, BLOCK_BYTES // (8 * int(logits.shape[1])))
