"""Weights of the heads of an ensemble, the old head first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import EvaluationError

if TYPE_CHECKING:
    from pipeline.heads import Head


@dataclass(frozen=True)
class Members:
    """The heads that have a say in a prediction."""

    heads: Sequence[Head | None]
    """None stands for the old one."""

    temperatures: Sequence[float] | None
    """One for each; None for one head alone."""

    weights: Sequence[float] | None
    """One above 0 for each; None for equal ones."""


def check_weights(weights: Sequence[float] | None, n_heads: int) -> tuple[float, ...]:
    """One weight above 0 for each head; ones where none are given.

    Raises:
        EvaluationError: if there are more or fewer, or one is not a number above 0.
    """
    if weights is None:
        return (1.0,) * n_heads
    if len(weights) != n_heads or not all(0 < weight < math.inf for weight in weights):
        raise _refused(weights, n_heads, "each above 0")
    return tuple(float(weight) for weight in weights)


def weighed_heads(
    heads: Sequence[Head], temperatures: Sequence[float] | None, weights: Sequence[float] | None
) -> Members:
    """The heads whose logits a prediction needs: those of weight 0 need not even be there.

    Args:
        heads: the K re-trained heads.
        temperatures: 1 + K, of the old classifier and of each head; None for one head alone, or
            for the old classifier where there is none.
        weights: as many of the same, of 0 or more and not all 0; equal where not given.

    Raises:
        EvaluationError: if there are more or fewer weights, or they are not such numbers.
    """
    if temperatures is None:
        return Members([*heads] or [None], None, None)
    everyone: list[Head | None] = [None, *heads]
    n = len(everyone)
    if weights is None:
        return Members(everyone, temperatures, None)
    fit = len(weights) == n and all(0 <= weight < math.inf for weight in weights)
    if not fit or not any(weights):
        raise _refused(weights, n, "each 0 or more and at least one above 0")
    if len(temperatures) != n:
        return Members(everyone, temperatures, weights)  # told where they are mixed
    kept = [k for k in range(n) if weights[k]]
    return Members(
        [everyone[k] for k in kept], [temperatures[k] for k in kept], [weights[k] for k in kept]
    )


def _refused(weights: Sequence[float], n_heads: int, which: str) -> EvaluationError:
    """Why weights do not fit."""
    given = ", ".join(f"{weight:g}" for weight in weights)
    return EvaluationError(
        f"An ensemble of {n_heads} heads, the old one among them, needs {n_heads} weights, "
        f"{which}, not {given}."
    )
