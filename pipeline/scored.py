"""What is scored: a split of a store as all classifiers see it, and what they reach on it.

Where test views are stored, every head sees the mean of the clean feature and those of the views.
Whether it does is settled once, by `scored_split`, from what was asked for, what the store has and
what the heads were balanced on; whatever measures something is then given the `ScoredSplit`, which
alone forms that mean.

Legend: N usable rows of the split, B rows of a block, C classes, D feature width, V views, K heads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ensemble import LogitBlock, Logits, mixture_predictions
from pipeline.errors import EvaluationError
from pipeline.head_history import sees_test_views
from pipeline.metrics import Bools, Ints, Scores, score
from pipeline.mixture import Mixture, answering, head_names
from pipeline.old_head import has_old_head, require_old_head

if TYPE_CHECKING:
    from cache import Split, Store
    from pipeline.heads import Head

READ_BYTES = 2**25
"""Memory for one block of features and logits of both heads (32 MiB)."""


@dataclass(frozen=True, eq=False)
class ScoredSplit:
    """The usable rows of a split, as clean features or as mean features: the same for all heads.

    Raises:
        EvaluationError: if the store has no such split, or nothing in it can be scored.
    """

    store: Store
    """Features and old logits, whose identity agrees with that of every head."""

    name: str
    """Name of the split."""

    test_views: int = 0
    """Test views V of each image whose features are averaged with the clean one, 0 for none."""

    def __post_init__(self) -> None:
        """Refuse a split of which there is nothing to score."""
        store = self.store
        if self.name not in store:
            have = ", ".join(map(repr, store.splits))
            raise EvaluationError(f"{store.path} has no split {self.name!r}: it holds {have}.")
        n = self.rows.n_samples
        if not self.rows.usable.any():
            reason = f"all {n} images failed" if n else "it is empty"
            raise EvaluationError(
                f"Split {self.name!r} of {store.path} cannot be scored: {reason}."
            )

    @property
    def rows(self) -> Split:
        """All rows of the split, failed ones too."""
        return self.store[self.name]

    @cached_property
    def labels(self) -> Ints:
        """(N,) class of each usable row, in the order of the rows."""
        return np.asarray(self.rows.labels[self.rows.usable])

    @property
    def n_samples(self) -> int:
        """N."""
        return int(self.rows.usable.sum())

    @property
    def n_failed(self) -> int:
        """Rows that are left out because their image could not be read."""
        return self.rows.n_samples - self.n_samples

    def blocks(self, heads: Sequence[Head | None]) -> Iterator[LogitBlock]:
        """Logits of the usable rows, block by block, in bounded memory.

        The blocks depend on the store and on the views alone, so that every stage sees the same
        bits. With test views the logits, those of the old classifier too, are those of the mean
        feature, the mean of (1 + V, B, D) over the versions. A classifier that normalises its
        features does so with the mean: its cosines are to the mean's direction, in which a version
        of a longer feature weighs more.

        Args:
            heads: whose logits to give; None stands for the old classifier.

        Raises:
            EvaluationError: for NaN or +inf in features or logits, and if there is no old head.
        """
        if None in heads:
            require_old_head(self.store)
        n_classes, width = self.store.classifier.weight.shape
        if self.test_views:
            # The sum in float64 takes two of float32; then a version, its usable rows, and the
            # mean.
            width *= 5
        # A power of two, as shards are, so that a block seldom cuts through a stored chunk.
        row_bytes = 4 * (width + len(heads) * n_classes)
        block_rows = 2 ** max(4, int(math.log2(READ_BYTES / row_bytes)))
        rows = self.rows
        for start in range(0, rows.n_samples, block_rows):
            stop = min(start + block_rows, rows.n_samples)
            usable = rows.usable[start:stop]
            if usable.any():
                logits, features = self._logits(heads, slice(start, stop))
                yield LogitBlock(np.asarray(rows.labels[start:stop][usable]), logits, features)

    def predictions(
        self, heads: Sequence[Head] = (), mixture: Mixture | None = None
    ) -> NDArray[np.intp]:
        """Predictions (N,), the lower class index on ties.

        Args:
            heads: the re-trained head, or several; none for the old classifier.
            mixture: of the old classifier and each head; None for the one head alone.

        Raises:
            EvaluationError: see `blocks` and `mixture_probabilities`.
        """
        members, own = answering(heads, mixture)
        predictions = []
        for block in self.blocks(members):
            if own is None:  # no temperature changes the order within one head
                predictions.append(block.logits[0].argmax(axis=1))
            else:
                predictions.append(mixture_predictions(block.logits, own.temperatures, own.weights))
        return np.concatenate(predictions)

    def scores(self, heads: Sequence[Head] = (), mixture: Mixture | None = None) -> Scores:
        """Scores of `predictions`.

        Raises:
            EvaluationError: as `predictions`.
        """
        alone = "new" if heads else "old"
        return self.scores_of(
            self.predictions(heads, mixture),
            alone if mixture is None else "ensemble",
            None if mixture is None else tuple(map(float, mixture.temperatures)),
        )

    def scores_of_each(self, heads: Sequence[Head]) -> dict[str, Scores]:
        """Scores of each head alone, by name: the old one's, where there is one, come first."""
        old, *new = head_names(len(heads))
        found = {old: self.scores()} if has_old_head(self.store) else {}
        return found | {name: self.scores([head]) for name, head in zip(new, heads, strict=True)}

    def scores_of(
        self, predictions: Ints, predictor: str, temperatures: tuple[float, ...] | None = None
    ) -> Scores:
        """Scores of predictions (N,); failed rows are counted and left out.

        Args:
            predictions: of the usable rows, in their order.
            predictor: what made them: "old", "new" or "ensemble".
            temperatures: of an ensemble.
        """
        scores = score(
            predictions, self.labels, self.store.class_counts, self.store.class_names, self.name,
            n_failed=self.n_failed,
        )  # fmt: skip
        return dataclasses.replace(
            scores, predictor=predictor, temperatures=temperatures, test_views=self.test_views
        )

    def _logits(
        self, heads: Sequence[Head | None], block: slice
    ) -> tuple[tuple[Logits, ...], NDArray[np.floating[Any]] | None]:
        """Every head's logits (B, C) of the usable rows of a block, checked, and their features."""
        split = self.rows
        usable = split.usable[block]
        rows = block.start + np.flatnonzero(usable)
        features = None
        if self.test_views or any(head is not None for head in heads):
            features = self._features(block)
            _require_usable(np.isfinite(features).all(axis=1), split, rows, "features")
        found = []
        for head in heads:
            if features is None or (head is None and not self.test_views):
                logits: Logits = split.logits(block.start, block.stop)[usable]
            else:
                logits = (self.store.classifier if head is None else head).logits(features)
            # A row's maximum is finite unless it holds NaN, +inf or nothing but -inf.
            what = "old logits" if head is None else "logits"
            _require_usable(np.isfinite(logits.max(axis=1)), split, rows, what)
            found.append(logits)
        return tuple(found), features

    def _features(self, block: slice) -> NDArray[np.floating[Any]]:
        """(B, D) of the usable rows of a block: clean, or the mean with V views."""
        split, usable = self.rows, self.rows.usable[block]
        if not self.test_views:
            return split.features(block.start, block.stop)[usable]
        return mean_features(
            split.version(version, block.start, block.stop)[usable]
            for version in range(1 + self.test_views)
        )


