"""The stage `evaluate`: every class's recall for the old head, the new head or both."""

from __future__ import annotations

from cache import Store
from pipeline.ensemble import score_split
from pipeline.errors import EvaluationError
from pipeline.heads import Head, require_same_identity
from pipeline.metrics import Scores


def evaluate(
    store: Store,
    head: Head | None = None,
    *,
    t_old: float | None = None,
    t_new: float | None = None,
    split: str = "test",
) -> Scores:
    """Score one classifier on one split; rows whose image failed are counted and left out.

    Without a head that is the old classifier, with a head the new one alone, and with a head and
    a temperature the ensemble of both, eq. (11)-(13). A temperature that is not given is 1.

    Args:
        store: features (N, D) and old logits (N, C) of the split.
        head: the re-trained head (C, D), fitted on this store or one of the same identity.
        t_old: temperature of the old classifier in the ensemble, above 0.
        t_new: temperature of the new head in the ensemble, above 0.
        split: name of the split to score.

    Returns:
        Metrics in percent, Sec. 4.3.

    Raises:
        EvaluationError: if the split is missing, has no usable row or holds NaN, if a temperature
            is given without a head or is not above 0.
        HeadError: if the head belongs to another store.
    """
    temperatures = None
    if t_old is not None or t_new is not None:
        temperatures = (1.0 if t_old is None else t_old, 1.0 if t_new is None else t_new)
    if head is None and temperatures is not None:
        raise EvaluationError(
            "Temperatures combine the old classifier with a re-trained head: give a head too, "
            "or no temperature to score the old classifier alone."
        )
    if head is not None:
        require_same_identity(head, store)
    return score_split(store, split, head, temperatures)
