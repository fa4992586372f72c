"""The stage `balance_head`: images without labels say which classes a head leaves behind.

Legend: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache import Store
from pipeline.balancing import (
    TEMPERATURE,
    Mean,
    balancing_shifts,
    decided_shares,
    decisions_by_folds,
    estimated_recalls,
    levelling_shifts,
    matching_shifts,
)
from pipeline.datasets import ShiftedViews
from pipeline.ensemble import averaged_views, logit_blocks
from pipeline.errors import EvaluationError, UnreadableImageError
from pipeline.heads import Head, require_same_identity
from pipeline.image_classifiers import beliefs_of, classifier_of_head
from pipeline.metrics import Floats, Scores, score
from pipeline.progress import Clock, OnProgress, Snapshot

if TYPE_CHECKING:
    from cache.strict_json import JSON

SMALLEST = 1e-300
"""Probability that stands for 0, which has no logarithm."""

FOLDS = 5
"""Parts of the images of which each is decided by what the others gave."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Images as a head sees them; nobody needs to know their classes."""

    logits: NDArray[np.float32]
    """(N, C) of the head."""

    origin: dict[str, JSON]
    """Where the images come from, for the provenance."""


@dataclass(frozen=True, eq=False)
class Balanced:
    """A head with shifted biases, and what is known of it without a label."""

    head: Head
    """The new head."""

    n_images: int
    """N images of the pool."""

    shares: Floats
    """(C,) of the classes in the pool, of the sum 1, as they were given."""

    decided_before: Floats
    """(C,) shares of the pool's images that the head decided for each class."""

    decided_after: Floats
    """(C,) the same of the new head; classes that are hard to find get more than their share."""

    recalls_before: Floats
    """(C,) estimated recalls of the head, in percent."""

    recalls_after: Floats
    """(C,) estimated recalls of the new head, in percent."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values by the classes' names."""
        names = ("share", "decided_before", "decided_after", "recall_before", "recall_after")
        columns = (
            self.shares, self.decided_before, self.decided_after,
            self.recalls_before, self.recalls_after,
        )  # fmt: skip
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return {
            "images": self.n_images,
            "estimated_classes": {
                name: dict(zip(names, row, strict=True))
                for name, row in zip(self.head.class_names, rows, strict=True)
            },
        }


def pool_of_store(
    head: Head, store: Store, split: str = "test", *, test_views: bool | None = None
) -> Pool:
    """The usable images of a split; their labels are not looked at.

    Args:
        head: the head to balance.
        store: features of the head's extraction.
        split: name of the split.
        test_views: classify the mean feature with the test views, as `evaluate`.

    Raises:
        EvaluationError: if the split is missing, empty, `train`, or holds NaN, or test views are
            asked for that are not there.
        HeadError: if the head belongs to another store.
    """
    require_same_identity(head, store)
    if split == "train":
        raise EvaluationError(
            "A head knows the images that it was fitted on: balance it on others, as --split test."
        )
    blocks = logit_blocks(store, split, [head], test_views)
    logits = np.concatenate([np.asarray(block.logits[0], np.float32) for block in blocks])
    return Pool(logits, {"split": split, "test_views": averaged_views(store, split, test_views)})


