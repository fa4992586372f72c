"""What a study found: every configuration over its seeds, and which one to use.

H configurations, S seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import FitConfig
from pipeline.heads import Head
from pipeline.metrics import METRICS, Scores
from pipeline.studying.statistics import Spread, paired_difference, spread_of

MEASURED = tuple(METRICS)
"""What is measured of every head: fields of `Scores`."""

CHOOSES = "val"
"""The split that may choose."""


@dataclass(frozen=True)
class Measurement:
    """The heads of one configuration on one split."""

    scores: tuple[Scores, ...]
    """(S,) in the order of the seeds."""

    def spread(self, metric: str) -> Spread:
        """One of `MEASURED` over the seeds."""
        highest = 100.0 if METRICS[metric].unit else float(len(self.scores[0].class_names))
        return spread_of([float(getattr(one, metric)) for one in self.scores], highest)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {metric: self.spread(metric).to_json() for metric in MEASURED}


@dataclass(frozen=True)
class Variant:
    """One configuration of a study."""

    settings: Mapping[str, Any]
    """The fields in which the study's configurations differ, with this one's values; without those
    that decide nothing about its heads."""

    seeds: tuple[int, ...]
    """(S,) seed of each fit; one where no seed decides the head."""

    heads: tuple[Head | None, ...]
    """(S,) fitted heads; None where the fit diverged."""

    measured: Measurement | None
    """On the study's split; None where a fit diverged, for a mean over the others would flatter."""

    n_unfinished: int = 0
    """Fits whose solver stopped before it converged."""

    seeded: bool = True
    """Whether heads of two seeds differ; those that do not are fitted once."""

    @property
    def n_diverged(self) -> int:
        """Fits whose steps ran away."""
        return sum(head is None for head in self.heads)

    @property
    def label(self) -> str:
        """Its settings in one line, as `lr=0.1, weight_decay=0.0005`."""
        return ", ".join(f"{name}={shown(value)}" for name, value in self.settings.items())

    @property
    def name(self) -> str:
        """The same, or how often it was fitted where there is nothing to tell it from."""
        return self.label or (_seeds(len(self.seeds)) if self.seeded else "new")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the metrics are null where a fit diverged."""
        nothing = dict.fromkeys(MEASURED)
        return {
            "settings": dict(self.settings),
            "seeds": list(self.seeds),
            "depends_on_seed": self.seeded,
            "n_diverged": self.n_diverged,
            **(nothing if self.measured is None else self.measured.to_json()),
        }


@dataclass(frozen=True)
class Study:
    """Configurations compared over seeds."""

    split: str
    """Split on which all were measured."""

    config: FitConfig
    """Settings that all configurations share; the varied fields are those of the first."""

    variants: tuple[Variant, ...]
    """(H,) in the order in which they were given."""

    n_samples: int
    """Samples of the split that were scored."""

    n_failed: int
    """Samples of the split left out because their image could not be read."""

    n_rows: int
    """Training rows of each fit."""

    seconds: float
    """Seconds for all fits, the reading of the features included."""

    old: Mapping[str, Scores] = field(default_factory=dict)
    """The old head on the splits that were scored; empty for a store without one."""

    chosen: int | None = None
    """Index of the configuration to use; None where nothing was chosen."""

    test: Measurement | None = None
    """On `test`, the heads of the configuration that another split chose, or of the only one."""

    @property
    def n_seeds(self) -> int:
        """S; 1 where no seed decides any of the heads."""
        return max(len(variant.seeds) for variant in self.variants)

    @property
    def fields(self) -> tuple[str, ...]:
        """The settings in which configurations differ, in the order of `FitConfig`."""
        named = {name for variant in self.variants for name in variant.settings}
        known = [field.name for field in dataclasses.fields(FitConfig)]
        return (*(n for n in known if n in named), *sorted(named.difference(known)))

    @property
    def seeds_told(self) -> str:
        """How many seeds each configuration has, in words."""
        once = sum(not variant.seeded for variant in self.variants)
        if once == len(self.variants):
            return "one head each" if once > 1 else "one head"
        each = _seeds(self.n_seeds) + " each" * (len(self.variants) > 1)
        return f"{each} (one head where no seed decides)" if once and self.n_seeds > 1 else each

    @property
    def test_views(self) -> int:
        """Test views averaged with each clean image of the split."""
        found = (v.measured.scores[0].test_views for v in self.variants if v.measured is not None)
        return next(found, 0)

    @property
    def kept(self) -> Variant | None:
        """The configuration whose heads are worth keeping: the chosen one, or the only one."""
        if self.chosen is not None:
            return self.variants[self.chosen]
        return self.variants[0] if len(self.variants) == 1 else None

    @property
    def alike(self) -> tuple[int, ...]:
        """Other configurations whose harmonic mean these seeds cannot tell from the chosen one's.

        The 95 % interval of the mean difference, seed by seed, holds 0.
        """
        if self.chosen is None or self.n_seeds == 1:
            return ()
        best = self._harmonic_means(self.variants[self.chosen])
        return tuple(
            h
            for h, variant in enumerate(self.variants)
            if h != self.chosen and variant.measured is not None
            and _holds_zero(paired_difference(self._harmonic_means(variant), best))
        )  # fmt: skip

    def _harmonic_means(self, variant: Variant) -> list[float]:
        """(S,) of a configuration without a diverged fit; one that no seed decides is repeated."""
        assert variant.measured is not None  # noqa: S101  # callers look first
        found = [one.harmonic_mean for one in variant.measured.scores]
        return found if variant.seeded else found * self.n_seeds

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before the study is trusted, a sentence each."""
        notes = [
            _of_the_fits(variant, variant.n_diverged, "diverged", "its steps are too large")
            if variant.seeded
            else _of_the_fits(variant, 1, "diverged", "its numbers are beyond float32")
            for variant in self.variants
            if variant.n_diverged
        ]
        notes += [
            _of_the_fits(
                variant, variant.n_unfinished, "stopped before they converged", "give more epochs"
            )
            for variant in self.variants
            if variant.n_unfinished
        ]
        return (*notes, *self._edges())

    def _edges(self) -> list[str]:
        """Numbers of the chosen configuration beyond which nothing was tried."""
        if self.chosen is None:
            return []
        notes = []
        for name, value in self.variants[self.chosen].settings.items():
            having = [v.settings for v in self.variants if name in v.settings]
            tried = sorted({settings[name] for settings in having}, key=str)
            numbers = [v for v in tried if isinstance(v, int | float) and not isinstance(v, bool)]
            if len(numbers) == len(tried) > 1 and value in (min(numbers), max(numbers)):
                notes.append(
                    f"The best {name} = {shown(value)} lies on the edge of the values tried, "
                    f"{shown(min(numbers))} to {shown(max(numbers))}: a better one may lie beyond."
                )
        return notes

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "split": self.split,
            "n_samples": self.n_samples,
            "n_failed": self.n_failed,
            "test_views": self.test_views,
            "n_rows": self.n_rows,
            "seconds": self.seconds,
            "chosen": self.chosen,
            "chosen_on": None if self.chosen is None else self.split,
            "alike": list(self.alike),
            "warnings": list(self.warnings),
            "configurations": [variant.to_json() for variant in self.variants],
            "test": None if self.test is None else self.test.to_json(),
            "old": {split: scores.to_json() for split, scores in self.old.items()},
            "config": dataclasses.asdict(self.config.resolved()),
        }


