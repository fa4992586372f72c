"""Where the test images of the worst classes go.

Legend: N samples, C classes, K classifiers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.reporting.content import Content


@dataclass(frozen=True)
class Destination:
    """A class that images of another class are taken for."""

    class_index: int
    """The class."""

    counts: tuple[int, ...]
    """(K,) images that each classifier takes for it, in the order of `Content.contenders`."""

    rows: tuple[int, ...]
    """Samples that the classifier of afterwards takes for it."""


@dataclass(frozen=True)
class LostClass:
    """A class with a low recall, before or after, and what its images are taken for."""

    class_index: int
    """The class."""

    n_samples: int
    """Its samples in the split."""

    right: tuple[int, ...]
    """(K,) images that each classifier gets right."""

    destinations: tuple[Destination, ...]
    """Other classes, the most frequent afterwards first."""


def lost_classes(content: Content, n_worst: int = 6) -> tuple[LostClass, ...]:
    """The lowest classes afterwards and the lowest before, each once, worst afterwards first.

    Args:
        content: predictions of all classifiers.
        n_worst: classes taken from each of the two ends.
    """
    picked: dict[int, None] = {}
    for contender in (content.after, content.old):
        recalls = [
            (recall, recall_afterwards(content, c), c)
            for c, recall in enumerate(contender.scores.recalls)
            if recall is not None and recall < 100  # noqa: PLR2004  percent: nothing is lost there
        ]
        picked |= dict.fromkeys(c for *_, c in sorted(recalls)[:n_worst])
    order = sorted(picked, key=lambda c: (recall_afterwards(content, c), c))
    return tuple(_lost_class(content, c) for c in order)


def recall_afterwards(content: Content, class_index: int) -> float:
    """Recall of a class afterwards; 100 for a class without samples."""
    recall = content.after.scores.recalls[class_index]
    return 100.0 if recall is None else recall


def confusion_rows(content: Content) -> list[tuple[str, str, str, int]]:
    """(classifier, class, taken for, images) of every pair that occurs, right ones included."""
    names, n_classes = content.class_names, len(content.class_names)
    rows = []
    for contender in content.contenders:
        pairs = content.labels * n_classes + contender.predictions
        found, counts = np.unique(pairs, return_counts=True)
        rows += [
            (contender.key, names[pair // n_classes], names[pair % n_classes], count)
            for pair, count in zip(found.tolist(), counts.tolist(), strict=True)
        ]
    return rows


def _lost_class(content: Content, class_index: int) -> LostClass:
    """Where the samples of a class go."""
    own = np.flatnonzero(content.labels == class_index)
    n_classes = len(content.class_names)
    counts = np.stack(
        [np.bincount(k.predictions[own], minlength=n_classes) for k in content.contenders]
    )
    after = content.contenders.index(content.after)
    # Most frequent afterwards, then before, then by index.
    order = sorted(
        np.flatnonzero(counts.any(axis=0)).tolist(),
        key=lambda other: (-counts[after, other], -counts[0, other], other),
    )
    destinations = tuple(
        Destination(
            other,
            tuple(counts[:, other].tolist()),
            tuple(own[content.after.predictions[own] == other].tolist()),
        )
        for other in order
        if other != class_index
    )
    right = tuple(counts[:, class_index].tolist())
    return LostClass(class_index, len(own), right, destinations)