def scored_split(
    store: Store,
    split: str,
    heads: Iterable[Head | None] = (),
    test_views: bool | None = None,
) -> ScoredSplit:
    """Settle what is scored, and refuse what cannot be.

    Args:
        store: a store whose identity agrees with that of every head.
        split: name of a split.
        heads: that answer together, None for the old classifier.
        test_views: average test views, as in `averaged_views`.

    Raises:
        EvaluationError: for a missing or empty split, if the old classifier is named and not
            there, and for test views that are asked for and not there.
        HeadError: as `averaged_views`.
    """
    clean, heads = ScoredSplit(store, split), list(heads)
    if None in heads:
        require_old_head(store)
    return dataclasses.replace(clean, test_views=averaged_views(store, split, heads, test_views))


def is_scorable(store: Store, split: str) -> bool:
    """Whether there is such a split with at least one usable row."""
    return split in store and bool(store[split].usable.any())


def averaged_views(
    store: Store,
    split: str,
    heads: Iterable[Head | None] = (),
    test_views: bool | None = None,
) -> int:
    """Test views V of each image whose features are averaged with the clean one; 0 for none.

    Views of `train` are the random ones that heads are fitted on, and never averaged.

    Args:
        store: a store that has the split.
        split: name of the split.
        heads: that answer together, None for the old classifier.
        test_views: whether to average; None does where the store has test views, which were
            extracted for this, unless a head was balanced on the clean image alone.

    Raises:
        EvaluationError: if test views are asked for that the split does not have.
        HeadError: if nothing is asked for where there are test views, and the heads were balanced
            for different ones; see `sees_test_views`.
    """
    stored = 0 if split == "train" else store[split].n_views
    if test_views and not stored:
        remedy = "extract with --test-views 7, or leave --test-views out"
        if split == "train":
            remedy = "its views are those for the fit, so leave --test-views out"
        raise EvaluationError(f"{store.path} has no test views of {split!r}: {remedy}.")
    return stored if stored and sees_test_views(heads, test_views) else 0


def mean_features(versions: Iterable[NDArray[np.floating[Any]]]) -> NDArray[np.float32]:
    """Mean (B, D) of the features (B, D) of one version of the images after the other."""
    remaining = iter(versions)
    # In float64 a sum of a few equal numbers is exact: their mean is the number itself.
    total, n = next(remaining).astype(np.float64), 1
    for features in remaining:
        total += features
        n += 1
    total /= n
    return total.astype(np.float32)


def _require_usable(fits: Bools, split: Split, rows: NDArray[np.intp], what: str) -> None:
    """Raise, naming the first sample, where one of the split's rows (B,) does not fit (B,)."""
    if not fits.all():
        row = int(rows[np.argmin(fits)])
        raise EvaluationError(
            f"Split {split.name!r} has NaN or infinite {what} in {int((~fits).sum())} of these "
            f"{len(fits)} rows, first for {split.ids[row]!r} (row {row}): extract the split again."
        )
