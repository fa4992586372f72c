"""Which heads meet on the plane, at which temperatures and with which weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import EvaluationError
from pipeline.metrics import Floats
from pipeline.mixture import check_weights

MARGIN = 2.0**-38
"""Bound on the relative error of a probability that float64 computes, ten times what it can be.

exp(x) at x = (v - largest v) / t carries the rounding of a difference and a quotient, 2^-53 |x|
each, and e^x is no normal number below x = -745: at most 2 * 745 * 2^-53 = 2^-42.5, beside a few
2^-53 for exp, the sum and the quotient. Two probabilities that differ by more than a margin on
each side keep their order whatever the rounding. (Z's own error is common to all classes of a
head, and moves none of them past another within that head.)"""


@dataclass(frozen=True)
class Member:
    """A head on the plane."""

    axis: Literal[0, 1]
    """0: its temperature changes with t_old, 1: with t_new."""

    temperatures: Floats
    """(T,) its temperature at each step of its axis."""

    weight: float = 1.0
    """Its weight in the ensemble, in any unit."""

    @property
    def logit_margin(self) -> float:
        """How much lower a logit must be to be lower in probability at every temperature."""
        return float(self.temperatures.max()) * 2 * MARGIN


def plane_members(
    t_old: Floats,
    t_new: Floats,
    n_new: int = 1,
    *,
    weights: Sequence[float] | None = None,
    factors: Sequence[float] | None = None,
) -> tuple[Member, ...]:
    """The old head on one axis, one or more new ones together on the other.

    Args:
        t_old: (To,) temperatures of the old head.
        t_new: (Tn,) temperatures of the new heads.
        n_new: number of new heads.
        weights: of the old and each new head; equal where not given.
        factors: what `t_new` is multiplied by for each new head; 1 where not given.

    Raises:
        EvaluationError: if numbers disagree, or one is not above 0.
    """
    shares = check_weights(weights, 1 + n_new)
    scales = (1.0,) * n_new if factors is None else tuple(factors)
    if len(scales) != n_new:
        raise EvaluationError(f"{n_new} new heads need as many factors, not {len(scales)}.")
    new = [Member(1, t_new * scales[k], shares[1 + k]) for k in range(n_new)]
    members = (Member(0, np.asarray(t_old, np.float64), shares[0]), *new)
    for member in members:
        if not (np.isfinite(member.temperatures).all() and (member.temperatures > 0).all()):
            raise EvaluationError("A temperature must be a number above 0.")
    return members
