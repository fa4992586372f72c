"""Notes on the scores of balanced heads: images that are not new to them, other test views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.provenance import what_is_classified
from pipeline.scored import ScoredSplit
from pipeline.seen_views import averaged_views

if TYPE_CHECKING:
    from pipeline.heads import Head


def balance_notes(
    heads: Mapping[str, Head], scored: Sequence[ScoredSplit], *, folds: bool = False
) -> list[str]:
    """Name the images that heads were balanced on, and scores with other views than those.

    Args:
        heads: the heads by the names that readers know.
        scored: what the scores are of.
        folds: whether scores are cross-fitted, which looks as if rows were held back from heads.
    """
    notes = []
    for name, head in heads.items():
        for split in scored:
            if head.provenance.was_balanced_on(split.name):
                notes.append(_seen(name, split.name, folds))
            stored = averaged_views(split.store, split.name)
            notes += _views(name, head, split.test_views, stored)
    return list(dict.fromkeys(notes))


def _seen(name: str, split: str, folds: bool) -> str:
    """Say that images are not new to a head."""
    all_rows = (
        ", all of them, although cross-fitting holds some back from temperatures" if folds else ""
    )
    return (
        f"{name} was balanced on these images ({split}), without their labels{all_rows}; nolb "
        "balance-head --folds 5 scores such a head by cross-fitting."
    )


def _views(name: str, head: Head, views: int, stored: int) -> Iterator[str]:
    """Say whether the scores are of the views that a head was balanced on."""
    wanted = head.provenance.balanced_for
    if wanted is None:
        return
    if bool(wanted) != bool(views):
        yield (
            f"{name} was balanced on {what_is_classified(wanted)}, on which it predicts; these "
            f"scores are of {what_is_classified(views)}."
        )
    elif stored and not views:
        yield (
            f"{name} was balanced on the clean image alone, so these scores are of it alone; "
            f"--test-views averages {1 + stored} views."
        )
