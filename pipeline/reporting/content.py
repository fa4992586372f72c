"""What a report is about: the predictions of old head, new head and ensemble on one split.

Legend: N usable samples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Store
from pipeline.balancing.notes import balance_notes
from pipeline.heads import Head, require_same_identity
from pipeline.metrics import GROUPS, Ints, Scores, count_hits, group_masks, wilson_interval
from pipeline.mixture import Mixture, answering
from pipeline.scored import ScoredSplit
from pipeline.versions import versions

OLD, NEW, ENSEMBLE = "old", "new", "ensemble"


@dataclass(frozen=True, eq=False)
class Contender:
    """One of the classifiers that are compared."""

    key: str
    """`old`, `new` or `ensemble`."""

    name: str
    """What readers call it."""

    predictions: NDArray[np.intp]
    """(N,) class indices."""

    scores: Scores
    """What it reaches."""

    hits: Ints
    """(C,) correct samples of each class."""

    @cached_property
    def intervals(self) -> tuple[tuple[float, float] | None, ...]:
        """(C,) 95 % Wilson intervals of the recalls; None for a class without samples."""
        pairs = zip(self.hits.tolist(), self.scores.class_samples, strict=True)
        return tuple(wilson_interval(hits, n) if n else None for hits, n in pairs)


@dataclass(frozen=True, eq=False)
class Content:
    """Everything that is measured for a report, but for the temperature plane."""

    store_name: str
    """File name of the store."""

    split: str
    """Split that is reported."""

    labels: NDArray[np.int64]
    """(N,) true classes."""

    ids: tuple[str, ...]
    """(N,) ids of the samples."""

    class_names: tuple[str, ...]
    """(C,)"""

    class_counts: Ints
    """(C,) training images."""

    old: Contender
    """Before."""

    new: Contender
    """The re-trained head alone."""

    ensemble: Contender
    """Both heads together."""

    temperatures: tuple[float, float]
    """(t_old, t_new) of the ensemble."""

    temperatures_from: str
    """Who set them, for readers."""

    trusts_ensemble: bool
    """Whether the temperatures were chosen at all: then the ensemble is what comes after."""

    provenance: Mapping[str, Mapping[str, Any]]
    """Sections of names and values."""

    notes: tuple[str, ...] = ()
    """What to know of the head before its scores are trusted, a sentence each."""

    @property
    def test_views(self) -> int:
        """Test views of each image that were averaged with the clean one."""
        return self.old.scores.test_views

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """In the order of all tables."""
        return (self.old, self.new, self.ensemble)

    @property
    def after(self) -> Contender:
        """What the old head is compared with."""
        return self.ensemble if self.trusts_ensemble else self.new

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """(C,) many, medium or few."""
        masks = group_masks(self.class_counts)
        return tuple(next(g for g in GROUPS if masks[g][c]) for c in range(len(self.class_names)))

    @cached_property
    def by_training_images(self) -> list[int]:
        """(C,) class indices, most training images first: the order of the paper's figures."""
        return [int(c) for c in np.argsort(-self.class_counts, kind="stable")]


def gather(
    scored: ScoredSplit,
    head: Head,
    temperatures: tuple[float, float],
    *,
    temperatures_from: str,
    trusts_ensemble: bool,
) -> Content:
    """Predict one split with the old head, the new head and both.

    Args:
        scored: the split, as it suits the new head; all see the same.
        head: the re-trained head of that store.
        temperatures: (t_old, t_new) of the ensemble.
        temperatures_from: who set them, as "chosen on val".
        trusts_ensemble: whether the ensemble is what the old head is compared with.

    Raises:
        EvaluationError: if the split holds NaN, or the store has no old head.
        HeadError: if the head belongs to another store.
    """
    store, rows = scored.store, scored.rows
    require_same_identity(head, store)
    asked = answering([], None), answering([head], None), answering([head], Mixture(temperatures))
    old, new, both = scored.predictions_of(asked)
    return Content(
        store_name=store.path.name,
        split=scored.name,
        labels=scored.labels,
        ids=tuple(rows.ids[row] for row in np.flatnonzero(rows.usable)),
        class_names=tuple(store.class_names),
        class_counts=np.asarray(store.class_counts),
        old=_contender(scored, OLD, "Old head", old),
        new=_contender(scored, NEW, "New head", new),
        ensemble=_contender(scored, ENSEMBLE, "Ensemble", both, temperatures),
        temperatures=temperatures,
        temperatures_from=temperatures_from,
        trusts_ensemble=trusts_ensemble,
        provenance=_provenance(store, head),
        notes=tuple(balance_notes({"The new head": head}, [scored])),
    )


def _contender(
    scored: ScoredSplit,
    key: str,
    name: str,
    predictions: NDArray[np.intp],
    temperatures: tuple[float, float] | None = None,
) -> Contender:
    scores = scored.scores_of(predictions, key, temperatures)
    hits = count_hits(predictions, scored.labels, len(scored.store.class_names))
    return Contender(key, name, predictions, scores, hits)


def _provenance(store: Store, head: Head) -> dict[str, dict[str, Any]]:
    """Sections of names and values, those of the store first."""
    images = {name: store[name].n_samples for name in store.splits}
    failed = {name: len(store[name].failed) for name in store.splits if store[name].failed}
    about: dict[str, Any] = {"file": store.path.name, "images": images}
    if failed:
        about["unreadable images"] = failed
    return {
        "Store": about,
        "Identity: what was extracted, by what": dict(store.identity.in_words()),
        "Extraction": _flat(store.provenance),
        "New head: how it came about": _flat(head.provenance.to_json()),
        "New head: versions": dict(head.versions),
        "This report: versions": dict(versions()),
    }


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Nested sections as `section name`."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}: {name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat
