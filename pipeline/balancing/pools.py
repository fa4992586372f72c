"""Unlabelled images as a head sees them: of a store, or from files through its network.

Legend: N images, C classes, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import Store
from pipeline.datasets import ShiftedViews
from pipeline.errors import EvaluationError
from pipeline.extracting.identities import views_of_identity
from pipeline.heads import Head, require_same_identity
from pipeline.image_classifiers import classifier_of_head, classify_images
from pipeline.progress import OnProgress, Steps
from pipeline.scored import scored_split
from pipeline.seen_views import sees_test_views


@dataclass(frozen=True, eq=False)
class Pool:
    """Images as a head sees them; nobody needs to know their classes."""

    logits: NDArray[np.float32]
    """(N, C) of the head."""

    features: NDArray[np.float32]
    """(N, D) that the head's product takes."""

    split: str | None
    """Split of the head's store that they are; None for images that are in no store."""

    test_views: int
    """Views of each image whose mean feature with the clean one was classified."""


def pool_of_store(
    store: Store, head: Head, split: str = "test", *, test_views: bool | None = None
) -> Pool:
    """Read the usable images of a split; their labels are not used.

    Args:
        store: features of the head's extraction.
        head: the head to balance.
        split: name of the split.
        test_views: classify the mean feature with the test views, as `evaluate`; a head that was
            balanced before sees what it was balanced on where None is given.

    Raises:
        EvaluationError: if the split is missing, empty, `train`, or holds NaN, or test views are
            asked for that are not there.
        HeadError: if the head belongs to another store.
    """
    require_same_identity(head, store)
    if split == "train":
        raise EvaluationError(
            "A head is not balanced on the images that it was fitted on: use others, such as "
            "--split test."
        )
    scored = scored_split(store, split, [head], test_views)
    logits, features = [], []
    for block in scored.blocks([head]):
        assert block.features is not None, "a head needs them"  # noqa: S101  # for the type
        logits.append(np.asarray(block.logits[0], np.float32))
        features.append(head.inputs(block.features))
    return Pool(np.concatenate(logits), np.concatenate(features), split, scored.test_views)


def pool_of_images(
    head: Head,
    images: Sequence[str | Path],
    checkpoint: str | Path | None = None,
    *,
    model: str = "auto",
    test_views: bool | None = None,
    device: str = "auto",
    workers: int = -1,
    on_unreadable: Callable[[str, str], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Pool:
    """Run images that are in no store through the head's network.

    Args:
        head: the head to balance.
        images: paths of images.
        checkpoint: the trained classifier that the head was fitted on; None for a model with
            weights of its own.
        model: as in `classifier_of_head`.
        test_views: classify the mean feature with the test views of the head's store; None does
            where it has them, unless the head was balanced on the clean image alone.
        device: where the network runs, as `ExtractConfig.device`.
        workers: processes that read the images, as `ExtractConfig.workers`.
        on_unreadable: called with the path and the reason of each image that cannot be used.
        on_progress: called after every image.

    Raises:
        EvaluationError: if no image can be used, or test views are asked for that the head's
            store does not have.
        ExportError: if checkpoint and head do not belong together.
        CheckpointError: if the checkpoint does not load.
        ConfigError: if there is none where one is needed, or no such device.
    """
    sees = sees_test_views([head], test_views)
    views = views_of_identity(head.identity) if sees else ShiftedViews()
    classifier = classifier_of_head(head, checkpoint, model=model, views=views, device=device)
    if test_views and not classifier.views.count:
        raise EvaluationError("The head's store has no test views: leave --test-views out.")
    features = []
    steps = Steps(len(images), on_progress)
    for path, found in classify_images(classifier, images, workers):
        steps.advance()
        if not isinstance(found, str):
            assert found.features is not None, "a network gives them"  # noqa: S101  # likewise
            features.append(head.inputs(found.features[None])[0])
        elif on_unreadable is not None:
            on_unreadable(path, found)
    if not features:
        raise EvaluationError("None of the images could be used: there is nothing to balance on.")
    inputs = np.stack(features)
    return Pool(inputs @ head.weight.T + head.bias, inputs, None, classifier.views.count)
