"""Stores without an old head, and the head that becomes one.

A backbone trained on other classes (ImageNet, say) has no head for the user's. Its store holds a
stand-in, a matrix of zeros, until a head fitted on the features takes its place.
"""

from __future__ import annotations

import numpy as np

from cache import Classifier, Store
from pipeline.errors import EvaluationError

ADOPTED = "old_head"
"""Where a store's provenance tells how its old head was fitted."""


def no_classifier(n_classes: int, feature_width: int) -> Classifier:
    """The stand-in: zeros (C, D), whose logits prefer no class."""
    return Classifier(weight=np.zeros((n_classes, feature_width), np.float32))


def is_stand_in(classifier: Classifier) -> bool:
    """Whether this is the matrix of zeros that stands for no classifier."""
    return classifier.bias is None and not classifier.weight.any()


def has_old_head(store: Store) -> bool:
    """Whether the store knows a head to compare with and to ensemble."""
    return not is_stand_in(store.classifier)


def has_adopted_head(store: Store) -> bool:
    """Whether the old head was fitted on the features, and so is in no checkpoint."""
    return ADOPTED in store.provenance


def require_old_head(store: Store) -> None:
    """Refuse a store of features alone where an old head is asked for.

    Raises:
        EvaluationError: with the commands that give it one.
    """
    if not has_old_head(store):
        raise EvaluationError(
            f"{store.path} holds features and no old head. Make one with: nolb fit-head "
            f"{store.path} --loss cross-entropy --out old.safetensors, and then: nolb adopt-head "
            f"{store.path} old.safetensors --out STORE"
        )
