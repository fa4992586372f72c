"""Classifiers whose rows are not in the order of the labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cache import Classifier
from pipeline.errors import CheckpointError


@dataclass(frozen=True)
class DescendingCounts:
    """Row j of the head is the class with the j-th most training images.

    Labels whose counts descend already, as those do that were re-ordered the same way, are the rows
    themselves.
    """

    remedy: str
    """What users do where the counts leave the order open."""

    @property
    def need(self) -> str:
        """What is needed and why."""
        return (
            "The head's rows stand in descending order of training images; the training images' "
            "class counts tell which label each row is for."
        )

    def adapt(self, classifier: Classifier, class_counts: NDArray[np.int64]) -> Classifier:
        """The head in the order of the labels.

        Raises:
            CheckpointError: if classes share a count, which leaves their order open.
        """
        if len(class_counts) != len(classifier.weight):
            raise CheckpointError(
                f"A head for {len(classifier.weight)} classes cannot be put into the order of "
                f"{len(class_counts)}."
            )
        if (np.diff(class_counts) <= 0).all() and class_counts[0] > class_counts[-1]:
            return classifier
        counts, times = np.unique(class_counts, return_counts=True)
        tied = int(times[times > 1].sum())
        if tied:
            raise CheckpointError(
                f"The head's rows stand in descending order of training images, but {tied} of "
                f"{len(class_counts)} classes share their number with another ({len(counts)} "
                f"different ones), and which of them came first is in no file. {self.remedy}"
            )
        # argsort gives the label of each row; its inverse the row of each label.
        rows = np.argsort(np.argsort(-class_counts))
        bias = None if classifier.bias is None else classifier.bias[rows]
        return replace(classifier, weight=classifier.weight[rows], bias=bias)
