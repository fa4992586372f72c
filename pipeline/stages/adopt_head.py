"""Make a fitted head the old classifier of a store: for features of a model that had none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cache import Classifier, Store, copy_store, spec_of
from pipeline.errors import HeadError
from pipeline.heads import Head, require_same_identity
from pipeline.old_head import ADOPTED
from pipeline.progress import OnProgress, counting

SAME_LENGTH = 1e-5
"""Relative difference of lengths that float32 leaves of equal ones."""


def adopt_head(
    store: Store,
    head: Head,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Store:
    """Copy a store with a head in the place of its old classifier.

    Features, views, labels and ids are copied shard by shard; the old logits are those of the
    head, recomputed when they are read. The identity changes, so heads of the store it came from do
    not fit the new one by mistake.

    Args:
        store: features (N, D) of each split.
        head: the head (C, D), fitted on this store.
        out: store to create, NAME.zarr or NAME.h5.
        resume: go on with an interrupted copy; begin one where there is none.
        overwrite: replace an existing store, once the new one is complete.
        on_progress: called after every shard.

    Returns:
        The copy, open.

    Raises:
        HeadError: if the head belongs to another store, or no classifier of a store gives its
            logits.
        StoreError: if `out` exists or cannot be written, or is a copy with another head.
    """
    require_same_identity(head, store)
    classifier = _classifier(head)
    spec = replace(
        spec_of(store),
        identity=replace(store.identity, classifier=classifier.digest()),
        classifier=classifier,
        store_logits=False,
        provenance={
            **store.provenance,
            ADOPTED: {"provenance": head.provenance.to_json(), "versions": dict(head.versions)},
        },
    )
    on_shard = on_progress and counting(on_progress)
    return copy_store(store, out, spec, resume=resume, overwrite=overwrite, on_shard=on_shard)


def _classifier(head: Head) -> Classifier:
    """The head as a store keeps it, which for normalised features also normalises the weight.

    Raises:
        HeadError: if the classes' weights have different lengths, so that this would change logits.
    """
    if not head.normalized:
        return Classifier(weight=head.weight, bias=head.bias)
    lengths = np.linalg.norm(head.weight.astype(np.float64), axis=1)
    if lengths.max() - lengths.min() > SAME_LENGTH * lengths.max():
        raise HeadError(
            "The head normalises features, and its classes' weights have different lengths: a "
            "store keeps normalising classifiers only as cosines. Adopt one that was fitted with "
            "--head cosine, or without --normalize."
        )
    return Classifier(
        weight=head.weight, bias=head.bias, scale=float(lengths.mean()), normalized=True
    )
