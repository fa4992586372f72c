"""Real handwritten digits without a download, made long-tailed: the demo's data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.longtail import exponential_counts, subsample
from pipeline.datasets.sources import ArraySource

N_CLASSES = 10
TEST_PER_CLASS = 60
"""A third of the data: the 1,797 digits are 174 to 183 a class."""

LARGEST, IMBALANCE = 110, 50
"""Class 0 keeps 110 images, class 9 int(110 / 50) = 2: 55 times fewer."""

SEED = 0


@cache
def digits_longtail() -> Mapping[str, ArraySource]:
    """The splits `train` (110 images of digit 0 down to 2 of digit 9) and `test` (60 a class).

    scikit-learn's copy of the UCI optical digits test set: 8x8 pixels, 17 grey levels, here
    spread over 0..255. Ids are row numbers in that copy, so the splits can be seen to be disjoint.
    """
    # Takes a second, and only the demo needs it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 16 is the brightest of the 17 levels.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    test = subsample(labels, [TEST_PER_CLASS] * N_CLASSES, SEED)
    rest = np.setdiff1d(np.arange(len(labels)), test)
    counts = exponential_counts(LARGEST, IMBALANCE, N_CLASSES)
    train = rest[subsample(labels[rest], counts, SEED)]

    def source(rows: NDArray[np.int64]) -> ArraySource:
        names = [str(digit) for digit in range(N_CLASSES)]
        ids = [f"digits/{row:04d}" for row in rows]
        return ArraySource(images[rows], labels[rows], names, ids)

    return MappingProxyType({"train": source(train), "test": source(test)})
