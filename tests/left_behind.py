"""Stores, and a head that leaves one class behind, for the tests of `balance-head`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cache import Store
from pipeline import save_head
from pipeline.metrics import Floats, Ints
from tests.measured_stores import planted_head, planted_store

N_CLASSES = 4
LEFT_BEHIND = 3
PARTS = (1.0, 2.0, 3.0, 4.0)
"""Shares of the classes in tenths."""


def drawn_features(n: int = 400, seed: int = 0) -> tuple[Floats, Ints]:
    """Features and labels of as many images of each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES
    return 2 * np.eye(N_CLASSES)[labels] + rng.normal(size=(n, N_CLASSES)), labels


def made_store(folder: Path, labels_of_test: np.ndarray | None = None, **how: Any) -> Store:
    """400 test images, 100 a class, unless others are given as their labels; 200 of `val`."""
    features, labels = drawn_features()
    told = labels if labels_of_test is None else labels_of_test
    known = np.r_[:40, 40:80:4]  # twice as many of the first class, so `--prior train` counts
    return planted_store(
        folder,
        {
            "train": (features[known], labels[known]),
            "test": (features, told),
            "val": drawn_features(200, seed=1),
        },
        failures={"test": {5: "broken"}},
        **how,
    )


def saved_head(store: Store, path: Path) -> Path:
    """A head that hardly ever decides for the last class."""
    save_head(planted_head(store, 2 * np.eye(N_CLASSES), [0, 0, 0, -6]), path)
    return path
