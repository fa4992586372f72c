"""How the old classifier and re-trained heads answer together: temperatures and weights.

`None` in the place of a `Mixture` means that nothing is mixed: one head answers alone.

Legend: K re-trained heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipeline.errors import EvaluationError

if TYPE_CHECKING:
    from pipeline.heads import Head

Answering: TypeAlias = "tuple[list[Head | None], Mixture | None]"
"""The heads whose logits a prediction needs, None for the old one, and how they are mixed."""


@dataclass(frozen=True)
class Mixture:
    """The ensemble of eq. (11)-(13), in the order: the old classifier, then each new head.

    Raises:
        EvaluationError: if a number is not in its range, or there are not as many weights as
            temperatures.
    """

    temperatures: tuple[float, ...]
    """(1 + K,) what the logits are divided by, above 0."""

    weights: tuple[float, ...] | None = None
    """(1 + K,) of 0 or more in any unit, not all 0; a head of weight 0 is left out, and need not
    even be there. None for equal ones."""

    def __post_init__(self) -> None:
        """Refuse numbers that mix nothing."""
        for temperature in self.temperatures:
            require_temperature(temperature)
        weights, n = self.weights, len(self.temperatures)
        if weights is None:
            return
        fit = len(weights) == n and all(0 <= weight < math.inf for weight in weights)
        if not fit or not any(weights):
            raise _refused(weights, n, "each 0 or more and at least one above 0")

    def among(self, heads: Sequence[Head]) -> tuple[list[Head | None], Mixture]:
        """The heads that have a say, None for the old one, and what they have of the mixture.

        Raises:
            EvaluationError: if these are not K heads.
        """
        everyone: list[Head | None] = [None, *heads]
        if len(everyone) != len(self.temperatures):
            raise EvaluationError(
                f"An ensemble of {len(everyone)} heads, the old one among them, needs as many "
                f"temperatures, not {len(self.temperatures)}."
            )
        if self.weights is None:
            return everyone, self
        kept = [k for k, weight in enumerate(self.weights) if weight]
        temperatures = tuple(self.temperatures[k] for k in kept)
        return [everyone[k] for k in kept], Mixture(
            temperatures, tuple(self.weights[k] for k in kept)
        )


def heads_of(head: Head | Sequence[Head] | None) -> list[Head]:
    """The re-trained heads as a list, which is empty for the old classifier."""
    if head is None:
        return []
    return list(head) if isinstance(head, Sequence) else [head]


def answering(heads: Sequence[Head], mixture: Mixture | None) -> Answering:
    """The heads whose logits a prediction needs, None for the old one, and how they are mixed.

    Args:
        heads: the re-trained head, or several; none for the old classifier.
        mixture: of the old classifier and each head; None for the one head alone.

    Raises:
        EvaluationError: if the mixture is not of these heads, or several are not mixed.
    """
    if mixture is not None:
        return mixture.among(heads)
    if len(heads) > 1:
        raise EvaluationError(
            f"{len(heads)} heads predict together with the old one: give temperatures."
        )
    return [*heads] or [None], None


def given_pair(t_old: float | None, t_new: float | None) -> tuple[float, float] | None:
    """(t_old, t_new) where one was given, the other then being 1; None where none was."""
    if t_old is None and t_new is None:
        return None
    return _or_one(t_old), _or_one(t_new)


def given_temperatures(
    t_old: float | None, t_new: float | Sequence[float] | None, n_new: int = 1
) -> tuple[float, ...] | None:
    """The same for K new heads: temperatures (1 + K,), or None.

    Args:
        t_old: of the old classifier.
        t_new: of all new heads, or of each.
        n_new: K.

    Raises:
        EvaluationError: if `t_new` are neither one nor K.
    """
    if t_old is None and t_new is None:
        return None
    new = [_or_one(t_new)] if t_new is None or isinstance(t_new, float | int) else list(t_new)
    if len(new) not in (1, n_new):
        raise EvaluationError(f"{n_new} new heads need one temperature or as many, not {len(new)}.")
    return (_or_one(t_old), *(new if len(new) == n_new else new * n_new))


def head_names(n_new: int) -> list[str]:
    """Names of the old and the K new heads: `old, new`, or `old, new 1, new 2` and so on."""
    return ["old", *(["new"] if n_new == 1 else (f"new {k}" for k in range(1, 1 + n_new)))]


def check_weights(weights: Sequence[float] | None, n_heads: int) -> tuple[float, ...]:
    """One weight above 0 for each head that is there; ones where none are given.

    Raises:
        EvaluationError: if there are more or fewer, or one is not a number above 0.
    """
    if weights is None:
        return (1.0,) * n_heads
    if len(weights) != n_heads or not all(0 < weight < math.inf for weight in weights):
        raise _refused(weights, n_heads, "each above 0")
    return tuple(float(weight) for weight in weights)


def require_temperature(temperature: float) -> None:
    """Raise `EvaluationError` unless it is a number above 0."""
    if not 0 < temperature < math.inf:
        raise EvaluationError(f"A temperature must be a number above 0, not {temperature}.")


def _or_one(temperature: float | None) -> float:
    """A temperature that was not given is 1, which changes nothing."""
    return 1.0 if temperature is None else temperature


def _refused(weights: Sequence[float], n_heads: int, which: str) -> EvaluationError:
    """Why weights do not fit."""
    given = ", ".join(f"{weight:g}" for weight in weights)
    return EvaluationError(
        f"An ensemble of {n_heads} heads, the old one among them, needs {n_heads} weights, "
        f"{which}, not {given}."
    )
