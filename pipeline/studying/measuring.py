"""Scores of many heads on one split, reading its features once for several of them.

N samples, C classes, K heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from cache import Store
from pipeline.ensemble import averaged_views, logit_blocks
from pipeline.heads import Head
from pipeline.metrics import Scores, score

LOGITS_OF_A_ROW = 8192
"""Logits of one sample up to which heads share a pass: of more, the blocks would be so short that
most of the time went into reading them."""


def score_heads(
    store: Store, split: str, heads: Sequence[Head], test_views: bool | None = None
) -> list[Scores]:
    """What `pipeline.ensemble.score_split` gives for each head on its own.

    Args:
        store: a store whose identity agrees with that of every head.
        split: name of a split.
        heads: K of them.
        test_views: average test views, as in `averaged_views`.

    Raises:
        EvaluationError: for a missing or empty split, for NaN in features or logits, and for test
            views that are asked for and not there.
    """
    together = max(1, LOGITS_OF_A_ROW // len(store.class_names))
    return [
        scores
        for start in range(0, len(heads), together)
        for scores in _one_pass(store, split, heads[start : start + together], test_views)
    ]


def _one_pass(
    store: Store, split: str, heads: Sequence[Head], test_views: bool | None
) -> list[Scores]:
    """Scores of the heads that share a pass."""
    found: list[list[np.ndarray]] = [[] for _ in heads]
    labels = []
    for block in logit_blocks(store, split, heads, test_views):
        labels.append(block.labels)
        for predictions, logits in zip(found, block.logits, strict=True):
            predictions.append(logits.argmax(axis=1))
    true = np.concatenate(labels)
    averaged = averaged_views(store, split, test_views, heads)
    scored = [
        score(
            np.concatenate(predictions), true, store.class_counts, store.class_names, split,
            n_failed=store[split].n_samples - len(true),
        )
        for predictions in found
    ]  # fmt: skip
    return [
        dataclasses.replace(scores, predictor="new", test_views=averaged) for scores in scored
    ]  # fmt: skip
