"""What a comparison found: rows beside the paper's, and the verdicts on its claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import FitConfig
from pipeline.reproduction.claims import Claim, Finding, Untested, judge
from pipeline.reproduction.evidence import Evidence, Measured, Statistic
from pipeline.reproduction.experiments import Experiment
from pipeline.reproduction.fits import WITH_SMOOTHING
from pipeline.reproduction.paper import PaperRow, label_gml


@dataclass(frozen=True)
class Row:
    """One classifier, measured, printed in the paper, or both."""

    label: str
    """As tables show it."""

    paper: PaperRow | None
    """The paper's numbers to stand beside; None where it has none."""

    measured: Mapping[str, Measured] | None
    """By metric; None where no checkpoint of the method was given."""

    zeros: float | None
    """Classes of zero recall, mean over seeds; None where nothing was measured."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        paper, measured = self.paper, self.measured
        return {
            "label": self.label,
            "paper": None if paper is None else {
                "label": paper.label, "place": paper.place, "starred": paper.starred,
                **paper.values,
            },
            "measured": None if measured is None else {k: m.to_json() for k, m in measured.items()},
            "classes_at_zero": self.zeros,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reproduction:
    """One table or figure, reproduced."""

    what: str
    """`table3` and the like."""

    experiment: Experiment
    """What it consists of."""

    methods: tuple[str, ...]
    """Methods that were given."""

    evidence: Evidence
    """Every classifier's hits on the test images."""

    rows: tuple[Row, ...]
    """Those of the paper first, in its order."""

    findings: tuple[Finding, ...]
    """The verdict on each claim."""

    notes: tuple[str, ...]
    """What a reader has to know, a sentence each."""

    config: FitConfig
    """Settings of the fits; the seeds begin at its own."""

    n_seeds: int
    """K."""

    provenance: Mapping[str, Any]
    """Identity of every method's store and the versions, as JSON values."""

    files: tuple[Path, ...] = ()
    """What was written."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "what": self.what,
            "table": self.experiment.table.name,
            "title": self.experiment.table.title,
            "paper_data": self.experiment.dataset.describe(),
            "methods": list(self.methods),
            "seeds": [self.config.seed + k for k in range(self.n_seeds)],
            "rows": [row.to_json() for row in self.rows],
            "findings": [finding.to_json() for finding in self.findings],
            "recalls": {
                label: self.evidence.scores(label).recalls for label in self.evidence.hits
            } if self.experiment.draws else None,
            "notes": list(self.notes),
            "config": asdict(self.config),
            "provenance": dict(self.provenance),
            "files": [str(path) for path in self.files],
        }  # fmt: skip


def find_results(
    experiment: Experiment,
    evidence: Evidence,
    methods: tuple[str, ...],
    claims: list[Claim | Untested],
    *,
    replicates: int,
    seed: int,
) -> tuple[tuple[Row, ...], tuple[Finding, ...]]:
    """Measure every classifier and every claim, on the same redrawn images.

    Args:
        experiment: the table or figure.
        evidence: every classifier's hits.
        methods: those given.
        claims: to be tested.
        replicates: of the bootstrap over test images.
        seed: of its draws.
    """
    metrics = experiment.table.metrics
    cells = [(label, metric) for label in evidence.hits for metric in metrics]
    tested = [claim for claim in claims if isinstance(claim, Claim)]
    statistics: list[Statistic] = [_cell(label, metric) for label, metric in cells]
    measured = evidence.estimate(
        statistics + [claim.statistic for claim in tested],
        [(0.0, 100.0)] * len(cells) + [claim.bounds for claim in tested],
        replicates=replicates, seed=seed,
    )  # fmt: skip
    by_label: dict[str, dict[str, Measured]] = {label: {} for label in evidence.hits}
    for (label, metric), number in zip(cells, measured, strict=False):
        by_label[label][metric] = number
    return (
        _rows(experiment, evidence, methods, by_label),
        judge(claims, measured[len(cells) :]),
    )


def notes_on(
    experiment: Experiment,
    evidence: Evidence,
    methods: tuple[str, ...],
    n_seeds: int,
    test_views: int,
) -> tuple[str, ...]:
    """What a reader has to know before the numbers are compared."""
    views = f", mean feature of {1 + test_views} views each" if test_views else ""
    failed = f"; {evidence.n_failed:,} more could not be read" if evidence.n_failed else ""
    fitted = [label for label, hits in evidence.hits.items() if len(hits) > 1]
    notes = [
        f"In %, on the test split ({len(evidence.labels):,} images{views}{failed}).",
        f"Intervals are of 95 %: of the mean over {n_seeds} seeds of the fit, for the rows that "
        "have any; else, and for the claims also, over the choice of the test images (bootstrap, "
        "within classes, paired)."
        if fitted
        else "Intervals are of 95 %, over the choice of the test images (bootstrap, within "
        "classes, paired).",
        "A claim holds, or does not, where all its intervals agree; what the seeds alone say is "
        "true of these images. Intervals over images of a lowest recall or a maximum are too "
        "narrow: of a lowest recall they hold the truth in 81 % of the draws where it is known "
        "(benchmarks.bootstrap_coverage), and a class without a single hit stays so in every draw.",
    ]
    sizes = len(evidence.class_names), int(evidence.class_counts.sum()), len(evidence.labels)
    data = experiment.dataset
    of_paper = data.n_classes, data.n_train or sizes[1], data.n_test or sizes[2]
    if sizes != of_paper:
        notes.append(
            f"The paper's numbers are of {data.describe()}; these data have {sizes[0]:,} classes, "
            f"{sizes[1]:,} training and {sizes[2]:,} test images, so only the claims compare."
        )
    other = experiment.numbers_of
    if other and methods != (other,):
        notes.append(f"The paper's numbers beside all methods are {other}'s, its only ones here.")
    if experiment.draws and fitted:
        notes.append("The picture shows the first seed.")
    if label_gml(WITH_SMOOTHING) in evidence.hits:
        notes.append(f"GML on {WITH_SMOOTHING} is fitted with label-aware smoothing (Table 5).")
    if any(_has_zeros(evidence, label) for label in evidence.hits):
        notes.append("* Classes of zero recall count as 0.1 % in this mean, for some seed.")
    return tuple(notes)


def _rows(
    experiment: Experiment,
    evidence: Evidence,
    methods: tuple[str, ...],
    measured: Mapping[str, Mapping[str, Measured]],
) -> tuple[Row, ...]:
    """The paper's rows in its order, then what it does not have."""

    def row(label: str, paper: PaperRow | None) -> Row:
        known = label in measured
        zeros = _mean_zeros(evidence, label) if known else None
        return Row(label, paper, measured.get(label), zeros)

    table = experiment.table
    if experiment.numbers_of:
        return tuple(row(label, _beside(experiment, label, methods)) for label in evidence.hits)
    rows = [row(paper.label, paper) for paper in table.rows]
    return (*rows, *(row(label, None) for label in measured if table.row(label) is None))


def _beside(experiment: Experiment, label: str, methods: tuple[str, ...]) -> PaperRow | None:
    """The paper's row of the same classifier on its own method."""
    for method in methods:
        if label.startswith(label_gml(method)):
            rest = label.removeprefix(label_gml(method))
            return experiment.table.row(label_gml(experiment.numbers_of) + rest)
    return None


def _cell(label: str, metric: str) -> Statistic:
    return lambda numbers: numbers.metric(label, metric)


def _mean_zeros(evidence: Evidence, label: str) -> float:
    """Classes of zero recall, mean over seeds."""
    zeros = [evidence.scores(label, k).substituted_zeros for k in range(len(evidence.hits[label]))]
    return float(np.mean(zeros))


def _has_zeros(evidence: Evidence, label: str) -> bool:
    return _mean_zeros(evidence, label) > 0
