"""How a head came about: fitted, averaged from others, or balanced on unlabelled images.

The biases of a balanced head are for the images that it was balanced on: for the mean feature with
test views, or for the clean image alone. So its provenance decides on what it is scored, and on
what it predicts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cache.records import Count, Record
from pipeline.config import BalanceConfig, FitConfig
from pipeline.errors import HeadError

DEEPEST = 50
"""Steps after the fit, at most; in the file the provenance of each is within that of the next."""


@dataclass(frozen=True)
class _Step(Record):
    """What any of them says of itself.

    Raises:
        HeadError: if it is the last of too many steps.
    """

    def __post_init__(self) -> None:
        """Refuse what could not be read from a file again."""
        if self.depth > DEEPEST:
            raise HeadError(
                f"A head is averaged or balanced {DEEPEST} times in a row at most: average all "
                "fitted heads at once."
            )

    @property
    def parents(self) -> tuple[Provenance, ...]:
        """Those of the heads that it was made of."""
        return ()

    @property
    def depth(self) -> int:
        """Steps after the fit."""
        return max((1 + parent.depth for parent in self.parents), default=0)

    @property
    def balanced_for(self) -> int | None:
        """Test views of each image that the biases are for, 0 for the clean image alone.

        None for a head that was not balanced.
        """
        balanced = (parent.balanced_for for parent in self.parents)
        return next((views for views in balanced if views is not None), None)

    def was_balanced_on(self, split: str) -> bool:
        """Whether images of the split have had a say in the biases, or in those of a parent."""
        return any(parent.was_balanced_on(split) for parent in self.parents)


@dataclass(frozen=True)
class Fitted(_Step):
    """The provenance of a head that was fitted on the features of a store."""

    config: FitConfig
    """Settings of the fit, with the solver's own numbers where none were given."""

    kind: Literal["fitted"] = "fitted"


@dataclass(frozen=True)
class Averaged(_Step):
    """The provenance of a weighted mean of heads.

    Raises:
        HeadError: if weights are missing, or heads were balanced for different test views.
    """

    heads: tuple[Provenance, ...]
    """Of each head."""

    weights: tuple[float, ...]
    """Of each head, in any unit."""

    kind: Literal["averaged"] = "averaged"

    def __post_init__(self) -> None:
        """Refuse biases that suit no images."""
        super().__post_init__()
        if len(self.weights) != len(self.heads) or not self.heads:
            raise HeadError(f"{len(self.heads)} heads need as many weights, not {self.weights}.")
        balanced = {head.balanced_for for head in self.heads} - {None}
        if len(balanced) > 1:
            raise HeadError(
                f"These heads were balanced {differently(balanced)}, so their average would match "
                "none of them: average the heads before balancing, then balance the average."
            )

    @property
    def parents(self) -> tuple[Provenance, ...]:
        """Those of the heads that it is the mean of."""
        return self.heads


@dataclass(frozen=True)
class Balanced(_Step):
    """The provenance of a head that was adapted to unlabelled images."""

    head: Provenance
    """Of the head before."""

    split: str | None
    """Split of the head's store that the images are; None for images that are in no store."""

    test_views: Count
    """Views of each image whose mean feature with the clean one was classified."""

    images: Count
    """Number of images."""

    shares: tuple[float, ...] | None
    """(C,) of the classes among them, of the sum 1; None for equal ones."""

    config: BalanceConfig
    """Settings."""

    kind: Literal["balanced"] = "balanced"

    @property
    def parents(self) -> tuple[Provenance, ...]:
        """That of the head before."""
        return (self.head,)

    @property
    def balanced_for(self) -> int:
        """As of `_Step`; what the head was balanced for before is replaced."""
        return self.test_views

    def was_balanced_on(self, split: str) -> bool:
        """As of `_Step`."""
        return split == self.split or super().was_balanced_on(split)


Provenance: TypeAlias = Fitted | Averaged | Balanced
"""How a head came about."""


def what_is_classified(test_views: int) -> str:
    """What of an image is classified."""
    return f"the mean feature of {1 + test_views} views" if test_views else "the clean image alone"


def differently(balanced: Iterable[int | None]) -> str:
    """What heads were balanced for in words, the fewest test views first."""
    views = sorted(n for n in balanced if n is not None)
    return "differently, " + " and ".join(f"one for {what_is_classified(n)}" for n in views)