def pool_of_images(
    head: Head,
    images: Sequence[str | Path],
    checkpoint: str | Path | None = None,
    *,
    model: str = "auto",
    test_views: bool | None = None,
    on_unreadable: Callable[[str, str], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Pool:
    """Images that are in no store, run through the head's network.

    Args:
        head: the head to balance.
        images: paths of images.
        checkpoint: the trained classifier that the head was fitted on; None for a model with
            weights of its own.
        model: as in `classifier_of_head`.
        test_views: classify the mean feature with the test views of the head's store; None does
            where it has them.
        on_unreadable: called with the path and the reason of each image that cannot be used.
        on_progress: called after every image.

    Raises:
        EvaluationError: if no image can be used.
        ExportError: if checkpoint and head do not belong together.
        CheckpointError: if the checkpoint does not load.
        ConfigError: if there is none where one is needed.
    """
    views = ShiftedViews() if test_views is False else None
    classifier = classifier_of_head(head, checkpoint, None, model=model, views=views)
    logits = []
    clock = Clock()
    for done, (path, beliefs) in enumerate(beliefs_of(classifier, images), start=1):
        if on_progress is not None:
            on_progress(Snapshot(done, len(images), done, clock.seconds))
        if not isinstance(beliefs, UnreadableImageError):
            # Logarithms of probabilities are logits but for a constant of the row.
            logits.append(np.log(np.maximum(beliefs.decisive, SMALLEST)).astype(np.float32))
        elif on_unreadable is not None:
            on_unreadable(path, str(beliefs))
    if not logits:
        raise EvaluationError("None of the images could be used: there is nothing to balance on.")
    return Pool(np.stack(logits), {"split": None, "test_views": classifier.views.count})


def balance_head(
    head: Head,
    pool: Pool,
    shares: Sequence[float] | None = None,
    *,
    mean: Mean = "harmonic",
    temperature: float = TEMPERATURE,
) -> Balanced:
    """Shift a head's biases so that a mean of its recalls, estimated without labels, is highest.

    No label is needed, but the shares of the classes are. The new head is for equally frequent
    classes, whatever the pool's are.

    Args:
        head: the head.
        pool: images that it was not fitted on, of `pool_of_store` or `pool_of_images`.
        shares: (C,) of the classes among them, above 0 and in any unit; equal where not given.
        mean: which mean of the recalls; the harmonic one cares most for the lowest.
        temperature: at which the head's probabilities are about right on such images.

    Raises:
        EvaluationError: if shares, mean or temperature are not what they must be.
    """
    q = _shares(head, shares)
    matched = matching_shifts(pool.logits, q)
    logits = pool.logits + matched
    shifts = levelling_shifts(logits, q, mean, temperature)
    estimate = partial(estimated_recalls, logits, q, temperature)
    note: dict[str, JSON] = {
        **pool.origin, "images": len(logits), "mean": mean, "temperature": temperature,
        "shares": None if shares is None else q.tolist(),
    }  # fmt: skip
    bias = head.bias.astype(np.float64) + matched + shifts
    return Balanced(
        head=replace(
            head,
            bias=bias.astype(np.float32),
            config={"balanced": dict(head.config), "pool": note},
        ),
        n_images=len(logits),
        shares=q,
        decided_before=decided_shares(pool.logits),
        decided_after=decided_shares(logits + shifts),
        recalls_before=estimate(-matched),
        recalls_after=estimate(shifts),
    )


def score_by_folds(
    head: Head,
    store: Store,
    *,
    shares: Sequence[float] | None = None,
    mean: Mean = "harmonic",
    temperature: float = TEMPERATURE,
    split: str = "test",
    test_views: bool | None = None,
    n_folds: int = FOLDS,
    seed: int = 0,
) -> Scores:
    """Scores of a head balanced on a split's images, each decided by the other folds' shifts.

    The labels score the decisions and do nothing else; folds are drawn without them.

    Args:
        head: the head to balance, fitted on this store.
        store: features and labels.
        shares: as in `balance_head`, as are `mean` and `temperature`.
        mean: which mean of the recalls.
        temperature: of the probabilities.
        split: name of the split.
        test_views: as in `pool_of_store`.
        n_folds: folds of the images, two or more.
        seed: of the folds.

    Raises:
        EvaluationError: as `pool_of_store` and `balance_head`, or if there are fewer images than
            folds, or fewer folds than two.
        HeadError: if the head belongs to another store.
    """
    pool = pool_of_store(head, store, split, test_views=test_views)
    q = _shares(head, shares)
    rows = store[split]
    n = len(pool.logits)
    if not 2 <= n_folds <= n:  # noqa: PLR2004  # others decide, so there must be others
        raise EvaluationError(f"{n} images have 2 to {n} folds, not {n_folds}.")
    folds = np.random.default_rng(seed).permutation(n) % n_folds
    decisions = decisions_by_folds(
        pool.logits,
        folds,
        lambda logits: balancing_shifts(logits, q, mean, temperature),
    )
    scores = score(
        decisions, np.asarray(rows.labels[rows.usable]), store.class_counts, store.class_names,
        split, n_failed=rows.n_samples - n,
    )  # fmt: skip
    return replace(scores, predictor="new", test_views=averaged_views(store, split, test_views))


def _shares(head: Head, given: Sequence[float] | None) -> Floats:
    """Shares (C,) of the sum 1."""
    n_classes = len(head.class_names)
    if given is None:
        return np.full(n_classes, 1 / n_classes)
    shares = np.asarray(given, np.float64)
    if shares.shape != (n_classes,):
        raise EvaluationError(
            f"A head of {n_classes} classes needs the share of each, not {len(shares)} numbers."
        )
    for name, share in zip(head.class_names, shares.tolist(), strict=True):
        if not 0 < share < np.inf:
            raise EvaluationError(
                f"The share of class {name!r} is {share:g}, but must be a number above 0: a head "
                "cannot be balanced for a class on images that have none of it."
            )
    return np.asarray(shares / shares.sum(), np.float64)
