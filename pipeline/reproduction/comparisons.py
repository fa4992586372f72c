"""The claims of Sec. 4.4: GML and the ensemble on top of published methods, Tables 3 to 6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics import Floats, Ints
from pipeline.reproduction.claims import METRIC_WORDS, Claim, Untested, difference, gain
from pipeline.reproduction.evidence import in_paper
from pipeline.reproduction.paper import (
    METHODS,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    WITHOUT_ACCURACY,
    PaperTable,
    label_ensemble,
    label_gml,
    label_old,
    label_on_val,
)
from pipeline.resampling import Numbers, Statistic

LOWEST_PUBLISHED = 5.0
"""The highest lowest recall among the published methods of Table 3 (LADE, MiSLAS, PaCo)."""

ACCURACY_LOSS = 2.0
"""Points of accuracy within which it counts as kept."""

ACCURACY_WHY = "Table 3's own loss is 1.42 (PaCo), and it calls that roughly unchanged"

ClaimList = list[Claim | Untested]


@dataclass(frozen=True)
class Given:
    """Classifiers and data to test claims on."""

    methods: tuple[str, ...]
    """Methods whose checkpoint or store is there, in the order given."""

    on_val: tuple[str, ...]
    """Those with a validation split."""

    class_counts: Ints
    """(C,) training images of each class."""

    class_samples: Ints
    """(C,) test images of each class; one without any has no recall."""

    no_resampling: str = ""
    """Why re-sampling cannot be tried with these settings; empty where it can."""

    def others(self, *names: str) -> tuple[str, ...]:
        """All methods but these."""
        return tuple(method for method in self.methods if method not in names)


def missing(given: Given, wanted: Sequence[str], place: str, words: str) -> ClaimList:
    """Claims that cannot be tested because methods of the paper are missing."""
    absent = [method for method in wanted if method not in given.methods]
    if not absent:
        return []
    options = " ".join(f"--checkpoint {method}=FILE" for method in absent)
    return [Untested(place, f"{words}: the same with {_listed(absent)}.", f"Add {options}.")]


def claims_of_table_3(given: Given) -> ClaimList:
    """CIFAR100-LT, Sec. 4.4.1."""
    place = "Sec. 4.4.1, Table 3"
    claims: ClaimList = [
        Claim(
            place, f"The worst class of {method} is still poor.",
            f"lowest recall: {label_old(method)}", _metric("lowest_recall", label_old(method)),
            "<=", LOWEST_PUBLISHED, "%", "the highest of the paper's published methods",
            in_paper(_metric("lowest_recall", method), TABLE_3), (0.0, 100.0),
        )
        for method in given.methods
    ]  # fmt: skip
    for method in given.methods:
        claims += _lifted(place, TABLE_3, method)
        claims += _ensemble(place, TABLE_3, method, given, WITHOUT_ACCURACY)
    claims += missing(given, ("CE", "PaCo"), place, "GML lifts the worst class")
    return claims + _above_all_published(given, place)


def claims_of_table_4(given: Given) -> ClaimList:
    """ImageNet-LT, Sec. 4.4.2."""
    place = "Sec. 4.4.2, Table 4"
    claims: ClaimList = []
    for method in given.methods:
        old, new = label_old(method), label_gml(method)
        claims += [
            Claim(
                place, f"{method} leaves at least one class at zero recall.",
                f"lowest recall: {old}", _metric("lowest_recall", old), "<=", 0.0, "%",
                in_paper=in_paper(_metric("lowest_recall", old), TABLE_4), bounds=(0.0, 100.0),
            ),
            *_lifted(place, TABLE_4, method),
            Claim(
                place, f"With GML no class of {method} is at zero recall.",
                f"classes at zero: {new}", zeros(new), "<=", 0.0, "classes",
                bounds=(0.0, float(len(given.class_counts))),
            ),
            *_ensemble(place, TABLE_4, method, given, WITHOUT_ACCURACY[:2]),
        ]  # fmt: skip
    return claims + missing(given, ("CE", "PaCo"), place, "GML lifts the worst class")


def claims_of_table_5(given: Given) -> ClaimList:
    """Places-LT, Sec. 4.4.2."""
    place = "Sec. 4.4.2, Table 5"
    claims: ClaimList = []
    for method in given.methods:
        claims += _lifted(place, TABLE_5, method)
        claims += _ensemble(place, TABLE_5, method, given, WITHOUT_ACCURACY[:2])
    return claims + missing(given, ("CE", "MiSLAS"), place, "GML lifts the worst class")


def claims_of_table_6(given: Given) -> ClaimList:
    """Universality, Sec. 4.4.3, and its limits, Sec. 5."""
    place = "Sec. 4.4.3, Table 6"
    claims: ClaimList = []
    for metric in WITHOUT_ACCURACY:
        claims += [
            _gml_gain(place, TABLE_6, method, metric, "improves") for method in given.methods
        ]
        if len(given.methods) > 1:
            gains = [difference(metric, label_gml(m), label_old(m)) for m in given.methods]
            claims.append(
                Claim(
                    place, f"The {METRIC_WORDS[metric]} improves with every method given.",
                    f"{METRIC_WORDS[metric]}: smallest of {len(gains)} gains", _smallest(gains),
                    bounds=(-100.0, 100.0),
                )
            )  # fmt: skip
    words = "GML improves every method consistently"
    claims += missing(given, ("CE", "BSCE", "MiSLAS", "PaCo"), place, words)
    return claims + _limits(given)


def _limits(given: Given) -> ClaimList:
    """Sec. 5: methods that re-weight their loss profit less."""
    claims: ClaimList = []
    for method in ("BSCE", "DiVE"):
        words = f"GML improves {method} less obviously than CE."
        needed = [name for name in ("CE", method) if name not in given.methods]
        if needed:
            options = " ".join(f"--checkpoint {name}=FILE" for name in needed)
            claims.append(Untested("Sec. 5", words, f"Add {options}."))
            continue

        def less(numbers: Numbers, method: str = method) -> Floats:
            ce, other = (
                difference("harmonic_mean", label_gml(m), label_old(m))(numbers)
                for m in ("CE", method)
            )
            return np.asarray(ce - other)

        claims.append(
            Claim(
                "Sec. 5", words, f"harmonic mean: gain of CE less gain of {method}", less,
                in_paper=in_paper(less, TABLE_6), bounds=(-200.0, 200.0),
            )
        )  # fmt: skip
    return claims


def _lifted(place: str, table: PaperTable, method: str) -> ClaimList:
    """GML raises lowest recall and harmonic mean of a method."""
    return [
        _gml_gain(place, table, method, metric, "lifts")
        for metric in ("lowest_recall", "harmonic_mean")
    ]


def _gml_gain(place: str, table: PaperTable, method: str, metric: str, verb: str) -> Claim:
    """GML raises one metric of a method."""
    first, second = label_gml(method), label_old(method)
    return gain(
        place, f"GML {verb} the {METRIC_WORDS[metric]} of {method}.", metric, first, second,
        paper=in_paper(difference(metric, first, second), table),
    )  # fmt: skip


def _ensemble(
    place: str, table: PaperTable, method: str, given: Given, metrics: Sequence[str]
) -> ClaimList:
    """The ensemble improves on the new head alone, and keeps the old head's accuracy."""
    claims: ClaimList = []
    labels = [label_ensemble(method)] + [label_on_val(method)] * (method in given.on_val)
    for label in labels:
        at = "at (1, 1)" if label == label_ensemble(method) else "at temperatures of val"
        for metric in metrics:
            alone = label_gml(method)
            claims.append(
                gain(
                    place,
                    f"The ensemble {at} raises the {METRIC_WORDS[metric]} of {method} further.",
                    metric, label, alone,
                    paper=in_paper(difference(metric, label, alone), table),
                )
            )  # fmt: skip
        old = label_old(method)
        claims.append(
            gain(
                place, f"The ensemble {at} keeps the accuracy of {method} roughly unchanged.",
                "accuracy", label, old, paper=in_paper(difference("accuracy", label, old), table),
                relation=">=", threshold=-ACCURACY_LOSS, why=ACCURACY_WHY,
            )
        )  # fmt: skip
    return claims


