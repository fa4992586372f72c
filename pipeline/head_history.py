"""What heads were balanced on (`balance_head`), as their files tell, and what follows for scores.

The biases of a balanced head are for the images that it was balanced on: for the mean feature with
test views, or for the clean image alone. `sees_test_views` is the one rule for all that is scored
and all that predicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import HeadError

if TYPE_CHECKING:
    from cache.strict_json import JSON


class WithHistory(Protocol):
    """A head, as far as it is read here; heads ask this module themselves."""

    @property
    def config(self) -> Mapping[str, JSON]:
        """Settings of the fit, and what became of the head after it."""


def views_balanced_for(head: WithHistory) -> int | None:
    """Test views of each image that a head was balanced on, 0 for the clean image alone.

    Of a head that was balanced twice those of the last time, and of a mean of heads theirs. None
    for a head that was not balanced, or where its file does not tell.

    Raises:
        HeadError: if it is a mean of heads that were balanced for different test views.
    """
    found = _views_in_pools([head])
    if len(found) > 1:
        raise HeadError(
            f"This head is a mean of heads that were balanced {_each(found)}, and suits none of "
            "these: balance it again, with nolb balance-head --test-views or --no-test-views."
        )
    return next(iter(found), None)


def sees_test_views(heads: Iterable[WithHistory | None], test_views: bool | None = None) -> bool:
    """Whether heads that answer together see test views, where there are any.

    Args:
        heads: the heads; None stands for the old classifier.
        test_views: what was asked for. Where nothing was, the balanced heads decide, and others
            go along.

    Raises:
        HeadError: if nothing was asked for, and one was balanced on the clean image alone and
            another with test views.
    """
    if test_views is not None:
        return test_views
    found = _views_in_pools(head for head in heads if head is not None)
    if 0 in found and len(found) > 1:
        raise HeadError(
            f"What shall answer here was balanced {_each(found)}: balance all alike with nolb "
            "balance-head, or say what to classify with --test-views or --no-test-views."
        )
    return 0 not in found


def require_balanced_alike(heads: Iterable[WithHistory]) -> None:
    """Refuse heads whose mean suits no images.

    Raises:
        HeadError: if they were balanced for different test views.
    """
    found = _views_in_pools(heads)
    if len(found) > 1:
        raise HeadError(
            f"These heads were balanced {_each(found)}, and their mean would suit none of these: "
            "average heads that are not balanced yet, and balance the mean."
        )


def was_balanced_on(head: WithHistory, split: str) -> bool:
    """Whether images of the split have had a say in a head's biases, or in those it is made of."""
    return any(
        isinstance(pool := config.get("pool"), Mapping) and pool.get("split") == split
        for config in _history(head, of_balanced=True)
    )


def what_is_classified(test_views: int) -> str:
    """What of an image is classified."""
    return f"the mean feature of {1 + test_views} views" if test_views else "the clean image alone"


def _views_in_pools(heads: Iterable[WithHistory]) -> set[int]:
    """Test views for which the heads' biases are: one number for each kind of images."""
    pools = (
        config.get("pool")
        for head in heads
        # What a head was before it was balanced does not matter: those biases are replaced.
        for config in _history(head, of_balanced=False)
        if "balanced" in config
    )
    told = (pool.get("test_views") for pool in pools if isinstance(pool, Mapping))
    return {views for views in told if isinstance(views, int)}


def _history(head: WithHistory, *, of_balanced: bool) -> Iterator[Mapping[str, JSON]]:
    """Settings of a head, and of the heads that it was made of; of a balanced one's if asked."""
    remaining: list[JSON] = [head.config]
    while remaining:
        config = remaining.pop()
        if not isinstance(config, Mapping):
            continue
        yield config
        if "balanced" not in config:
            remaining += _items(config.get("average_of"))
        elif of_balanced:
            remaining.append(config["balanced"])


def _items(value: JSON) -> Sequence[JSON]:
    """The items of a list; none of anything else, which no head of ours has there."""
    return value if isinstance(value, list | tuple) else ()


def _each(views: Iterable[int]) -> str:
    """Different numbers of test views in words, the fewest first."""
    return "differently, " + " and ".join(f"one for {what_is_classified(n)}" for n in sorted(views))
