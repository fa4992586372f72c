"""Scores of many heads on one split, reading its features once for several of them.

K heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.heads import Head
from pipeline.metrics import Scores
from pipeline.scored import ScoredSplit

LOGITS_OF_A_ROW = 8192
"""Logits of one sample up to which heads share a pass: of more, the blocks would be so short that
most of the time went into reading them."""


def score_heads(scored: ScoredSplit, heads: Sequence[Head]) -> list[Scores]:
    """What `ScoredSplit.scores` gives for each of K heads on its own.

    Raises:
        EvaluationError: for NaN in features or logits.
    """
    together = max(1, LOGITS_OF_A_ROW // len(scored.store.class_names))
    return [
        scores
        for start in range(0, len(heads), together)
        for scores in _one_pass(scored, heads[start : start + together])
    ]


def _one_pass(scored: ScoredSplit, heads: Sequence[Head]) -> list[Scores]:
    """Scores of the heads that share a pass."""
    found: list[list[np.ndarray]] = [[] for _ in heads]
    for block in scored.blocks(heads):
        for predictions, logits in zip(found, block.logits, strict=True):
            predictions.append(logits.argmax(axis=1))
    return [scored.scores_of(np.concatenate(predictions), "new") for predictions in found]
