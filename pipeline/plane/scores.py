"""Every metric of every cell, from the hits of a plane.

Legend: C classes, To and Tn temperatures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics import (
    GROUPS,
    Bools,
    Ints,
    count_per_class,
    count_zeros,
    geometric_mean,
    group_masks,
    harmonic_mean,
    lowest_class,
    mean_recall,
    recalls_of_hits,
)
from pipeline.plane.hits import HitPlane


def measure(hits: HitPlane, class_counts: ArrayLike, chosen: Bools | None = None) -> dict[str, Any]:
    """Planes (To, Tn) by name, in percent: those of `Sweep`, the groups as a mapping of planes.

    Args:
        hits: which rows every cell gets right.
        class_counts: (C,) training images of each class, for the groups.
        chosen: (N,) rows to count; all where not given.
    """
    rows = slice(None) if chosen is None else chosen
    samples = count_per_class(hits.labels[rows], hits.n_classes)
    tiles = [_metrics(counts, samples, class_counts) for _, counts in hits.counts(chosen)]
    planes: dict[str, Any] = {
        name: np.concatenate([tile[name] for tile in tiles]).reshape(hits.shape)
        for name in tiles[0]
    }
    return planes | {"groups": {name: planes.pop(name) for name in GROUPS}}


def _metrics(hits: Ints, samples: Ints, class_counts: ArrayLike) -> dict[str, Any]:
    """Metrics (n,) of n cells, from hits (n, C) and samples (C,)."""
    recalls = recalls_of_hits(hits, samples)
    worst = lowest_class(recalls)
    groups = group_masks(class_counts)
    return {
        "accuracy": 100.0 * hits.sum(axis=-1) / samples.sum(),
        "geometric_mean": geometric_mean(recalls),
        "harmonic_mean": harmonic_mean(recalls),
        "lowest_recall": np.take_along_axis(recalls, worst[:, None], axis=-1)[:, 0],
        "lowest_class": worst,
        "substituted_zeros": count_zeros(recalls),
        **{name: mean_recall(recalls, groups[name]) for name in GROUPS},
    }
