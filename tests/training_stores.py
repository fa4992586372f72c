"""Stores of training images alone, with long-tailed features, for the tests of fits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Classifier, Store
from tests.measured_stores import planted_store

LABELS = np.array([0] * 40 + [1] * 10 + [2] * 4)
"""(54,): three classes with a tail."""

_numbers = count()


def planted_features(n_views: int = 0, seed: int = 0) -> NDArray[np.float32]:
    """(1 + V, 54, 6) around one point a class."""
    generator = np.random.default_rng(seed)
    centres = 2 * np.eye(3, 6)
    noise = generator.normal(0, 0.4, (1 + n_views, len(LABELS), 6))
    features: NDArray[np.float32] = (centres[LABELS] + noise).astype(np.float32)
    return features


def training_store(
    features: NDArray[np.floating[Any]],
    labels: NDArray[np.int64] = LABELS,
    failures: Mapping[int, str] | None = None,
    *,
    path: Path | None = None,
    old: Classifier | None = None,
    shard_rows: int = 20,
    **identity: Any,
) -> Store:
    """A finished store; features (1 + V, N, D) are the clean ones and those of views.

    It lies in memory unless it has a path; it has no old head, which is one of zeros, unless one
    is given; `identity` holds other values of the store's identity.
    """
    place = path or Path(f"training-{next(_numbers)}.memory")
    old = old or Classifier(np.zeros((3, features.shape[2]), np.float32))
    names = ("head", "medium", "tail", "tip")[: len(old.weight)]
    return planted_store(
        place.parent, {"train": (features[0], labels)}, views={"train": features[1:]},
        class_names=names, weight=old, failures={"train": failures or {}}, shard_rows=shard_rows,
        file=place.name, dtype=str(features.dtype), store_logits=False, **identity,
    )  # fmt: skip
