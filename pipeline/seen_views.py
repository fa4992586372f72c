"""What of an image heads see: the clean image alone, or the mean feature with its test views.

Legend: B rows, D feature width, V test views.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EvaluationError, HeadError
from pipeline.provenance import differently

if TYPE_CHECKING:
    from cache import Store
    from pipeline.heads import Head


def averaged_views(
    store: Store,
    split: str,
    heads: Iterable[Head | None] = (),
    test_views: bool | None = None,
) -> int:
    """Test views V of each image whose features are averaged with the clean one; 0 for none.

    Views of `train` are the random ones that heads are fitted on, and never averaged.

    Args:
        store: a store that has the split.
        split: name of the split.
        heads: that answer together, None for the old classifier.
        test_views: whether to average; None does where the store has test views, which were
            extracted for this, unless a head was balanced on the clean image alone.

    Raises:
        EvaluationError: if test views are asked for that the split does not have.
        HeadError: if nothing is asked for where there are test views, and the heads were balanced
            for different ones; see `sees_test_views`.
    """
    stored = 0 if split == "train" else store[split].n_views
    if test_views and not stored:
        remedy = "extract with --test-views 7, or leave --test-views out"
        if split == "train":
            remedy = "its views are those for the fit, so leave --test-views out"
        raise EvaluationError(f"{store.path} has no test views of {split!r}: {remedy}.")
    return stored if stored and sees_test_views(heads, test_views) else 0


def sees_test_views(heads: Iterable[Head | None], test_views: bool | None = None) -> bool:
    """Whether heads that answer together see test views, where there are any.

    The one rule for all that is scored and all that predicts.

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
    balanced = {head.provenance.balanced_for for head in heads if head is not None} - {None}
    if 0 in balanced and len(balanced) > 1:
        raise HeadError(
            f"These heads were balanced {differently(balanced)}: balance them all in the same way "
            "with nolb balance-head, or choose with --test-views or --no-test-views."
        )
    return 0 not in balanced


def mean_features(versions: Iterable[NDArray[np.floating[Any]]]) -> NDArray[np.float32]:
    """Mean (B, D) of the features (B, D) of one version of the images after the other."""
    remaining = iter(versions)
    # In float64 a sum of a few equal numbers is exact: their mean is the number itself.
    total, n = next(remaining).astype(np.float64), 1
    for features in remaining:
        total += features
        n += 1
    total /= n
    return total.astype(np.float32)
