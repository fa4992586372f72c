"""What a store will hold, stated and checked before the first shard is computed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cache.classifier import Classifier, frozen_array
from cache.errors import StoreError
from cache.identity import Identity, samples_digest
from cache.strict_json import JSON, canonical

_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def is_split_name(name: str) -> bool:
    """Tell whether a split can be called so: a plain word that is no name of the store's own."""
    return _SPLIT_NAME.fullmatch(name) is not None and name not in ("classifier", "catalogue")


@dataclass(frozen=True, eq=False)
class SplitSpec:
    """The ordered samples of one split.

    Raises:
        StoreError: the name is no plain word, ids repeat, or the lengths do not agree.
    """

    name: str
    """"train", "test", "val" or another plain word."""
    ids: Sequence[str]
    """(N) paths relative to the data root, each once."""
    labels: npt.NDArray[np.int64]
    """(N,) class of each sample, 0 to C - 1."""
    n_views: int = 0
    """Views of each sample, V: random ones of `train`, fixed ones of the other splits."""

    def __post_init__(self) -> None:
        if not is_split_name(self.name):
            raise StoreError(f"A split cannot be called '{self.name}'; use a word like 'train'.")
        where = f"Split '{self.name}'"
        given = np.asarray(self.labels)
        if given.ndim != 1 or len(given) != len(self.ids) or not len(given):
            raise StoreError(f"{where} has {len(self.ids)} ids and labels {given.shape}.")
        if given.dtype.kind not in "iu":
            raise StoreError(f"{where} needs whole numbers as labels, not {given.dtype}.")
        if self.n_views < 0:
            raise StoreError(f"{where} cannot have {self.n_views} views.")
        object.__setattr__(self, "ids", tuple(self.ids))
        object.__setattr__(self, "labels", frozen_array(given, np.int64))
        self._check_ids(where)

    def _check_ids(self, where: str) -> None:
        seen: set[str] = set()
        for sample in self.ids:
            if sample in seen:
                raise StoreError(f"{where} names the sample '{sample}' twice.")
            seen.add(sample)
        # NUL ends a string in HDF5; lone surrogates stand for file names that are no UTF-8.
        for sample in self.ids:
            if not sample or "\0" in sample or not _is_text(sample):
                raise StoreError(f"{where} has an id that is empty or no UTF-8: {sample!a}.")


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class StoreSpec:
    """Everything about a store that is known before its first shard is computed.

    Raises:
        StoreError: parts contradict each other; the message names which.
    """

    identity: Identity
    """What is extracted and by what; its `samples` must be those of `splits`."""
    class_names: tuple[str, ...]
    """(C) names in the order of the labels."""
    classifier: Classifier
    """The old head; it fixes C and D."""
    splits: tuple[SplitSpec, ...]
    """The splits in their order; one is "train"."""
    store_logits: bool = True
    """Keep the old logits; otherwise they are recomputed from the stored features."""
    shard_rows: int = 2048
    """Rows of a shard."""
    provenance: Mapping[str, JSON] = field(default_factory=dict)
    """Whatever helps to trace the store: command, versions, dates; no part of the identity."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "splits", tuple(self.splits))
        object.__setattr__(self, "provenance", dict(self.provenance))
        self._check_classes()
        self._check_splits()
        if self.shard_rows < 1:
            raise StoreError(f"A shard must have at least one row, not {self.shard_rows}.")
        try:
            canonical(self.provenance)
        except (TypeError, ValueError) as error:
            raise StoreError(f"The provenance must be plain JSON ({error}).") from None

    @property
    def dtype(self) -> str:
        """Stored type of features and views: "float32" or "float16"."""
        return self.identity.dtype

    def _check_classes(self) -> None:
        if self.identity.classifier != self.classifier.digest():
            raise StoreError(
                "identity.classifier is not that of the old head; make it with classifier.digest()."
            )
        n_classes = len(self.classifier.weight)
        if len(self.class_names) != n_classes:
            raise StoreError(
                f"The classifier has {n_classes} classes, but {len(self.class_names)} are named."
            )
        if len(set(self.class_names)) != n_classes:
            raise StoreError("Two classes have the same name; every class needs its own.")

    def _check_splits(self) -> None:
        names = [split.name for split in self.splits]
        if len(set(names)) != len(names) or "train" not in names:
            raise StoreError(f"The splits must be 'train' and others, each once, not {names}.")
        if set(self.identity.samples) != set(names):
            raise StoreError(
                f"The identity has samples of {sorted(self.identity.samples)}, "
                f"but the splits are {sorted(names)}."
            )
        for split in self.splits:
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.class_names):
                raise StoreError(
                    f"Split '{split.name}' has labels from {low} to {high}, "
                    f"but there are {len(self.class_names)} classes, counted from 0."
                )
            if self.identity.samples[split.name] != samples_digest(split.ids, split.labels):
                raise StoreError(
                    f"identity.samples['{split.name}'] is not that of the split's ids and labels; "
                    "make it with cache.samples_digest(ids, labels)."
                )
