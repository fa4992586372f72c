"""Recalls of a fitted head over all images of a store, by folds.

    python -m benchmarks.folds STORE [--config plankton] [--folds 5]

A class of nine images leaves two or three to a test split, and a recall of 0 says little there.
Here every image of every split is scored once, by a head that was fitted without it: cross entropy
(the defaults of `fit-head`) as the old head, and the recipe's GML head. Folds are stratified, and
seeded by each image's id as the splits of `extract` are.
"""

from __future__ import annotations

import argparse
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from cache import Store, open_store
from pipeline.config import FitConfig, build_config
from pipeline.ensemble import mixture_predictions
from pipeline.fitting import LinearMap, TrainingRows, fit_head_on_rows
from pipeline.metrics import score
from pipeline.recipes import load_recipe


def all_rows(store: Store) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Clean features (N, D), labels (N,) and ids (N) of the usable rows of all splits."""
    splits = [store[name] for name in store.splits]
    features = np.concatenate([s.features()[s.usable] for s in splits]).astype(np.float32)
    labels = np.concatenate([s.labels[s.usable] for s in splits])
    ids = [str(i) for s in splits for i, good in zip(s.ids, s.usable, strict=True) if good]
    return features, labels, ids


def fold_of(labels: NDArray[np.int64], ids: list[str], n_folds: int) -> NDArray[np.int64]:
    """(N,) fold of each row; within a class the folds take turns in the order of a hash."""
    folds = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = sorted(np.flatnonzero(labels == label), key=lambda row: _draw(ids[row]))
        folds[rows] = np.arange(len(rows)) % n_folds
    return folds


def _draw(sample: str) -> bytes:
    return blake2b(f"folds/{sample}".encode(), digest_size=16).digest()


def logits_by_folds(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    config: FitConfig,
) -> NDArray[np.float32]:
    """(N, C) logits of each row, from a head that has not seen it."""
    n_classes = int(labels.max()) + 1
    logits = np.empty((len(labels), n_classes), np.float32)
    for fold in range(int(folds.max()) + 1):
        seen = folds != fold
        known = torch.from_numpy(labels[seen])
        counts = known.bincount(minlength=n_classes)
        rows = TrainingRows(torch.from_numpy(features[seen])[None], known, counts)
        fit = fit_head_on_rows(rows, config)
        head = LinearMap(fit.weight, fit.bias, fit.normalized)
        logits[~seen] = head.logits(torch.from_numpy(features[~seen])).numpy()
    return logits


def main() -> None:
    """Score both heads, and their ensemble at temperatures (1, 1), on all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--config", default="plankton")
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    with open_store(given.store) as store:
        features, labels, ids = all_rows(store)
        names = store.class_names
    folds = fold_of(labels, ids, given.folds)
    counts = np.bincount(labels, minlength=len(names))
    recipe = build_config(FitConfig, load_recipe(given.config).fit_head)
    old = logits_by_folds(features, labels, folds, FitConfig(loss="cross-entropy"))
    new = logits_by_folds(features, labels, folds, recipe)
    predictions = {
        "cross entropy": old.argmax(1),
        recipe.loss: new.argmax(1),
        "ensemble (1, 1)": mixture_predictions((old, new), (1.0, 1.0)),
    }
    print(describe())
    for head, predicted in predictions.items():
        found = score(np.asarray(predicted), labels, counts, names, "all")
        print(
            f"{head:16} accuracy {found.accuracy:.1f}  geometric mean {found.geometric_mean:.1f}  "
            f"harmonic mean {found.harmonic_mean:.1f}  lowest recall {found.lowest_recall:.1f} "
            f"({found.lowest_class}), {found.substituted_zeros} at zero"
        )


if __name__ == "__main__":
    main()
