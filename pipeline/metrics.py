"""Metrics of per-class recall: eq. (4)-(6), groups of classes, uncertainty of the lowest recall.

Legend: N samples, C classes, ... any leading axes (such as the cells of a temperature grid).
Everything is in percent. A class without samples in the split has no recall: it is NaN in arrays,
None in `Scores`, and left out of every mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache.records import Count, Positive, Result
from cache.strict_json import JSON
from pipeline.errors import EvaluationError
from pipeline.intervals import lowest_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ZERO_SUBSTITUTE = 1e-3
"""Stands for a recall of zero in the two means, as a fraction (starred in Tables 3 to 5)."""

MANY_ABOVE = 100
FEW_BELOW = 20
GROUPS = ("many", "medium", "few")
"""Groups by training images, Sec. 4.3: many > 100, medium 20 to 100, few < 20."""


@dataclass(frozen=True)
class Metric:
    """What tables, figures and files call a metric, and how they write it."""

    heading: str
    """Over a column."""

    long_name: str
    """Where it stands alone."""

    starred: bool = False
    """Whether a recall of zero counts as 0.1 % in it, which a star says."""

    unit: str = "%"
    """Nothing for a number of classes."""

    def text(self, value: float, *, zeros: bool = False, decimals: int = 1) -> str:
        """A value, with a star where zeros were substituted in it."""
        return f"{value:.{decimals if self.unit else 0}f}{'*' * (zeros and self.starred)}"


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": Metric("Accuracy", "Accuracy"),
        "geometric_mean": Metric("Geometric mean", "Geometric mean of recalls", starred=True),
        "harmonic_mean": Metric("Harmonic mean", "Harmonic mean of recalls", starred=True),
        "lowest_recall": Metric("Lowest recall", "Lowest recall"),
        "substituted_zeros": Metric("At zero", "Classes of zero recall", unit=""),
    }
)
"""What is measured of every classifier: fields of `Scores` and columns of files."""

IN_PERCENT = tuple(name for name, metric in METRICS.items() if metric.unit)
"""The four metrics of the paper, Sec. 4.3."""


def count_per_class(labels: ArrayLike, n_classes: int) -> Ints:
    """Samples of each class (C,), for labels (N,)."""
    return np.bincount(np.asarray(labels, np.int64), minlength=n_classes).astype(np.int64)


def count_hits(predictions: ArrayLike, labels: ArrayLike, n_classes: int) -> Ints:
    """Correctly predicted samples of each class (C,), for predictions and labels (N,)."""
    true = np.asarray(labels, np.int64)
    return count_per_class(true[np.asarray(predictions) == true], n_classes)


def recalls_of_hits(hits: ArrayLike, class_samples: ArrayLike) -> Floats:
    """Recalls (..., C) in percent from hits (..., C) and samples (C,); NaN without samples."""
    hits, samples = np.asarray(hits), np.broadcast_to(class_samples, np.shape(hits))
    recalls = np.full(hits.shape, np.nan)
    # 100 * hits first: both are whole numbers, so that 29 of 100 gives 29.0 and not 28.999...
    np.divide(100.0 * hits, samples, out=recalls, where=samples > 0)
    return recalls


def mean_recall(recalls: Floats, classes: Bools | None = None) -> Floats:
    """Arithmetic mean (...) of recalls (..., C) over `classes` (C,) with samples, or NaN."""
    present = ~np.isnan(recalls) if classes is None else ~np.isnan(recalls) & classes
    return _masked_mean(recalls, present)


def geometric_mean(recalls: ArrayLike) -> Floats:
    """Geometric mean (...) of recalls (..., C), all in percent, eq. (6).

    A recall of exactly zero counts as 0.1 % (`ZERO_SUBSTITUTE`); `count_zeros` says how many did.
    """
    values = np.asarray(recalls, np.float64)
    return np.exp(_masked_mean(np.log(_without_zeros(values)), ~np.isnan(values)))


def harmonic_mean(recalls: ArrayLike) -> Floats:
    """Harmonic mean (...) of recalls (..., C), all in percent, eq. (5); zeros count as 0.1 %."""
    values = np.asarray(recalls, np.float64)
    return np.asarray(1 / _masked_mean(1 / _without_zeros(values), ~np.isnan(values)))


def count_zeros(recalls: ArrayLike) -> Ints:
    """Number (...) of classes with a recall of exactly zero among recalls (..., C)."""
    return np.asarray(np.sum(np.asarray(recalls) == 0, axis=-1, dtype=np.int64))


def lowest_class(recalls: Floats) -> Ints:
    """Index (...) of the class with the lowest of recalls (..., C), the first one on ties."""
    return np.asarray(np.argmin(np.where(np.isnan(recalls), np.inf, recalls), axis=-1))


def group_masks(class_counts: ArrayLike) -> dict[str, Bools]:
    """Which classes (C,) are many, medium and few, by their training counts (C,)."""
    counts = np.asarray(class_counts)
    many, few = counts > MANY_ABOVE, counts < FEW_BELOW
    return {"many": many, "medium": ~many & ~few, "few": few}


def group_means(recalls: ArrayLike, class_counts: ArrayLike) -> dict[str, float | None]:
    """Mean recall in percent of the many, medium and few classes; None for an absent group.

    Args:
        recalls: (C,) percent, NaN for classes without samples.
        class_counts: (C,) training images of each class.
    """
    values = np.asarray(recalls, np.float64)
    return {
        name: as_number(mean_recall(values, mask))
        for name, mask in group_masks(class_counts).items()
    }


def as_number(value: float | Floats) -> float | None:
    """A float, or None for NaN, which JSON does not have."""
    return None if np.isnan(value) else float(value)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, in percent (Wilson 1927).

    It is for a class named in advance; the lowest of C recalls has `intervals.lowest_interval`.

    Raises:
        EvaluationError: unless 0 <= successes <= n, n >= 1 and 0 < confidence < 1.
    """
    if not (0 <= successes <= n and n >= 1 and 0 < confidence < 1):
        raise EvaluationError(
            f"An interval needs 0 <= successes <= n, n >= 1 and a confidence between 0 and 1, "
            f"not {successes} of {n} at {confidence}."
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = successes / n, 1 + z * z / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n successes one end is exact; rounding must not push it past.
    low = 0.0 if successes == 0 else 100 * (centre - spread) / scale
    high = 100.0 if successes == n else 100 * (centre + spread) / scale
    return low, high


@dataclass(frozen=True)
class Scores(Result):
    """What one classifier reaches on one split; everything in percent."""

    accuracy: float
    """Share of correct samples, eq. (4)."""

    geometric_mean: float
    """Geometric mean of the recalls, eq. (6), zeros as 0.1 %."""

    harmonic_mean: float
    """Harmonic mean of the recalls, eq. (5), zeros as 0.1 %."""

    lowest_recall: float
    """The lowest recall of all classes that have samples."""

    substituted_zeros: Count
    """Classes of zero recall, which the two means count as 0.1 %."""

    recalls: tuple[float | None, ...]
    """Recall of each class (C,); None where the split has no samples of it."""

    groups: Mapping[str, float | None]
    """Mean recall of the many, medium and few classes; None for an absent group."""

    split: str
    """Name of the split."""

    n_samples: Count
    """Samples that were scored."""

    class_names: tuple[str, ...]
    """Names of the classes (C,)."""

    lowest_class: str
    """The class of the lowest recall, the first one on ties."""

    lowest_interval: tuple[float, float]
    """Exact 95 % interval of the lowest recall, which heeds the selection (`intervals`)."""

    mean_recall: float
    """Arithmetic mean of the recalls: the accuracy, where the split is balanced."""

    class_samples: tuple[Count, ...]
    """Scored samples of each class (C,)."""

    n_failed: Count = 0
    """Samples that were left out because their image could not be read."""

    predictor: str = ""
    """What made the predictions: "old", "new" or "ensemble"."""

    temperatures: tuple[Positive, ...] | None = field(default=None)
    """(t_old, t_new) of an ensemble, eq. (12)-(13), t_new for each new head; None for one head."""

    test_views: Count = 0
    """Test views of each image whose mean feature with the clean one was classified; 0 for the
    clean image alone."""

    def __post_init__(self) -> None:
        """Refuse what a file may say, and nothing that was measured."""
        if set(self.groups) != set(GROUPS):
            raise EvaluationError(f"groups must be {', '.join(GROUPS)}.")
        if not len(self.class_names) == len(self.recalls) == len(self.class_samples):
            raise EvaluationError(
                f"{len(self.class_names)} class names need as many recalls and samples, not "
                f"{len(self.recalls)} and {len(self.class_samples)}."
            )

    @property
    def lowest_classes(self) -> tuple[str, ...]:
        """All classes that share the lowest recall."""
        pairs = zip(self.class_names, self.recalls, strict=True)
        return tuple(name for name, recall in pairs if recall == self.lowest_recall)

    @property
    def classes_without_samples(self) -> int:
        """Classes that no mean contains because the split has no samples of them."""
        return sum(recall is None for recall in self.recalls)

    def to_json(self) -> dict[str, JSON]:
        """The result as plain JSON values: the keys of the contract first, then the others."""
        return {**super().to_json(), "classes_without_samples": self.classes_without_samples}


def score(
    predictions: ArrayLike,
    labels: ArrayLike,
    class_counts: ArrayLike,
    class_names: Sequence[str],
    split: str = "test",
    n_failed: int = 0,
) -> Scores:
    """All metrics of one classifier's predictions.

    Args:
        predictions: (N,) predicted class indices.
        labels: (N,) true class indices.
        class_counts: (C,) training images of each class, for the groups.
        class_names: (C,) names of the classes.
        split: where the samples come from.
        n_failed: samples of the split that are not among the N.

    Raises:
        EvaluationError: if there are no samples, sizes disagree or an index is no class.
    """
    predicted, true = np.asarray(predictions), np.asarray(labels)
    n_classes = len(class_names)
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise EvaluationError(
            f"Predictions and labels must be two lists of one length, not of the shapes "
            f"{predicted.shape} and {true.shape}."
        )
    for name, indices in (("prediction", predicted), ("label", true)):
        if indices.size and not (indices.min() >= 0 and indices.max() < n_classes):
            wrong = indices[(indices < 0) | (indices >= n_classes)][0]
            raise EvaluationError(
                f"Each {name} must be a class index from 0 to {n_classes - 1}, not {wrong}."
            )
    hits = count_hits(predicted, true, n_classes)
    samples = count_per_class(true, n_classes)
    return score_hits(hits, samples, class_counts, class_names, split, n_failed)


def score_hits(
    hits: ArrayLike,
    class_samples: ArrayLike,
    class_counts: ArrayLike,
    class_names: Sequence[str],
    split: str = "test",
    n_failed: int = 0,
) -> Scores:
    """All metrics from the correct samples of each class.

    Args:
        hits: (C,) correct samples of each class.
        class_samples: (C,) all samples of each class.
        class_counts: (C,) training images of each class, for the groups.
        class_names: (C,) names of the classes.
        split: where the samples come from.
        n_failed: samples of the split that are not among those.

    Raises:
        EvaluationError: if there are no samples or sizes disagree.
    """
    correct, samples = np.asarray(hits, np.int64), np.asarray(class_samples, np.int64)
    counts = np.asarray(class_counts, np.int64)
    shape = (len(class_names),)
    if not correct.shape == samples.shape == counts.shape == shape:
        raise EvaluationError(
            f"{shape[0]} class names need as many hits, samples and training counts, not "
            f"{correct.shape}, {samples.shape} and {counts.shape}."
        )
    if not samples.any():
        raise EvaluationError(f"Split {split!r} has no samples to score.")
    recalls = recalls_of_hits(correct, samples)
    worst = int(lowest_class(recalls))
    return Scores(
        accuracy=float(100.0 * correct.sum() / samples.sum()),
        geometric_mean=float(geometric_mean(recalls)),
        harmonic_mean=float(harmonic_mean(recalls)),
        lowest_recall=float(recalls[worst]),
        substituted_zeros=int(count_zeros(recalls)),
        recalls=tuple(as_number(recall) for recall in recalls),
        groups=group_means(recalls, counts),
        split=split,
        n_samples=int(samples.sum()),
        class_names=tuple(class_names),
        lowest_class=class_names[worst],
        lowest_interval=lowest_interval(correct, samples),
        mean_recall=float(mean_recall(recalls)),
        class_samples=tuple(samples.tolist()),
        n_failed=n_failed,
    )


def _without_zeros(recalls: Floats) -> Floats:
    """Recalls (..., C) with 0.1 % for exact zeros; a small recall above zero stays as it is."""
    return np.where(recalls == 0, 100 * ZERO_SUBSTITUTE, recalls)


def _masked_mean(values: Floats, mask: Bools) -> Floats:
    """Mean (...) of values (..., C) where the mask is set, NaN where it is set nowhere."""
    count = np.sum(mask, axis=-1)
    total = np.sum(values, axis=-1, where=mask)
    means = np.full(np.shape(count), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means
