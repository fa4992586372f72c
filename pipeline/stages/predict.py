"""The stage `predict`: classes and probabilities of images and folders of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.image_classifiers import ImageClassifier, Probabilities, classify_images
from pipeline.metrics import Floats
from pipeline.progress import OnProgress, Steps


@dataclass(frozen=True)
class Candidate:
    """One class that an image may be of; probabilities in 0..1."""

    class_name: str
    """Its name."""

    probability: float
    """Of the classifier."""

    old: float | None
    """Of the old head alone; None where the file does not hold it."""

    new: float | None
    """Of the new head alone; None where the file does not hold it."""


@dataclass(frozen=True)
class Prediction:
    """The classes of one image, or why there are none."""

    image: str
    """Its path."""

    candidates: tuple[Candidate, ...]
    """The most probable classes, best first; empty for an unreadable image."""

    old_class: str | None = None
    """The old head's prediction."""

    new_class: str | None = None
    """The new head's prediction."""

    error: str | None = None
    """Why the image could not be used."""

    def to_json(self) -> dict[str, Any]:
        """The prediction as plain JSON values."""
        if self.error is not None:
            return {"image": self.image, "error": self.error}
        best = self.candidates[0]
        return {
            "image": self.image,
            "class": best.class_name,
            "probability": best.probability,
            "old_class": self.old_class,
            "new_class": self.new_class,
            "candidates": [
                {"class": c.class_name, "probability": c.probability, "old": c.old, "new": c.new}
                for c in self.candidates
            ],
        }


def predict(
    classifier: ImageClassifier,
    images: Sequence[str | Path],
    top: int = 5,
    *,
    workers: int = -1,
    on_progress: OnProgress | None = None,
) -> Iterator[Prediction]:
    """Predictions of images, in their order, as they are made.

    An image that cannot be used is reported in its place and stops nothing.

    Args:
        classifier: what predicts.
        images: paths of images.
        top: most candidates of an image.
        workers: processes that read the images, as `ExtractConfig.workers`.
        on_progress: called with a snapshot after each image.

    Raises:
        ConfigError: as `classify_images`.
        ExtractionError: as there.
    """
    names = classifier.description.class_names
    steps = Steps(len(images), on_progress)
    for path, found in classify_images(classifier, images, workers):
        if isinstance(found, str):
            yield Prediction(path, (), error=found)
        else:
            yield _prediction(path, found, names, top)
        steps.advance()


def _prediction(path: str, found: Probabilities, names: tuple[str, ...], top: int) -> Prediction:
    """One image's candidates; a stable sort leaves the lower class index first on ties."""
    order = np.argsort(-found.final, kind="stable")[:top]

    def of(probabilities: Floats | None, c: int) -> float | None:
        return None if probabilities is None else float(probabilities[c])

    def best(probabilities: Floats | None) -> str | None:
        return None if probabilities is None else names[int(probabilities.argmax())]

    candidates = tuple(
        Candidate(names[c], float(found.final[c]), of(found.old, c), of(found.new, c))
        for c in order.tolist()
    )
    return Prediction(path, candidates, best(found.old), best(found.new))
