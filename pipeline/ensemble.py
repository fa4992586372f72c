"""Several heads as one classifier: softmax of their logits at a temperature, and the mean.

This direct evaluation in float64 is what an ensemble's prediction means; `pipeline.plane` gives the
same predictions on whole planes of temperatures. `pipeline.scored` reads the logits from a store.

Legend: N samples, B rows of a block, C classes, D feature width, K heads, T temperatures.
Predictions take the lower class index on ties. An old logit may be -inf (a class that cannot be
predicted); NaN and +inf are errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EvaluationError
from pipeline.metrics import Floats, Ints
from pipeline.mixture import check_weights, require_temperature

Logits = NDArray[np.float32] | Floats


def softmax(logits: Logits, temperature: float | Floats = 1.0) -> Floats:
    """Softmax of the logits divided by a temperature, eq. (12) and (13), in float64.

    Args:
        logits: (N, C); each row has a finite largest value.
        temperature: above 0, one for all rows or (N,); the row's largest logit is subtracted before
            the division, so that tiny and huge temperatures neither overflow nor lose a row.

    Raises:
        EvaluationError: if a temperature is not a number above 0.
    """
    divisor = np.asarray(temperature, np.float64)
    for value in np.unique(divisor):
        require_temperature(float(value))
    # In one order of memory, a row's sum has one order of additions: the same logits give the same
    # bits, whatever array they come in.
    values = np.ascontiguousarray(logits, np.float64)
    with np.errstate(over="ignore"):  # to -inf, whose exponential is the 0 that it should be
        found = np.asarray(values - values.max(axis=-1, keepdims=True))
        found /= divisor[..., None]
    np.exp(found, out=found)
    found /= found.sum(axis=-1, keepdims=True)
    return found


def ensemble_probabilities(
    logits_old: Logits, logits_new: Logits, t_old: float = 1.0, t_new: float = 1.0
) -> Floats:
    """Mean of both heads' probabilities (N, C), eq. (11)-(13).

    Args:
        logits_old: (N, C) of the old classifier.
        logits_new: (N, C) of the re-trained head.
        t_old: temperature of the old classifier, above 0.
        t_new: temperature of the re-trained head, above 0.

    Raises:
        EvaluationError: if the shapes differ or a temperature is not a number above 0.
    """
    return mixture_probabilities((logits_old, logits_new), (t_old, t_new))


def mixture_probabilities(
    logits: Sequence[Logits],
    temperatures: Sequence[float | Floats],
    weights: Sequence[float] | None = None,
) -> Floats:
    """Weighted mean of K heads' probabilities (N, C); two heads of equal weight are eq. (11).

    Args:
        logits: (N, C) of each head, the old classifier first.
        temperatures: one for each head, or (N,) for each head.
        weights: one above 0 for each head, in any unit; all equal where not given.

    Raises:
        EvaluationError: if shapes or numbers disagree, or a temperature or weight is not above 0.
    """
    shares = check_weights(weights, len(logits))
    if len({np.shape(values) for values in logits}) > 1 or len(temperatures) != len(logits):
        raise EvaluationError(
            "An ensemble needs logits of one shape and a temperature for each head, not logits of "
            f"{', '.join(str(np.shape(values)) for values in logits)} and {len(temperatures)} "
            "temperatures."
        )
    # The old head comes last, as in eq. (11): floating point addition has an order.
    total = np.zeros(np.shape(logits[0]))
    for k in (*range(1, len(logits)), 0):
        total += shares[k] * softmax(logits[k], temperatures[k])
    total /= sum(shares)
    return total


def mixture_predictions(
    logits: Sequence[Logits],
    temperatures: Sequence[float | Floats],
    weights: Sequence[float] | None = None,
) -> NDArray[np.intp]:
    """Most probable class (N,) of `mixture_probabilities`, the lower index on ties."""
    return np.asarray(mixture_probabilities(logits, temperatures, weights).argmax(axis=-1))


@dataclass(frozen=True)
class LogitBlock:
    """Usable rows of a split, in their order, with every asked head's logits."""

    labels: Ints
    """(B,) class indices."""

    logits: tuple[Logits, ...]
    """(B, C) of each head, in the order in which the heads were given."""

    features: NDArray[np.floating[Any]] | None = None
    """(B, D) that the heads have seen; None where the stored old logits were enough."""
