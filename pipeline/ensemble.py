"""Several heads as one classifier: their logits from a store, softmax at a temperature, the mean.

This direct evaluation in float64 is what an ensemble's prediction means; `pipeline.plane` gives the
same predictions on whole planes of temperatures.

Where test views are stored, every head sees the mean of the clean feature and those of the views:
`logit_blocks` alone forms it, for whatever is measured.

Legend: N samples, B rows of a block, C classes, D feature width, V views, K heads, T temperatures.
Predictions take the lower class index on ties. An old logit may be -inf (a class that cannot be
predicted); NaN and +inf are errors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import EvaluationError
from pipeline.head_history import sees_test_views
from pipeline.metrics import Bools, Floats, Ints, Scores, score
from pipeline.mixture import Mixture, check_weights, head_names, require_temperature
from pipeline.old_head import has_old_head, require_old_head

if TYPE_CHECKING:
    from cache import Split, Store
    from pipeline.heads import Head

Logits = NDArray[np.float32] | Floats

READ_BYTES = 2**25
"""Memory for one block of features and logits of both heads (32 MiB)."""


def softmax(logits: Logits, temperature: float | Floats = 1.0) -> Floats:
    """Softmax of the logits divided by a temperature, eq. (12) and (13), in float64.

    Args:
        logits: (N, C); each row has a finite largest value.
        temperature: above 0, one for all rows or (N,); the row's largest logit is subtracted before
            the division, so that tiny and huge temperatures neither overflow nor lose a row.

    Raises:
        EvaluationError: if a temperature is not a number above 0.
    """
    divisor = np.asarray(temperature, np.float64)
    for value in np.unique(divisor):
        require_temperature(float(value))
    # In one order of memory, a row's sum has one order of additions: the same logits give the same
    # bits, whatever array they come in.
    values = np.ascontiguousarray(logits, np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    return _softmax_of_shifted(shifted, divisor[..., None], np.empty_like(shifted))


def softmaxes(logits: Logits, temperatures: Sequence[float] | Floats) -> Floats:
    """Probabilities (T, N, C) of logits (N, C) at each of T temperatures; see `softmax`."""
    for temperature in temperatures:
        require_temperature(temperature)
    values = np.ascontiguousarray(logits, np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    probabilities = np.empty((len(temperatures), *values.shape))
    for temperature, out in zip(temperatures, probabilities, strict=True):
        _softmax_of_shifted(shifted, temperature, out)
    return probabilities


def ensemble_probabilities(
    logits_old: Logits, logits_new: Logits, t_old: float = 1.0, t_new: float = 1.0
) -> Floats:
    """Mean of both heads' probabilities (N, C), eq. (11)-(13).

    Args:
        logits_old: (N, C) of the old classifier.
        logits_new: (N, C) of the re-trained head.
        t_old: temperature of the old classifier, above 0.
        t_new: temperature of the re-trained head, above 0.

    Raises:
        EvaluationError: if the shapes differ or a temperature is not a number above 0.
    """
    return mixture_probabilities((logits_old, logits_new), (t_old, t_new))


def ensemble_predictions(
    logits_old: Logits, logits_new: Logits, t_old: float = 1.0, t_new: float = 1.0
) -> NDArray[np.intp]:
    """Most probable class (N,) of the ensemble, the lower index on ties; see eq. (11)-(13).

    Raises:
        EvaluationError: as `ensemble_probabilities`.
    """
    return mixture_predictions((logits_old, logits_new), (t_old, t_new))


def mixture_probabilities(
    logits: Sequence[Logits],
    temperatures: Sequence[float | Floats],
    weights: Sequence[float] | None = None,
) -> Floats:
    """Weighted mean of K heads' probabilities (N, C); two heads of equal weight are eq. (11).

    Args:
        logits: (N, C) of each head, the old classifier first.
        temperatures: one for each head, or (N,) for each head.
        weights: one above 0 for each head, in any unit; all equal where not given.

    Raises:
        EvaluationError: if shapes or numbers disagree, or a temperature or weight is not above 0.
    """
    shares = check_weights(weights, len(logits))
    if len({np.shape(values) for values in logits}) > 1 or len(temperatures) != len(logits):
        raise EvaluationError(
            "An ensemble needs logits of one shape and a temperature for each head, not logits of "
            f"{', '.join(str(np.shape(values)) for values in logits)} and {len(temperatures)} "
            "temperatures."
        )
    # The old head comes last, as in eq. (11): floating point addition has an order.
    total = np.zeros(np.shape(logits[0]))
    for k in (*range(1, len(logits)), 0):
        total += shares[k] * softmax(logits[k], temperatures[k])
    total /= sum(shares)
    return total


def mixture_predictions(
    logits: Sequence[Logits],
    temperatures: Sequence[float | Floats],
    weights: Sequence[float] | None = None,
) -> NDArray[np.intp]:
    """Most probable class (N,) of `mixture_probabilities`, the lower index on ties."""
    return np.asarray(mixture_probabilities(logits, temperatures, weights).argmax(axis=-1))


@dataclass(frozen=True)
class LogitBlock:
    """Usable rows of a split, in their order, with every asked head's logits."""

    labels: Ints
    """(B,) class indices."""

    logits: tuple[Logits, ...]
    """(B, C) of each head, in the order in which the heads were given."""

    features: NDArray[np.floating[Any]] | None = None
    """(B, D) that the heads have seen; None where the stored old logits were enough."""


