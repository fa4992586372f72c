"""The stage `balance_head`: adapt a head to unlabelled images, in favour of its worst classes.

Legend: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Store
from pipeline.balancing.pools import Pool
from pipeline.balancing.refitting import Refit, refit
from pipeline.balancing.shifts import (
    decided_shares,
    estimated_recalls,
    levelling_shifts,
    matching_shifts,
)
from pipeline.config import BalanceConfig
from pipeline.ensemble import Logits
from pipeline.errors import EvaluationError
from pipeline.heads import Head
from pipeline.metrics import Floats, Scores
from pipeline.provenance import Balanced
from pipeline.scored import ScoredSplit

LEAST_SHARE = 1e-6
"""Of a class among the images, for which a head can be balanced."""

FOLDS = 5
"""Of the images, for cross-fitting."""


@dataclass(frozen=True, eq=False)
class BalanceResult:
    """A balanced head, and what is known of it without a label."""

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


@dataclass(frozen=True)
class BalancedScores:
    """What the labels say of a head and of its balancing."""

    before: Scores
    """Of the head as it is."""

    balanced: Scores
    """Cross-fitted: each image is classified by a head that was balanced on the other folds."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"before": self.before.to_json(), "balanced": self.balanced.to_json()}


@dataclass(frozen=True, eq=False)
class _Change:
    """What becomes of a head's logits."""

    refit: Refit | None
    """New weights, where they are asked for."""

    matched: Floats
    """(C,) shifts with which decisions are as frequent as the classes."""

    levelled: Floats
    """(C,) shifts on top, for the mean of the recalls."""

    def directed(self, features: NDArray[np.float32], logits: Logits) -> Logits:
        """(N, C) before the shifts, of features (N, D) and the head's logits (N, C)."""
        return logits if self.refit is None else self.refit.logits(features, logits)

    def head(self, head: Head, provenance: Balanced) -> Head:
        """The new head."""
        weight, bias = head.weight, head.bias.astype(np.float64)
        if self.refit is not None:
            weight = np.asarray(self.refit.kept * weight + self.refit.weight, np.float32)
            bias = self.refit.kept * bias + self.refit.bias
        bias = bias + self.matched + self.levelled
        return replace(head, weight=weight, bias=bias.astype(np.float32), provenance=provenance)


def balance_head(
    head: Head,
    pool: Pool,
    config: BalanceConfig | None = None,
    *,
    shares: Sequence[float] | None = None,
) -> BalanceResult:
    """Change a head so that a mean of its recalls, estimated without labels, is highest.

    No label is needed, but the shares of the classes are. The new head is for equally frequent
    classes, whatever the pool's are.

    Args:
        head: the head.
        pool: images that it was not fitted on, of `pool_of_store` or `pool_of_images`.
        config: settings; the defaults where not given.
        shares: (C,) of the classes among the images, above 0 and in any unit; equal where not
            given.

    Raises:
        EvaluationError: if shares are not what they must be, there are fewer images than classes,
            or there is nothing to refit on.
        HeadError: if the head was averaged or balanced too often.
    """
    q, config = _shares(head, shares), config or BalanceConfig()
    _require_enough(pool)
    provenance = Balanced(
        head=head.provenance, split=pool.split, test_views=pool.test_views,
        images=len(pool.logits), shares=None if shares is None else tuple(q.tolist()),
        config=config,
    )  # fmt: skip
    change = _change(pool.features, pool.logits, q, config)
    logits = change.directed(pool.features, pool.logits) + change.matched.astype(np.float32)
    log_q = np.log(q).astype(np.float32)
    levelled = logits + change.levelled.astype(np.float32)
    estimate = partial(estimated_recalls, logits, q, config.temperature)
    return BalanceResult(
        head=change.head(head, provenance),
        n_images=len(logits),
        test_views=pool.test_views,
        shares=q,
        decided_before=decided_shares(pool.logits + log_q),
        decided_after=decided_shares(levelled + log_q),
        recalls_before=estimate(pool.logits.argmax(axis=1)),
        recalls_after=estimate(levelled.argmax(axis=1)),
    )


def score_balanced(
    store: Store,
    head: Head,
    pool: Pool,
    config: BalanceConfig | None = None,
    *,
    shares: Sequence[float] | None = None,
    n_folds: int = FOLDS,
    seed: int = 0,
) -> BalancedScores:
    """Score a head before and after balancing, by cross-fitting: no image decides on itself.

    Labels are used for the scores only; folds are drawn without them.

    Args:
        store: the labels of the images.
        head: the head to balance, fitted on this store.
        pool: a split of the store, of `pool_of_store` of this head.
        config: as in `balance_head`.
        shares: as in `balance_head`.
        n_folds: folds of the images, two or more; as many heads are balanced.
        seed: of the folds.

    Raises:
        EvaluationError: as `balance_head`, if there are fewer images than folds or fewer folds
            than two, or if the pool is of no split of the store.
    """
    if seed < 0:
        raise EvaluationError(f"The seed of the folds is 0 or more, not {seed}.")
    scored = _scored(store, pool)
    _require_enough(pool)
    q, config = _shares(head, shares), config or BalanceConfig()
    n = len(pool.logits)
    if not 2 <= n_folds <= n:  # noqa: PLR2004  # others decide, so there must be others
        raise EvaluationError(f"{n} images have 2 to {n} folds, not {n_folds}.")
    folds = np.random.default_rng(seed).permutation(n) % n_folds
    decisions = np.empty(n, np.int64)
    for fold in range(n_folds):
        own = folds == fold
        change = _change(pool.features[~own], pool.logits[~own], q, config)
        decided = change.directed(pool.features[own], pool.logits[own])
        decisions[own] = (decided + (change.matched + change.levelled)).argmax(axis=1)
    return BalancedScores(
        before=scored.scores_of(pool.logits.argmax(axis=1), "new"),
        balanced=scored.scores_of(decisions, "new"),
    )


def _change(
    features: NDArray[np.float32], logits: Logits, q: Floats, config: BalanceConfig
) -> _Change:
    """What images without labels say, by their features (N, D) and the head's logits (N, C)."""
    matched, found = matching_shifts(logits, q), None
    if config.refit:
        # Of the logits' type: a pool in float32 is not doubled.
        found = refit(features, logits + matched.astype(logits.dtype), q, config.refit)
        logits = found.logits(features, logits)
        matched = matching_shifts(logits, q)
    levelled = levelling_shifts(
        logits + matched.astype(logits.dtype), q, config.mean, config.temperature
    )
    return _Change(found, matched, levelled)


def _scored(store: Store, pool: Pool) -> ScoredSplit:
    """The labels of the pool's images."""
    if pool.split is None or pool.split not in store:
        raise EvaluationError(
            f"Only images of a split of {store.path} have labels there: take pool_of_store."
        )
    scored = ScoredSplit(store, pool.split, pool.test_views)
    if scored.n_samples != len(pool.logits):
        raise EvaluationError(
            f"Split {pool.split!r} of {store.path} has {scored.n_samples} usable images, the pool "
            f"{len(pool.logits)}: take pool_of_store of this store."
        )
    return scored


def _require_enough(pool: Pool) -> None:
    """Refuse a pool from which nothing can be learnt."""
    n, n_classes = pool.logits.shape
    if n < n_classes:
        raise EvaluationError(
            f"{n} images cannot balance {n_classes} classes: use ten per class or more."
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
