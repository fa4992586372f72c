"""Contents of each table and figure: its classifiers, its claims and its picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline.reproduction.ablations import (
    PACO,
    claims_of_table_7,
    claims_of_table_8,
    claims_of_table_9,
)
from pipeline.reproduction.comparisons import (
    ClaimList,
    Given,
    claims_of_table_3,
    claims_of_table_4,
    claims_of_table_5,
    claims_of_table_6,
)
from pipeline.reproduction.paper import (
    CIFAR10_LT,
    CIFAR100_LT,
    IMAGENET_LT,
    PLACES_LT,
    SCRATCH,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_8,
    TABLE_9,
    Dataset,
    PaperTable,
)
from pipeline.reproduction.recall_claims import (
    claims_of_figure_1,
    claims_of_figure_2,
    claims_of_figure_3,
)
from pipeline.reproduction.settings import Kind

FIGURE_1 = PaperTable("Figure 1", "Recall of every class of published methods", TABLE_3.metrics, ())
FIGURE_2 = PaperTable(
    "Figure 2", "Recall of every class before and after GML, few classes", TABLE_3.metrics, ()
)
FIGURE_3 = PaperTable(
    "Figure 3", "Recall of every class before and after GML, many classes", TABLE_3.metrics, ()
)


@dataclass(frozen=True)
class Experiment:
    """One table or figure of the paper."""

    name: str
    """One of `paper.NAMES`."""

    table: PaperTable
    """Its numbers; of a figure none, only what it shows."""

    dataset: Dataset
    """Data of the paper."""

    kinds: tuple[Kind, ...]
    """Classifiers of each method."""

    claims: Callable[[Given], ClaimList]
    """The statements that it supports."""

    numbers_of: str = ""
    """Method whose numbers stand beside every other method's, where the paper has one alone."""

    draws: bool = False
    """Whether it is a picture."""

    def kinds_of(self, method: str) -> tuple[Kind, ...]:
        """Classifiers of one method: of Table 9's network, which GML has trained, its own alone."""
        return ("old",) if self.table is TABLE_9 and method == SCRATCH else self.kinds


_METHODS: tuple[Kind, ...] = ("old", "gml", "ensemble", "on-val")

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        one.name: one
        for one in (
            Experiment("table3", TABLE_3, CIFAR100_LT, _METHODS, claims_of_table_3),
            Experiment("table4", TABLE_4, IMAGENET_LT, _METHODS, claims_of_table_4),
            Experiment("table5", TABLE_5, PLACES_LT, _METHODS, claims_of_table_5),
            Experiment("table6", TABLE_6, CIFAR100_LT, ("old", "gml"), claims_of_table_6),
            Experiment(
                "table7", TABLE_7, CIFAR100_LT, ("old", "gml", "pairs"), claims_of_table_7, PACO
            ),
            Experiment(
                "table8", TABLE_8, CIFAR100_LT, ("gml", "plain", "resampled"), claims_of_table_8,
                "CE",
            ),
            Experiment("table9", TABLE_9, CIFAR100_LT, ("gml",), claims_of_table_9),
            Experiment("figure1", FIGURE_1, CIFAR100_LT, ("old",), claims_of_figure_1, draws=True),
            Experiment(
                "figure2", FIGURE_2, CIFAR10_LT, ("old", "gml"), claims_of_figure_2, draws=True
            ),
            Experiment(
                "figure3", FIGURE_3, CIFAR100_LT, ("old", "gml"), claims_of_figure_3, draws=True
            ),
        )
    }
)  # fmt: skip
"""By name, in the order of `paper.NAMES`."""
