"""Make a data set long-tailed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DatasetError


def exponential_counts(n_max: int, imbalance: float, n_classes: int) -> tuple[int, ...]:
    """C class sizes that fall geometrically from `n_max` to about `n_max / imbalance`.

    n_c = int(n_max * imbalance^(-c / (C - 1))), the rule of Cui et al. 2019, sec. 5.1, that the
    CIFAR-LT data sets follow: 500, 100, 100 gives CIFAR-100-LT's 10,847 images.

    Args:
        n_max: size of class 0.
        imbalance: largest size over smallest, 1 or more.
        n_classes: C.

    Raises:
        DatasetError: if a class would be left without samples.
    """
    last = max(n_classes - 1, 1)
    counts = tuple(int(n_max * imbalance ** -(c / last)) for c in range(n_classes))
    if imbalance < 1 or min(counts, default=0) < 1:
        raise DatasetError(
            f"An imbalance of {imbalance:g} from {n_max} samples over {n_classes} classes leaves a "
            f"class empty; the imbalance must lie between 1 and the largest class's size."
        )
    return counts


def step_counts(n_max: int, imbalance: float, n_classes: int) -> tuple[int, ...]:
    """C class sizes: `n_max` for the first half of the classes, `n_max / imbalance` for the rest.

    Args:
        n_max: size of each class of the first half.
        imbalance: largest size over smallest, 1 or more.
        n_classes: C.

    Raises:
        DatasetError: if a class would be left without samples.
    """
    half = n_classes // 2
    small = int(n_max * (1 / imbalance)) if imbalance >= 1 else 0
    if small < 1:
        raise DatasetError(
            f"An imbalance of {imbalance:g} from {n_max} samples leaves classes empty; it must lie "
            f"between 1 and the largest class's size."
        )
    return (n_max,) * half + (small,) * (n_classes - half)


def published_rows(
    labels: NDArray[np.int64], counts: Sequence[int], seed: int
) -> NDArray[np.int64]:
    """Sorted rows of the subset that LDAM-DRW's code draws, and with it most published work.

    numpy's legacy generator is seeded once; for each class in the order of the labels its rows are
    shuffled and the first `counts[c]` kept.

    Args:
        labels: (N,) 0..C-1, in the order of torchvision's data set.
        counts: (C,) samples to keep.
        seed: of the generator.

    Raises:
        DatasetError: if a class has fewer samples than it is to keep.
    """
    return _first_of_shuffled(labels, counts, np.random.RandomState(seed))


def subsample(labels: NDArray[np.int64], counts: Sequence[int], seed: int) -> NDArray[np.int64]:
    """Sorted rows that keep `counts[c]` samples of each class c, drawn without replacement.

    Args:
        labels: (N,) 0..C-1.
        counts: (C,) samples to keep.
        seed: of the draw.

    Raises:
        DatasetError: if a class has fewer samples than it is to keep.
    """
    return _first_of_shuffled(labels, counts, np.random.default_rng(seed))


def _first_of_shuffled(
    labels: NDArray[np.int64],
    counts: Sequence[int],
    generator: np.random.Generator | np.random.RandomState,
) -> NDArray[np.int64]:
    """Sorted rows that keep `counts[c]` (C,) of each class c of the labels (N,).

    Class by class the rows are shuffled and the first of them kept.
    """
    kept = [
        generator.permutation(_rows_of_class(labels, label, count))[:count]
        for label, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(kept))


def _rows_of_class(labels: NDArray[np.int64], label: int, count: int) -> NDArray[np.int64]:
    """The rows of one class among labels (N,).

    Raises:
        DatasetError: if there are fewer than `count`.
    """
    rows = np.flatnonzero(labels == label)
    if len(rows) < count:
        raise DatasetError(
            f"Class {label} has {len(rows)} samples and cannot keep {count}; ask for fewer."
        )
    return rows
