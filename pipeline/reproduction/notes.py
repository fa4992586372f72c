"""Notes to read before the numbers of a comparison are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import FitConfig
from pipeline.config.fit import depends_on_seed
from pipeline.reproduction.evidence import Evidence
from pipeline.reproduction.experiments import Experiment
from pipeline.reproduction.paper import label_gml
from pipeline.reproduction.settings import WITH_SMOOTHING, departures, fits_heads
from pipeline.small_counts import ENOUGH_HITS
from pipeline.writing import ZEROS_COUNTED, measured_on

OVER_IMAGES = (
    "A claim holds, or does not, where all its intervals agree; where they leave it open, what is "
    "true of these images is said beside it. An interval over images of a lowest recall makes no "
    "use of what the classifiers share, and is the widest of all."
)

ENOUGH = 5
"""Seeds that a verdict should rest on, the command's default: the lowest recall is a whole number
of images, on which two or three seeds often agree."""


@dataclass(frozen=True)
class ViewCounts:
    """ViewCounts of one method's images."""

    fitted: int | None
    """Of each training image, beside the clean one; None where no head is fitted."""

    averaged: int
    """Of each test image, beside the clean one."""

    def describe(self) -> str:
        """In words."""
        many = "view" if self.fitted == 1 else "views"
        fitted = "" if self.fitted is None else f"{self.fitted or 'no'} training {many}, "
        if not self.averaged:
            return f"{fitted}one test view"
        return f"{fitted}mean of {1 + self.averaged} test views"


def notes_on(
    experiment: Experiment,
    evidence: Evidence,
    config: FitConfig,
    n_seeds: int,
    views: Mapping[str, ViewCounts],
) -> tuple[str, ...]:
    """The notes, a sentence or two each.

    Args:
        experiment: the table or figure.
        evidence: every classifier's hits.
        config: settings of the recipe.
        n_seeds: heads that there are of each kind.
        views: of every method's images.
    """
    notes = [
        *_of_the_images(evidence, views),
        *_of_the_intervals(experiment, evidence, config, n_seeds),
        *_of_the_paper(experiment, evidence, tuple(views)),
    ]
    if fits_heads(experiment.kinds):
        notes += departures(config)
        if experiment.draws and n_seeds > 1:
            notes.append("The picture shows the first seed.")
    if label_gml(WITH_SMOOTHING) in evidence.hits:
        notes.append(f"GML on {WITH_SMOOTHING} is fitted with label-aware smoothing (Table 5).")
    notes += _of_few_hits(evidence)
    if any(evidence.mean_zeros(label) > 0 for label in evidence.hits):
        notes.append(f"{ZEROS_COUNTED}, for some seed.")
    return tuple(notes)


def _of_the_images(evidence: Evidence, views: Mapping[str, ViewCounts]) -> list[str]:
    """How many test images there are, and what was averaged of each."""
    averaged = {one.averaged for one in views.values()}
    fitted = {one.fitted for one in views.values() if one.fitted is not None}
    n_averaged = min(averaged) if len(averaged) == 1 else 0
    notes = [f"{measured_on('test', len(evidence.labels), evidence.n_failed, n_averaged)}."]
    if len(averaged) > 1 or len(fitted) > 1:
        each = "; ".join(f"{name}: {one.describe()}" for name, one in views.items())
        notes.append(
            f"The stores have different views ({each}), so differences between the "
            "methods are partly due to the views."
        )
    return notes


def _of_the_intervals(
    experiment: Experiment, evidence: Evidence, config: FitConfig, n_seeds: int
) -> list[str]:
    """Sources of the intervals."""
    if not any(len(hits) > 1 for hits in evidence.hits.values()):
        first = (
            "Intervals are 95 % intervals over the choice of the test images (bootstrap, within "
            "classes, paired)."
        )
    else:
        first = (
            f"Intervals are 95 % intervals: of the mean over {n_seeds} seeds of the fit, for the "
            "rows that have any; else, and for the claims also, over the choice of the test images "
            "(bootstrap, within classes, paired)."
        )
    notes = [first, OVER_IMAGES]
    if not fits_heads(experiment.kinds):
        return notes
    if not depends_on_seed(config):
        notes.append(
            f"{config.head} heads do not depend on the seed with solver {config.solver}, so there "
            "is one of each kind."
        )
    elif n_seeds == 1:
        notes.append(
            "With one seed the verdicts do not account for variation between seeds: use "
            f"--seeds {ENOUGH} or more."
        )
    elif n_seeds < ENOUGH:
        notes.append(
            f"{n_seeds} seeds may agree by chance, which leaves an interval of no width: use "
            f"--seeds {ENOUGH} or more."
        )
    if config.average_seeds > 1:
        notes.append(
            f"Each head is the average of {config.average_seeds} seeds, and no two share one."
        )
    return notes


def _of_few_hits(evidence: Evidence) -> list[str]:
    """Causes of wide intervals over images, and the remedy."""
    few = evidence.few_hits()
    if not few:
        return []
    named = ", ".join(f"{label} ({n})" for label, n in few.items())
    return [
        f"Classes with fewer than {ENOUGH_HITS} hits: {named}. Their true recalls may lie anywhere "
        "in their exact intervals, which makes the intervals over images of both means wide; more "
        "test images of these classes would narrow them."
    ]


def _of_the_paper(experiment: Experiment, evidence: Evidence, methods: Sequence[str]) -> list[str]:
    """Reasons not to compare the paper's numbers with these."""
    notes = []
    sizes = len(evidence.class_names), int(evidence.class_counts.sum()), len(evidence.labels)
    data = experiment.dataset
    of_paper = data.n_classes, data.n_train or sizes[1], data.n_test or sizes[2]
    if sizes != of_paper:
        notes.append(
            f"The paper's numbers are for {data.describe()}; these data have {sizes[0]:,} classes, "
            f"{sizes[1]:,} training and {sizes[2]:,} test images, so compare the "
            "claims, not the numbers."
        )
    other = experiment.numbers_of
    if other and tuple(methods) != (other,):
        notes.append(f"The paper's numbers beside all methods are {other}'s, its only ones here.")
    return notes
