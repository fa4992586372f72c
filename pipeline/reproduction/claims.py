"""The paper's statements as things that can hold or not.

A statement becomes one number (`Claim.statistic`) and where it must lie. It holds where every
interval of that number lies there, does not hold where every one lies elsewhere, and cannot be told
where an interval straddles the threshold or the two disagree; what is true of these very images is
added. A statement whose inputs are missing is reported as untested, with what a test would need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.metrics import IN_PERCENT, METRICS
from pipeline.reproduction.evidence import ANYWHERE, Interval, WithIntervals
from pipeline.resampling import Statistic

Relation = Literal[">", ">=", "<=", "within"]
"""Above, at least or at most the threshold; or no further from zero than it, either way."""

Verdict = Literal["holds", "does not hold", "cannot be told", "not tested"]

METRIC_WORDS = {name: METRICS[name].heading.lower() for name in IN_PERCENT}


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, and how it is tested."""

    place: str
    """Where the paper says it."""

    words: str
    """The statement, in our words."""

    measure: str
    """The number that is measured, in words."""

    statistic: Statistic
    """The same as a function."""

    relation: Relation = ">"
    """How the number must lie to the threshold."""

    threshold: float = 0.0
    """In the number's unit."""

    unit: str = "points"
    """Of the number: percentage points, %, classes."""

    why: str = ""
    """Where the threshold comes from, if it is not zero."""

    in_paper: float | None = None
    """The number that the paper's own tables give."""

    bounds: tuple[float, float] = ANYWHERE
    """Between which the number can lie at all."""


@dataclass(frozen=True)
class Untested:
    """One statement of the paper that nothing here can test."""

    place: str
    """Where the paper says it."""

    words: str
    """The statement, in our words."""

    needs: str
    """Requirements of a test, as an instruction."""


@dataclass(frozen=True)
class Finding:
    """The verdict on a statement, and what it rests on."""

    place: str
    """Where the paper says it."""

    words: str
    """The statement, in our words."""

    verdict: Verdict
    """Whether it holds here."""

    claim: Claim | None = None
    """How it was tested; None where it was not."""

    measured: WithIntervals | None = None
    """The number; None where it was not tested."""

    needs: str = ""
    """Requirements of a test, if there was none."""

    @property
    def on_these_images(self) -> Verdict | None:
        """The verdict as if there were no other test images: by the seeds, or the number itself.

        None where nothing was measured.
        """
        if self.claim is None or self.measured is None:
            return None
        value = self.measured.value
        alone = self.measured.seeds or Interval(value, value)
        return verdict_on((alone,), self.claim.relation, self.claim.threshold)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        content: dict[str, Any] = {
            "place": self.place, "claim": self.words, "verdict": self.verdict
        }  # fmt: skip
        if self.claim is None or self.measured is None:
            return content | {"needs": self.needs}
        return content | {
            "measure": self.claim.measure, "measured": self.measured.to_json(),
            "relation": self.claim.relation, "threshold": self.claim.threshold,
            "unit": self.claim.unit, "threshold_from": self.claim.why,
            "in_paper": self.claim.in_paper, "verdict_on_these_images": self.on_these_images,
        }  # fmt: skip


def judge(
    claims: Sequence[Claim | Untested], measured: Sequence[WithIntervals]
) -> tuple[Finding, ...]:
    """The verdict on every claim.

    Args:
        claims: in the order to be shown.
        measured: the numbers of those that can be tested, in the same order.
    """
    numbers = iter(measured)
    findings = []
    for claim in claims:
        if isinstance(claim, Untested):
            findings.append(Finding(claim.place, claim.words, "not tested", needs=claim.needs))
        else:
            number = next(numbers)
            verdict = verdict_on(number.intervals, claim.relation, claim.threshold)
            findings.append(Finding(claim.place, claim.words, verdict, claim, number))
    return tuple(findings)


def verdict_on(intervals: Sequence[Interval], relation: Relation, threshold: float) -> Verdict:
    """Whether all intervals lie where they must, or all elsewhere."""
    if all(_inside(interval, relation, threshold) for interval in intervals):
        return "holds"
    if all(_outside(interval, relation, threshold) for interval in intervals):
        return "does not hold"
    return "cannot be told"


def _inside(interval: Interval, relation: Relation, threshold: float) -> bool:
    """Whether the whole interval fulfils the relation."""
    low, high = interval.low, interval.high
    return {
        ">": low > threshold,
        ">=": low >= threshold,
        "<=": high <= threshold,
        "within": -threshold <= low and high <= threshold,
    }[relation]


def _outside(interval: Interval, relation: Relation, threshold: float) -> bool:
    """Whether no part of the interval fulfils the relation."""
    low, high = interval.low, interval.high
    return {
        ">": high <= threshold,
        ">=": high < threshold,
        "<=": low > threshold,
        "within": low > threshold or high < -threshold,
    }[relation]


def gain(
    place: str,
    words: str,
    metric: str,
    first: str,
    second: str,
    *,
    paper: float | None = None,
    relation: Relation = ">",
    threshold: float = 0.0,
    why: str = "",
) -> Claim:
    """A claim on what one classifier has more of a metric than another, by their labels."""
    return Claim(
        place, words, f"{METRIC_WORDS[metric]}: {first} less {second}",
        difference(metric, first, second), relation, threshold, why=why, in_paper=paper,
        bounds=(-100.0, 100.0),
    )  # fmt: skip


def difference(metric: str, first: str, second: str) -> Statistic:
    """The first classifier's metric less the second's, seed by seed."""
    return lambda numbers: numbers.metric(first, metric) - numbers.metric(second, metric)