def scored_split(store: Store, name: str) -> Split:
    """The split of that name, with at least one usable row.

    Raises:
        EvaluationError: if the store has no such split, or nothing in it can be scored.
    """
    if name not in store:
        raise EvaluationError(
            f"{store.path} has no split {name!r}: it holds {', '.join(map(repr, store.splits))}."
        )
    split = store[name]
    if not split.usable.any():
        reason = f"all {split.n_samples} images failed" if split.n_samples else "it is empty"
        raise EvaluationError(f"Split {name!r} of {store.path} cannot be scored: {reason}.")
    return split


def averaged_views(
    store: Store,
    split: str,
    test_views: bool | None = None,
    heads: Iterable[Head | None] = (),
) -> int:
    """Test views V of each image whose features are averaged with the clean one; 0 for none.

    Views of `train` are the random ones that heads are fitted on, and never averaged.

    Args:
        store: a store that has the split.
        split: name of the split.
        test_views: whether to average; None does where the store has test views, which were
            extracted for this, unless a head was balanced on the clean image alone.
        heads: that answer together, None for the old classifier.

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
    return stored if stored and sees_test_views(heads, test_views) is not False else 0


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


def logit_blocks(
    store: Store, split: str, heads: Sequence[Head | None], test_views: bool | None = None
) -> Iterator[LogitBlock]:
    """Logits of a split's usable rows, block by block, in bounded memory.

    The blocks depend on the store and on the views alone, so that every stage sees the same bits.
    With test views the logits, those of the old classifier too, are those of the mean feature, the
    mean of (1 + V, B, D) over the versions. A classifier that normalises its features does so with
    the mean: its cosines are to the mean's direction, in which a version of a longer feature weighs
    more.

    Args:
        store: a store whose identity agrees with that of every head.
        split: name of a split.
        heads: whose logits to give; None stands for the old classifier.
        test_views: average test views, as in `averaged_views`.

    Raises:
        EvaluationError: for a missing or empty split, for NaN or +inf in features or logits, and
            for test views that are asked for and not there.
        HeadError: as `averaged_views`.
    """
    rows = scored_split(store, split)
    if None in heads:
        require_old_head(store)
    n_views = averaged_views(store, split, test_views, heads)
    n_classes, width = store.classifier.weight.shape
    if n_views:
        # The sum in float64 takes two of float32; then a version, its usable rows, and the mean.
        width *= 5
    # A power of two, as shards are, so that a block seldom cuts through a stored chunk.
    row_bytes = 4 * (width + len(heads) * n_classes)
    block_rows = 2 ** max(4, int(math.log2(READ_BYTES / row_bytes)))
    for start in range(0, rows.n_samples, block_rows):
        stop = min(start + block_rows, rows.n_samples)
        usable = rows.usable[start:stop]
        if usable.any():
            logits, features = _logits_of_heads(store, rows, heads, slice(start, stop), n_views)
            yield LogitBlock(np.asarray(rows.labels[start:stop][usable]), logits, features)


def predict_split(
    store: Store,
    split: str,
    head: Head | Sequence[Head] | None = None,
    mixture: Mixture | None = None,
    test_views: bool | None = None,
) -> tuple[NDArray[np.intp], Ints]:
    """Predictions (N,) and labels (N,) of a split's usable rows.

    Args:
        store: a store whose identity agrees with the head's.
        split: name of a split.
        head: the re-trained head, or several; None for the old classifier.
        mixture: of the old classifier and each head; None for the one head alone.
        test_views: average test views, as in `averaged_views`.

    Raises:
        EvaluationError: see `logit_blocks` and `mixture_probabilities`.
        HeadError: as `averaged_views`, of the heads that have a weight.
    """
    members, own = _members(heads_of(head), mixture)
    predictions, labels = [], []
    for block in logit_blocks(store, split, members, test_views):
        if own is None:  # no temperature changes the order within one head
            predictions.append(block.logits[0].argmax(axis=1))
        else:
            predictions.append(mixture_predictions(block.logits, own.temperatures, own.weights))
        labels.append(block.labels)
    return np.concatenate(predictions), np.concatenate(labels)


def score_split(
    store: Store,
    split: str,
    head: Head | Sequence[Head] | None = None,
    mixture: Mixture | None = None,
    test_views: bool | None = None,
) -> Scores:
    """Scores of the predictions of `predict_split`; failed rows are counted and left out.

    Raises:
        EvaluationError: as `predict_split`.
    """
    predictions, labels = predict_split(store, split, head, mixture, test_views)
    scores = score(
        predictions, labels, store.class_counts, store.class_names, split,
        n_failed=store[split].n_samples - len(labels),
    )  # fmt: skip
    members, _ = _members(heads_of(head), mixture)
    return dataclasses.replace(
        scores,
        predictor="old" if head is None else "new" if mixture is None else "ensemble",
        temperatures=None if mixture is None else tuple(map(float, mixture.temperatures)),
        test_views=averaged_views(store, split, test_views, members),
    )


def score_each(
    store: Store, split: str, heads: Sequence[Head], test_views: bool | None = None
) -> dict[str, Scores]:
    """Scores of each head alone, by name: the old one's, where there is one, come first."""
    old, *new = head_names(len(heads))
    found = {}
    if has_old_head(store):
        found[old] = score_split(store, split, test_views=test_views)
    for name, head in zip(new, heads, strict=True):
        found[name] = score_split(store, split, head, test_views=test_views)
    return found


