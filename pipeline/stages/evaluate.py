"""The stage `evaluate`: every class's recall for the old head, the new head or both."""

from __future__ import annotations

from collections.abc import Sequence

from cache import Store
from pipeline.errors import EvaluationError
from pipeline.heads import Head, require_same_identity
from pipeline.metrics import Scores
from pipeline.mixture import Mixture, answering, given_temperatures, heads_of
from pipeline.scored import ScoredSplit, scored_split


def evaluate(
    store: Store,
    head: Head | Sequence[Head] | None = None,
    *,
    t_old: float | None = None,
    t_new: float | Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    split: str = "test",
    test_views: bool | None = None,
) -> Scores:
    """Score one classifier on one split; rows whose image failed are counted and left out.

    Without a head that is the old classifier, with a head the new one alone, and with a head and
    a temperature the ensemble of both, eq. (11)-(13). A temperature that is not given is 1.
    Several heads are always scored together with the old one.

    Args:
        store: features (N, D) and old logits (N, C) of the split.
        head: the re-trained head (C, D), fitted on this store or one of the same identity; or
            several.
        t_old: temperature of the old classifier in the ensemble, above 0.
        t_new: temperature of the new head in the ensemble, above 0; one for all heads or for each.
        weights: of the old and of each new head in the ensemble, 0 to leave one out; equal where
            not given.
        split: name of the split to score.
        test_views: classify the mean feature of the clean image and its test views; None does
            where the store has them, unless a head was balanced on the clean image alone.

    Returns:
        Metrics in percent, Sec. 4.3.

    Raises:
        EvaluationError: if the split is missing, has no usable row or holds NaN, if a temperature
            is given without a head or is not above 0, numbers of heads disagree, or test
            views are asked for that are not there.
        HeadError: if the head belongs to another store, or nothing is said of test views and the
            heads were balanced for different ones.
    """
    heads = heads_of(head)
    mixture = _mixture(len(heads), given_temperatures(t_old, t_new, max(1, len(heads))), weights)
    return _seen(store, heads, mixture, split, test_views).scores(heads, mixture)


def evaluate_each(
    store: Store,
    heads: Sequence[Head],
    *,
    t_old: float | None = None,
    t_new: float | Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
    split: str = "test",
    test_views: bool | None = None,
) -> dict[str, Scores]:
    """Score what `evaluate` scores and all that it is compared with, reading the split once.

    Args:
        store: as in `evaluate`, like all others.
        heads: the re-trained heads; none for the old classifier.
        t_old: as there.
        t_new: as there.
        weights: as there.
        split: as there.
        test_views: as there; all see what the classifier that `evaluate` scores does.

    Returns:
        By name, of the old classifier, where there is one, of each head alone, and of the ensemble
        where they are one; the last is what `evaluate` gives.

    Raises:
        EvaluationError: as `evaluate`.
        HeadError: as `evaluate`.
    """
    mixture = _mixture(len(heads), given_temperatures(t_old, t_new, max(1, len(heads))), weights)
    return _seen(store, heads, mixture, split, test_views).scores_of_each(heads, mixture)


def _seen(
    store: Store,
    heads: Sequence[Head],
    mixture: Mixture | None,
    split: str,
    test_views: bool | None,
) -> ScoredSplit:
    """The split as it suits the heads that answer."""
    for head in heads:
        require_same_identity(head, store)
    members, _ = answering(heads, mixture)  # a head without a weight has no say in what is seen
    return scored_split(store, split, members, test_views)


def _mixture(
    n_heads: int, temperatures: tuple[float, ...] | None, weights: Sequence[float] | None
) -> Mixture | None:
    """How re-trained heads and the old one are combined; None where one of them answers alone."""
    if temperatures is None and weights is None and n_heads <= 1:
        return None
    if not n_heads:
        raise EvaluationError(
            "Temperatures and weights combine the old classifier with re-trained heads: give a "
            "head too, or neither to score the old classifier alone."
        )
    ones = (1.0,) * (1 + n_heads)
    shares = None if weights is None else tuple(weights)
    return Mixture(ones if temperatures is None else temperatures, shares)