def judged(study: Study) -> Study:
    """The study with its best configuration chosen, where its split may choose.

    The best has the highest mean harmonic mean over the seeds; ties go to the higher mean lowest
    recall, then to the one given first.
    """
    if study.split != CHOOSES or len(study.variants) == 1:
        return study
    measured = [(h, v.measured) for h, v in enumerate(study.variants) if v.measured is not None]
    if not measured:
        return study

    def rank(entry: tuple[int, Measurement]) -> tuple[float, float]:
        means = entry[1].spread("harmonic_mean").mean, entry[1].spread("lowest_recall").mean
        # Equal recalls in another order of classes may differ in the last bits of their mean.
        return round(means[0], 9), round(means[1], 9)

    return dataclasses.replace(study, chosen=max(measured, key=rank)[0])


def shown(value: Any) -> str:
    """A setting as a user would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _seeds(number: int) -> str:
    """As `1 seed` or `3 seeds`."""
    return f"{number} seed{'s' * (number != 1)}"


def _of_the_fits(variant: Variant, number: int, what: str, so: str) -> str:
    """A sentence about some of a configuration's fits."""
    of_which = f" with {variant.label}" if variant.label else ""
    return f"{number} of {len(variant.seeds)} fits {what}{of_which}: {so}."


def _holds_zero(difference: Spread) -> bool:
    """Whether the interval of a difference holds 0, or it is 0 with every seed."""
    low, high = difference.interval or (difference.mean, difference.mean)
    return low <= 0 <= high
