"""The numbers of the paper, as printed there: Du and Wu, "No One Left Behind", CVPR 2023.

Everything is in percent. A star stands where the paper has one: a mean in which recalls of zero
were substituted. Row numbers count the rows of a table's body from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

ALL_METRICS = ("accuracy", "geometric_mean", "harmonic_mean", "lowest_recall")
"""`metrics.IN_PERCENT`, without numpy: the command line reads `NAMES` before it is needed."""

WITHOUT_ACCURACY = ALL_METRICS[1:]

SCRATCH = "scratch"
"""What the checkpoint of Table 9 is called, whose whole network was trained with GML."""

SCRATCH_LABEL = "GML (train from scratch)"

PAIRS = ((1.0, 1.0), (1.0, 2.0), (1.0, 3.0), (2.0, 1.0), (2.0, 2.0), (2.0, 3.0), (3.0, 1.0))
"""(t_old, t_new) of Table 7, in its order."""


@dataclass(frozen=True)
class Dataset:
    """Sizes of a data set, Table 2."""

    name: str
    """As the paper writes it."""

    n_classes: int
    """C."""

    n_train: int | None = None
    """Training images; None where the paper does not say."""

    n_test: int | None = None
    """Test images."""

    def describe(self) -> str:
        """Name and sizes in words."""
        sizes = [
            f"{n:,} {what} images"
            for n, what in ((self.n_train, "training"), (self.n_test, "test"))
            if n is not None
        ]
        return f"{self.name} ({', '.join([f'{self.n_classes:,} classes', *sizes])})"


CIFAR10_LT = Dataset("CIFAR10-LT", 10)
CIFAR100_LT = Dataset("CIFAR100-LT", 100, 10_847, 10_000)
IMAGENET_LT = Dataset("ImageNet-LT", 1_000, 115_846, 50_000)
PLACES_LT = Dataset("Places-LT", 365, 62_500, 36_500)


@dataclass(frozen=True)
class PaperRow:
    """One row of a table."""

    label: str
    """The method, as the table calls it."""

    place: str
    """Where it stands: "Table 3, row 9"."""

    values: Mapping[str, float]
    """By metric."""

    starred: bool = False
    """Whether its two means carry a star."""


@dataclass(frozen=True)
class PaperTable:
    """One table."""

    name: str
    """As "Table 3"."""

    title: str
    """What it shows, in our words."""

    metrics: tuple[str, ...]
    """Its columns."""

    rows: tuple[PaperRow, ...]
    """Its rows, in order."""

    def row(self, label: str) -> PaperRow | None:
        """The row of that label, or None."""
        return next((row for row in self.rows if row.label == label), None)


def label_old(method: str) -> str:
    """A method as it is published; the network of Table 9 is its own row."""
    return SCRATCH_LABEL if method == SCRATCH else method


def label_gml(method: str) -> str:
    """A method with its head re-trained."""
    return f"{method} + GML"


def label_ensemble(method: str) -> str:
    """Both heads together at (1, 1)."""
    return f"{method} + GML (Ensemble)"


def label_on_val(method: str) -> str:
    """Both heads together at temperatures that validation images chose; not in the paper."""
    return f"{method} + GML (Ensemble, t of val)"


def label_at(method: str, t_old: float, t_new: float) -> str:
    """Both heads together at one pair of Table 7."""
    return f"{method} + GML ({t_old:g}, {t_new:g})"


def label_plain(method: str) -> str:
    """GML without the factor N of eq. (3), Table 8 row 2."""
    return f"{method} + GML, no re-weighting"


def label_resampled(method: str) -> str:
    """The same with classes drawn equally often, Table 8 row 3."""
    return f"{method} + GML, re-sampling instead"


def _rows(
    table: str, metrics: Sequence[str], *rows: tuple[str, Sequence[float], bool]
) -> tuple[PaperRow, ...]:
    """Rows of a table from labels, numbers and stars."""
    return tuple(
        PaperRow(
            label,
            f"{table}, row {number}",
            MappingProxyType(dict(zip(metrics, values, strict=True))),
            starred,
        )
        for number, (label, values, starred) in enumerate(rows, start=1)
    )


TABLE_3 = PaperTable(
    "Table 3", "GML and the ensemble on CIFAR100-LT, imbalance ratio 100", ALL_METRICS,
    _rows(
        "Table 3", ALL_METRICS,
        ("CE", (38.74, 21.03, 2.05, 0.00), True),
        ("BSCE", (42.24, 35.16, 26.24, 3.00), False),
        ("LDAM", (43.51, 33.61, 21.49, 3.00), False),
        ("LADE", (44.39, 39.05, 32.58, 5.00), False),
        ("DiVE", (45.11, 37.08, 25.18, 2.00), False),
        ("MiSLAS", (47.05, 40.16, 30.93, 5.00), False),
        ("RIDE", (48.64, 38.71, 23.86, 2.00), False),
        ("PaCo", (51.24, 45.29, 36.42, 5.00), False),
        ("CE + GML", (41.06, 36.59, 31.26, 6.00), False),
        ("PaCo + GML", (50.53, 45.47, 39.20, 9.00), False),
        ("PaCo + GML (Ensemble)", (49.82, 45.70, 41.02, 15.00), False),
    ),
)  # fmt: skip

TABLE_4 = PaperTable(
    "Table 4", "GML and the ensemble on ImageNet-LT", ALL_METRICS,
    _rows(
        "Table 4", ALL_METRICS,
        ("CE", (43.90, 23.25, 1.25, 0.00), True),
        ("BSCE", (50.48, 42.32, 13.74, 0.00), True),
        ("cRT", (49.64, 41.35, 13.82, 0.00), True),
        ("DiVE", (53.63, 45.49, 12.76, 0.00), True),
        ("RIDE", (55.69, 47.56, 17.32, 0.00), True),
        ("PaCo", (58.53, 51.32, 21.79, 0.00), True),
        ("CE + GML", (45.61, 39.82, 31.67, 2.00), False),
        ("PaCo + GML", (55.57, 50.67, 43.71, 2.00), False),
        ("PaCo + GML (Ensemble)", (57.22, 52.29, 44.80, 2.00), False),
    ),
)  # fmt: skip

TABLE_5 = PaperTable(
    "Table 5", "GML and the ensemble on Places-LT", ALL_METRICS,
    _rows(
        "Table 5", ALL_METRICS,
        ("CE", (28.71, 12.11, 0.73, 0.00), True),
        ("BSCE", (37.18, 29.30, 5.64, 0.00), True),
        ("PaCo", (40.45, 27.88, 2.53, 0.00), True),
        ("MiSLAS", (40.48, 35.53, 28.97, 3.00), False),
        ("CE + GML", (36.82, 29.30, 8.00, 0.00), True),
        ("MiSLAS + GML", (39.90, 35.41, 29.98, 5.00), False),
        ("MiSLAS + GML (Ensemble)", (40.37, 35.92, 30.51, 5.00), False),
    ),
)  # fmt: skip

TABLE_6 = PaperTable(
    "Table 6", "GML on top of several methods, CIFAR100-LT, no ensemble", WITHOUT_ACCURACY,
    _rows(
        "Table 6", WITHOUT_ACCURACY,
        ("CE", (21.03, 2.05, 0.00), True),
        ("CE + GML", (36.59, 31.26, 6.00), False),
        ("BSCE", (35.16, 26.24, 3.00), False),
        ("BSCE + GML", (36.52, 30.88, 7.00), False),
        ("MiSLAS", (40.16, 30.93, 5.00), False),
        ("MiSLAS + GML", (40.90, 36.49, 11.00), False),
        ("PaCo", (45.29, 36.42, 5.00), False),
        ("PaCo + GML", (45.47, 39.20, 9.00), False),
    ),
)  # fmt: skip

_AT_PAIRS = (
    (45.70, 41.02, 15.00),
    (45.58, 38.86, 8.00),
    (44.68, 36.09, 5.00),
    (44.39, 40.22, 15.00),
    (45.61, 41.01, 15.00),
    (46.06, 40.40, 11.00),
    (43.73, 39.63, 15.00),
)

TABLE_7 = PaperTable(
    "Table 7", "Two temperatures in the ensemble of PaCo and PaCo + GML, CIFAR100-LT",
    WITHOUT_ACCURACY,
    _rows(
        "Table 7", WITHOUT_ACCURACY,
        *(
            (label_at("PaCo", *pair), values, False)
            for pair, values in zip(PAIRS, _AT_PAIRS, strict=True)
        ),
    ),
)  # fmt: skip

TABLE_8 = PaperTable(
    "Table 8", "GML without its re-weighting, CIFAR100-LT", WITHOUT_ACCURACY,
    _rows(
        "Table 8", WITHOUT_ACCURACY,
        (label_gml("CE"), (36.59, 31.26, 6.00), False),
        # A lowest recall of zero, and yet no star in the paper.
        (label_plain("CE"), (25.45, 5.11, 0.00), False),
        (label_resampled("CE"), (32.32, 23.05, 4.00), False),
    ),
)  # fmt: skip

TABLE_9 = PaperTable(
    "Table 9", "A network trained with GML from scratch, CIFAR100-LT", WITHOUT_ACCURACY,
    _rows(
        "Table 9", WITHOUT_ACCURACY,
        ("CE + GML", (36.59, 31.26, 6.00), False),
        ("PaCo + GML", (45.47, 39.20, 9.00), False),
        (SCRATCH_LABEL, (36.63, 30.86, 9.00), False),
    ),
)  # fmt: skip

METHODS = ("CE", "BSCE", "LDAM", "LADE", "DiVE", "MiSLAS", "RIDE", "PaCo", "cRT")
"""The methods that the paper compares, as it writes them."""

NAMES = (
    "table3", "table4", "table5", "table6", "table7", "table8", "table9",
    "figure1", "figure2", "figure3",
)  # fmt: skip
"""What can be reproduced."""
