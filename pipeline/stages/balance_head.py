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
from pipeline.balanced import sees_test_views
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
from pipeline.exporting import views_of_identity
from pipeline.heads import Head, require_same_identity
from pipeline.image_classifiers import beliefs_of, classifier_of_head
from pipeline.metrics import Floats, Ints, Scores, score
from pipeline.progress import Clock, OnProgress, Snapshot

if TYPE_CHECKING:
    from cache.strict_json import JSON

SMALLEST = 1e-300
"""Probability that stands for 0, which has no logarithm."""

LEAST_SHARE = 1e-6
"""Of a class among the images."""

FOLDS = 5
"""Parts of the images of which each is decided by what the others gave."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Images as a head sees them; nobody needs to know their classes."""

    logits: NDArray[np.float32]
    """(N, C) of the head."""

    split: str | None
    """Split of the head's store that they are; None for images that are in no store."""

    test_views: int
    """Views of each image whose mean feature with the clean one was classified."""


@dataclass(frozen=True, eq=False)
class Balanced:
    """A head with shifted biases, and what is known of it without a label."""

    head: Head
    """The new head."""

    n_images: int
    """N images of the pool."""

    test_views: int
    """Views of each image whose mean feature with the clean one was classified."""

    shares: Floats
    """(C,) of the classes in the pool, of the sum 1, as they were given."""

    decided_before: Floats
    """(C,) shares of the pool's images that the head decides for each class, where its logits have
    the logarithm of the classes' shares added, to be logits for this pool."""

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
            "test_views": self.test_views,
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
            "A head knows the images that it was fitted on: balance it on others, as --split test."
        )
    blocks = logit_blocks(store, split, [head], test_views)
    logits = np.concatenate([np.asarray(block.logits[0], np.float32) for block in blocks])
    return Pool(logits, split, averaged_views(store, split, test_views, [head]))


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
            where it has them, unless the head was balanced on the clean image alone.
        on_unreadable: called with the path and the reason of each image that cannot be used.
        on_progress: called after every image.

    Raises:
        EvaluationError: if no image can be used, or test views are asked for that the head's
            store does not have.
        ExportError: if checkpoint and head do not belong together.
        CheckpointError: if the checkpoint does not load.
        ConfigError: if there is none where one is needed.
    """
    seen = sees_test_views([head], test_views)
    views = ShiftedViews() if seen is False else views_of_identity(head.identity)
    classifier = classifier_of_head(head, checkpoint, None, model=model, views=views)
    if test_views and not classifier.views.count:
        raise EvaluationError("The head's store has no test views: leave --test-views out.")
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
    return Pool(np.stack(logits), None, classifier.views.count)


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
        EvaluationError: if shares, mean or temperature are not what they must be, or there are
            fewer images than classes.
    """
    q = _shares(head, shares)
    _require_enough(pool)
    matched = matching_shifts(pool.logits, q)
    logits = pool.logits + matched.astype(np.float32)
    shifts = levelling_shifts(logits, q, mean, temperature)
    log_q = np.log(q).astype(np.float32)
    estimate = partial(estimated_recalls, logits, q, temperature)
    note: dict[str, JSON] = {
        "split": pool.split, "test_views": pool.test_views, "images": len(logits), "mean": mean,
        "temperature": temperature, "shares": None if shares is None else q.tolist(),
    }  # fmt: skip
    bias = head.bias.astype(np.float64) + matched + shifts
    return Balanced(
        head=replace(
            head,
            bias=bias.astype(np.float32),
            config={"balanced": dict(head.config), "pool": note},
        ),
        n_images=len(logits),
        test_views=pool.test_views,
        shares=q,
        decided_before=decided_shares(pool.logits + log_q),
        decided_after=decided_shares(logits + shifts.astype(np.float32) + log_q),
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
    return score_pool_by_folds(
        head, store, pool_of_store(head, store, split, test_views=test_views),
        shares=shares, mean=mean, temperature=temperature, n_folds=n_folds, seed=seed,
    )  # fmt: skip


def score_pool_by_folds(
    head: Head,
    store: Store,
    pool: Pool,
    *,
    shares: Sequence[float] | None = None,
    mean: Mean = "harmonic",
    temperature: float = TEMPERATURE,
    n_folds: int = FOLDS,
    seed: int = 0,
) -> Scores:
    """`score_by_folds` of a split that has been read already, which test views make slow.

    Args:
        head: the head to balance.
        store: its labels.
        pool: the split, of `pool_of_store` of this head and store.
        shares: as in `balance_head`, as are `mean` and `temperature`.
        mean: which mean of the recalls.
        temperature: of the probabilities.
        n_folds: folds of the images, two or more.
        seed: of the folds.

    Raises:
        EvaluationError: as `score_by_folds`, or if the pool is of no split of the store.
    """
    if seed < 0:
        raise EvaluationError(f"The seed of the folds is 0 or more, not {seed}.")
    _require_enough(pool)
    q = _shares(head, shares)
    n = len(pool.logits)
    if not 2 <= n_folds <= n:  # noqa: PLR2004  # others decide, so there must be others
        raise EvaluationError(f"{n} images have 2 to {n} folds, not {n_folds}.")
    folds = np.random.default_rng(seed).permutation(n) % n_folds
    decisions = decisions_by_folds(
        pool.logits,
        folds,
        lambda logits: balancing_shifts(logits, q, mean, temperature),
    )
    return _scores(store, pool, decisions)


def score_pool(store: Store, pool: Pool) -> Scores:
    """Scores of the pool's own head, as it is: those of `evaluate`, without reading features.

    Raises:
        EvaluationError: if the pool is of no split of the store.
    """
    return _scores(store, pool, pool.logits.argmax(axis=1))


def _scores(store: Store, pool: Pool, decisions: Ints) -> Scores:
    """Scores of decisions (N,) on the pool's images, by the store's labels."""
    if pool.split is None or pool.split not in store:
        raise EvaluationError(
            f"Only images of a split of {store.path} have labels there: take pool_of_store."
        )
    rows = store[pool.split]
    labels = np.asarray(rows.labels[rows.usable])
    if len(labels) != len(decisions):
        raise EvaluationError(
            f"Split {pool.split!r} of {store.path} has {len(labels)} usable images, the pool "
            f"{len(decisions)}: take pool_of_store of this store."
        )
    scores = score(
        decisions, labels, store.class_counts, store.class_names, pool.split,
        n_failed=rows.n_samples - len(labels),
    )  # fmt: skip
    return replace(scores, predictor="new", test_views=pool.test_views)


def _require_enough(pool: Pool) -> None:
    """Refuse a pool from which nothing can be learnt."""
    n, n_classes = pool.logits.shape
    if n < n_classes:
        raise EvaluationError(
            f"{n} images cannot balance {n_classes} classes: ten a class or more are needed."
        )


def _shares(head: Head, given: Sequence[float] | None) -> Floats:
    """Shares (C,) of the sum 1."""
    n_classes = len(head.class_names)
    if given is None:
        return np.full(n_classes, 1 / n_classes)
    shares = np.asarray(given, np.float64)
    if shares.shape != (n_classes,):
        raise EvaluationError(
            f"A head of {n_classes} classes needs the share of each, not {len(shares)} numbers: "
            "give one for each class, in the head's order."
        )
    if not (np.isfinite(shares) & (shares > 0)).all():
        c = int(np.argmin(np.isfinite(shares) & (shares > 0)))
        raise EvaluationError(
            f"The share of class {head.class_names[c]!r} is {shares[c]:g}, but must be a number "
            "above 0: a head cannot be balanced for a class on images that have none of it."
        )
    shares = shares / shares.max()  # first, so that no sum is infinite
    shares /= shares.sum()
    if shares.min() < LEAST_SHARE:
        name = head.class_names[int(shares.argmin())]
        raise EvaluationError(
            f"The share of class {name!r} is {shares.min():.1g} of all, less than one image in a "
            "million: a head cannot be balanced for it."
        )
    return np.asarray(shares, np.float64)