def heads_of(head: Head | Sequence[Head] | None) -> list[Head]:
    """The re-trained heads as a list, which is empty for the old classifier."""
    if head is None:
        return []
    return list(head) if isinstance(head, Sequence) else [head]


def _members(
    heads: Sequence[Head], mixture: Mixture | None
) -> tuple[Sequence[Head | None], Mixture | None]:
    """The heads whose logits a prediction needs, and how they are mixed."""
    if mixture is not None:
        return mixture.among(heads)
    if len(heads) > 1:
        raise EvaluationError(
            f"{len(heads)} heads predict together with the old one: give temperatures."
        )
    return [*heads] or [None], None


def _softmax_of_shifted(shifted: Floats, temperature: float | Floats, out: Floats) -> Floats:
    """Softmax of logits (..., C) whose row maximum is 0, written to `out` of the same shape."""
    with np.errstate(over="ignore"):  # to -inf, whose exponential is the 0 that it should be
        np.divide(shifted, temperature, out=out)
    np.exp(out, out=out)
    np.divide(out, out.sum(axis=-1, keepdims=True), out=out)
    return out


def _logits_of_heads(
    store: Store, split: Split, heads: Sequence[Head | None], block: slice, n_views: int
) -> tuple[tuple[Logits, ...], NDArray[np.floating[Any]] | None]:
    """Every head's logits (B, C) of the usable rows of a block, checked, and their features."""
    usable = split.usable[block]
    rows = block.start + np.flatnonzero(usable)
    features = None
    if n_views or any(head is not None for head in heads):
        features = _features(split, block, n_views)
        _require_usable(np.isfinite(features).all(axis=1), split, rows, "features")
    found = []
    for head in heads:
        if features is None or (head is None and not n_views):
            logits: Logits = split.logits(block.start, block.stop)[usable]
        else:
            logits = (store.classifier if head is None else head).logits(features)
        # A row's maximum is finite unless it holds NaN, +inf or nothing but -inf.
        what = "old logits" if head is None else "logits"
        _require_usable(np.isfinite(logits.max(axis=1)), split, rows, what)
        found.append(logits)
    return tuple(found), features


def _features(split: Split, block: slice, n_views: int) -> NDArray[np.floating[Any]]:
    """(B, D) of the usable rows of a block: clean, or the mean with V views."""
    usable = split.usable[block]
    if not n_views:
        return split.features(block.start, block.stop)[usable]
    return mean_features(
        split.version(version, block.start, block.stop)[usable] for version in range(1 + n_views)
    )


def _require_usable(fits: Bools, split: Split, rows: NDArray[np.intp], what: str) -> None:
    """Raise, naming the first sample, where one of the split's rows (B,) does not fit (B,)."""
    if not fits.all():
        row = int(rows[np.argmin(fits)])
        raise EvaluationError(
            f"Split {split.name!r} has NaN or infinite {what} in {int((~fits).sum())} of these "
            f"{len(fits)} rows, first for {split.ids[row]!r} (row {row}): extract the split again."
        )
