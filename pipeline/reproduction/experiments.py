"""What each table and figure consists of: its classifiers, its claims and its picture."""

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
    Claims,
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
    NAMES,
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

    table: PaperTable
    """Its numbers; of a figure none, only what it shows."""

    dataset: Dataset
    """What the paper measured it on."""

    kinds: tuple[Kind, ...]
    """Classifiers of each method."""

    claims: Callable[[Given], Claims]
    """The statements that it supports."""

    numbers_of: str = ""
    """Method whose numbers stand beside every other method's, where the paper has one alone."""

    draws: bool = False
    """Whether it is a picture."""

    def kinds_of(self, method: str) -> tuple[Kind, ...]:
        """Classifiers of one method: of Table 9's network, which GML has trained, its own alone."""
        return ("old",) if self.table is TABLE_9 and method == SCRATCH else self.kinds


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    dict(
        zip(
            NAMES,
            (
                Experiment(
                    TABLE_3, CIFAR100_LT, ("old", "gml", "ensemble", "on-val"), claims_of_table_3
                ),
                Experiment(
                    TABLE_4, IMAGENET_LT, ("old", "gml", "ensemble", "on-val"), claims_of_table_4
                ),
                Experiment(
                    TABLE_5, PLACES_LT, ("old", "gml", "ensemble", "on-val"), claims_of_table_5
                ),
                Experiment(TABLE_6, CIFAR100_LT, ("old", "gml"), claims_of_table_6),
                Experiment(TABLE_7, CIFAR100_LT, ("old", "gml", "pairs"), claims_of_table_7, PACO),
                Experiment(
                    TABLE_8, CIFAR100_LT, ("gml", "plain", "resampled"), claims_of_table_8, "CE"
                ),
                Experiment(TABLE_9, CIFAR100_LT, ("gml",), claims_of_table_9),
                Experiment(FIGURE_1, CIFAR100_LT, ("old",), claims_of_figure_1, draws=True),
                Experiment(FIGURE_2, CIFAR10_LT, ("old", "gml"), claims_of_figure_2, draws=True),
                Experiment(FIGURE_3, CIFAR100_LT, ("old", "gml"), claims_of_figure_3, draws=True),
            ),
            strict=True,
        )
    )
)
"""By the names of `paper.NAMES`."""
