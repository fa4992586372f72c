"""What scores of balanced heads do not say by themselves, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import HeadError
from pipeline.head_history import views_balanced_for, was_balanced_on, what_is_classified
from pipeline.scored import ScoredSplit, averaged_views

if TYPE_CHECKING:
    from pipeline.heads import Head


def balance_notes(
    heads: Mapping[str, Head], scored: Sequence[ScoredSplit], *, folds: bool = False
) -> list[str]:
    """Which images heads have seen, and where scores are of others than heads are for.

    Args:
        heads: the heads by the names that readers know them under.
        scored: what the scores are of.
        folds: whether scores are cross-fitted, which looks as if rows were held back from heads.
    """
    notes = []
    for name, head in heads.items():
        for split in scored:
            if was_balanced_on(head, split.name):
                notes.append(_seen(name, split.name, folds))
            stored = averaged_views(split.store, split.name)
            notes += _views(name, head, split.test_views, stored)
    return list(dict.fromkeys(notes))


def _seen(name: str, split: str, folds: bool) -> str:
    """That images are not new to a head."""
    all_rows = ", all of them, whatever cross-fitting holds back from temperatures" if folds else ""
    return (
        f"{name} was balanced on these images ({split}), without their labels{all_rows}; nolb "
        "balance-head --folds 5 scores such a head by folds."
    )


def _views(name: str, head: Head, views: int, stored: int) -> Iterator[str]:
    """That a head decides what its scores are of, or that they are of something else."""
    try:
        wanted = views_balanced_for(head)
    except HeadError as error:  # scored all the same where it was said on what
        yield f"{name}: {error}"
        return
    if wanted is None:
        return
    if bool(wanted) != bool(views):
        yield (
            f"{name} was balanced for {what_is_classified(wanted)}, on which it predicts; these "
            f"scores are of {what_is_classified(views)}."
        )
    elif stored and not views:
        yield (
            f"{name} was balanced for the clean image alone, so these scores are of it alone; "
            f"--test-views averages {1 + stored} views."
        )
