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
from pipeline.metrics import Bools, Ints, Scores, score
from pipeline.mixture import Answering, Mixture, answering, head_names
from pipeline.old_head import has_old_head, require_old_head
from pipeline.seen_views import averaged_views, mean_features

if TYPE_CHECKING:
    from cache import Split, Store
    from pipeline.heads import Head

READ_BYTES = 2**25
"""Memory for one block of features and logits of both heads (32 MiB)."""

LOGITS_OF_A_ROW = 8192
"""Logits of one row up to which classifiers share a pass: of more, the blocks would be so short
that most of the time went into reading them."""


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

        With test views the logits, those of the old classifier too, are those of the mean
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
        (predictions,) = self.predictions_of([answering(heads, mixture)])
        return predictions

    def predictions_of(self, classifiers: Sequence[Answering]) -> list[NDArray[np.intp]]:
        """Predictions (N,) of each of several classifiers, reading the split once or a few times.

        Args:
            classifiers: the heads of each, and how they are mixed, of `answering`.

        Raises:
            EvaluationError: as `predictions`.
        """
        most = max(1, LOGITS_OF_A_ROW // len(self.store.class_names))
        found: list[list[NDArray[np.intp]]] = [[] for _ in classifiers]
        for sharing in _passes(classifiers, most):
            heads = list(dict.fromkeys(head for k in sharing for head in classifiers[k][0]))
            for block in self.blocks(heads):
                logits = dict(zip(heads, block.logits, strict=True))
                for k in sharing:
                    members, mixture = classifiers[k]
                    found[k].append(_decided([logits[head] for head in members], mixture))
        return [np.concatenate(blocks) for blocks in found]

    def scores(self, heads: Sequence[Head] = (), mixture: Mixture | None = None) -> Scores:
        """Scores of `predictions`.

        Raises:
            EvaluationError: as `predictions`.
        """
        return self._scores(self.predictions(heads, mixture), heads, mixture)

    def scores_alone(self, heads: Sequence[Head]) -> list[Scores]:
        """Scores of each of K heads alone, reading the split once for many of them.

        Raises:
            EvaluationError: as `predictions`.
        """
        predictions = self.predictions_of([answering([head], None) for head in heads])
        return [self.scores_of(each, "new") for each in predictions]

    def scores_of_each(
        self, heads: Sequence[Head], mixture: Mixture | None = None
    ) -> dict[str, Scores]:
        """Scores of all that can be compared, reading the split once.

        Args:
            heads: the re-trained heads.
            mixture: of the old classifier and each head.

        Returns:
            By name, of the old classifier, where there is one, of each head alone, and last of the
            ensemble, where there is a mixture.

        Raises:
            EvaluationError: as `predictions`.
        """
        old, *new = head_names(len(heads))
        asked: dict[str, tuple[Sequence[Head], Mixture | None]] = {}
        if has_old_head(self.store):
            asked[old] = ((), None)
        asked |= {name: ([head], None) for name, head in zip(new, heads, strict=True)}
        if mixture is not None:
            asked["ensemble"] = (heads, mixture)
        predictions = self.predictions_of([answering(*each) for each in asked.values()])
        return {
            name: self._scores(each, *asked[name])
            for name, each in zip(asked, predictions, strict=True)
        }

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

    def _scores(self, predictions: Ints, heads: Sequence[Head], mixture: Mixture | None) -> Scores:
        """Scores of the predictions of heads."""
        if mixture is None:
            return self.scores_of(predictions, "new" if heads else "old")
        return self.scores_of(predictions, "ensemble", tuple(map(float, mixture.temperatures)))

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


def _passes(classifiers: Sequence[Answering], most: int) -> list[list[int]]:
    """Indices of the classifiers that share a pass over the rows, for each pass.

    Args:
        classifiers: the heads of each, and how they are mixed.
        most: heads of one pass, unless one classifier alone has more.
    """
    passes: list[list[int]] = []
    heads: set[Head | None] = set()
    # Ensembles first: what their heads say alone is in their pass already.
    for k in sorted(range(len(classifiers)), key=lambda k: -len(classifiers[k][0])):
        members = classifiers[k][0]
        together = heads.union(members)
        if passes and (len(together) <= most or together == heads):
            passes[-1].append(k)
            heads = together
        else:
            passes.append([k])
            heads = set(members)
    return passes


def _decided(logits: Sequence[Logits], mixture: Mixture | None) -> NDArray[np.intp]:
    """Predictions (B,) of one head, or of several that are mixed."""
    if mixture is None:  # no temperature changes the order within one head
        return np.asarray(logits[0].argmax(axis=1))
    return mixture_predictions(logits, mixture.temperatures, mixture.weights)


def _require_usable(fits: Bools, split: Split, rows: NDArray[np.intp], what: str) -> None:
    """Raise, naming the first sample, where one of the split's rows (B,) does not fit (B,)."""
    if not fits.all():
        row = int(rows[np.argmin(fits)])
        raise EvaluationError(
            f"Split {split.name!r} has NaN or infinite {what} in {int((~fits).sum())} of these "
            f"{len(fits)} rows, first for {split.ids[row]!r} (row {row}): extract the split again."
        )