def _above_all_published(given: Given, place: str) -> ClaimList:
    """Even CE + GML beats every published method in its worst class."""
    words = "Even CE + GML has a higher lowest recall than every published method."
    if "CE" not in given.methods:
        return [Untested(place, words, "Add --checkpoint CE=FILE.")]
    ours = label_gml("CE")
    others = tuple(method for method in given.others("CE") if method in METHODS)
    if not others:
        paper = in_paper(_lead("lowest_recall", ours, TABLE_3_METHODS), TABLE_3)
        return [
            Claim(
                place, words, f"lowest recall: {ours} less {LOWEST_PUBLISHED:g}",
                lambda numbers: numbers.metric(ours, "lowest_recall") - LOWEST_PUBLISHED,
                why="the highest published one, as Table 3 prints it: no other method is given",
                in_paper=paper, bounds=(-100.0, 100.0),
            )
        ]  # fmt: skip
    lead = _lead("lowest_recall", ours, others)
    return [
        Claim(
            place, f"{words[:-1]} given.",
            f"lowest recall: {ours} less the highest of {_listed(others)}", lead,
            in_paper=in_paper(lead, TABLE_3), bounds=(-100.0, 100.0),
        ),
        *missing(given, TABLE_3_METHODS, place, words[:-1]),
    ]  # fmt: skip


TABLE_3_METHODS = tuple(row.label for row in TABLE_3.rows if "GML" not in row.label)
"""The published methods that Table 3 lists."""


def _metric(metric: str, label: str) -> Statistic:
    return lambda numbers: numbers.metric(label, metric)


def zeros(label: str) -> Statistic:
    """Classes of zero recall: a class with a hit is none, one without may be or not."""
    return lambda numbers: np.asarray(
        (numbers.limited_recalls(label) == 0).sum(axis=-1), np.float64
    )


def _smallest(statistics: Sequence[Statistic]) -> Statistic:
    """The lowest of some statistics, seed by seed."""

    def smallest(numbers: Numbers) -> Floats:
        values = np.broadcast_arrays(*(one(numbers) for one in statistics))
        return np.asarray(np.min(values, axis=0), np.float64)

    return smallest


def _lead(metric: str, first: str, others: Sequence[str]) -> Statistic:
    """One classifier's metric less the highest of some others'."""

    def lead(numbers: Numbers) -> Floats:
        highest = np.maximum.reduce([numbers.metric(label, metric) for label in others])
        return np.asarray(numbers.metric(first, metric) - highest)

    return lead


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
