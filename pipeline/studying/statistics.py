"""Mean and spread over the seeds of one configuration.

S seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """A number over the seeds of one configuration."""

    values: tuple[float, ...]
    """(S,) one for each seed."""

    mean: float
    """Their mean."""

    deviation: float | None
    """Standard deviation over seeds, with S - 1; None for one seed."""

    interval: tuple[float, float] | None
    """95 % interval of the mean over all seeds (Student's t, S - 1 degrees of freedom); None for
    one seed, and where all have the same number, which is no sign that further seeds would. It
    covers what the seed decides, and nothing of which images are in the split."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        low, high = self.interval or (None, None)
        return {
            "mean": self.mean, "deviation": self.deviation, "low": low, "high": high,
            "values": list(self.values),
        }  # fmt: skip


def spread_of(values: Sequence[float], highest: float = math.inf, lowest: float = 0.0) -> Spread:
    """Mean, standard deviation and interval of one or more numbers.

    Args:
        values: (S,) one for each seed.
        highest: what no mean can exceed, and the interval is cut off at.
        lowest: likewise, below.
    """
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Spread(tuple(values), mean, None, None)
    deviation = statistics.stdev(values)
    if deviation == 0:
        return Spread(tuple(values), mean, deviation, None)
    half = _quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    interval = max(lowest, mean - half), min(highest, mean + half)
    return Spread(tuple(values), mean, deviation, interval)


def paired_difference(these: Sequence[float], those: Sequence[float]) -> Spread:
    """The difference seed by seed, which leaves out what a seed does to both."""
    differences = [this - that for this, that in zip(these, those, strict=True)]
    return spread_of(differences, lowest=-math.inf)


def _quantile(degrees_of_freedom: int) -> float:
    """Of Student's t, for a two-sided interval; 2.262 for ten seeds."""
    return float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))
