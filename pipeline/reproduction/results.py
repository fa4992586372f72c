"""Results of a comparison: rows beside the paper's, and the verdicts on its claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import FitConfig
from pipeline.reproduction.claims import Claim, Finding, Untested, judge
from pipeline.reproduction.evidence import Evidence, WithIntervals
from pipeline.reproduction.experiments import Experiment
from pipeline.reproduction.paper import PaperRow, label_gml
from pipeline.resampling import Statistic


@dataclass(frozen=True)
class Row:
    """One classifier, measured, printed in the paper, or both."""

    label: str
    """As tables show it."""

    paper: PaperRow | None
    """The paper's numbers to stand beside; None where it has none."""

    measured: Mapping[str, WithIntervals] | None
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
    """Its classifiers and claims."""

    methods: tuple[str, ...]
    """Methods that were given."""

    evidence: Evidence
    """Every classifier's hits on the test images."""

    rows: tuple[Row, ...]
    """Those of the paper first, in its order."""

    findings: tuple[Finding, ...]
    """The verdict on each claim."""

    notes: tuple[str, ...]
    """Notes to the reader, a sentence each."""

    config: FitConfig
    """Settings of the heads with GML."""

    seeds: tuple[int, ...]
    """(K,) first seed of each head; a single one where no seed decides the heads."""

    provenance: Mapping[str, Any]
    """Identity of every method's store and the versions, as JSON values."""

    files: tuple[Path, ...] = ()
    """Files written."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "what": self.what,
            "table": self.experiment.table.name,
            "title": self.experiment.table.title,
            "paper_data": self.experiment.dataset.describe(),
            "methods": list(self.methods),
            "seeds": list(self.seeds),
            "rows": [row.to_json() for row in self.rows],
            "findings": [finding.to_json() for finding in self.findings],
            "recalls": {
                label: self.evidence.scores(label).recalls for label in self.evidence.hits
            } if self.experiment.draws else None,
            "notes": list(self.notes),
            "config": asdict(self.config.resolved()),
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
    """Measure every classifier and every claim, on the same resampled images.

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
    by_label: dict[str, dict[str, WithIntervals]] = {label: {} for label in evidence.hits}
    for (label, metric), number in zip(cells, measured, strict=False):
        by_label[label][metric] = number
    for label, numbers in by_label.items():
        if "lowest_recall" in numbers:
            # The levels of the replicates come close to these ends, which every other table has.
            images = evidence.lowest_interval(label)
            numbers["lowest_recall"] = replace(numbers["lowest_recall"], images=images)
    return (
        _rows(experiment, evidence, methods, by_label),
        judge(claims, measured[len(cells) :]),
    )


def _rows(
    experiment: Experiment,
    evidence: Evidence,
    methods: tuple[str, ...],
    measured: Mapping[str, Mapping[str, WithIntervals]],
) -> tuple[Row, ...]:
    """The paper's rows in its order, then what it does not have."""

    def row(label: str, paper: PaperRow | None) -> Row:
        known = label in measured
        zeros = evidence.mean_zeros(label) if known else None
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
