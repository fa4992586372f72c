"""Stores of random features, for benchmarks that need a size and no meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cache import Classifier, Identity, SplitSpec, Store, StoreSpec, create_store
from cache.identity import samples_digest
from pipeline.datasets import exponential_counts

SHARD_ROWS = 2048


def random_store(
    n_test: int = 10_000,
    n_classes: int = 100,
    width: int = 64,
    largest: int = 500,
    path: Path | str = "benchmark.memory",
) -> Store:
    """A store of CIFAR-100-LT's size, in memory, unless told otherwise.

    Features are random class means plus noise, so that heads have something to learn.
    """
    generator = np.random.default_rng(0)
    counts = exponential_counts(largest, 100, n_classes)
    labels = {
        "train": np.repeat(np.arange(n_classes), counts),
        "test": np.arange(n_test) % n_classes,
    }
    means = generator.standard_normal((n_classes, width)).astype(np.float32)
    classifier = Classifier(means, None)
    ids = {name: [f"{name}/{i}" for i in range(len(rows))] for name, rows in labels.items()}
    identity = Identity(
        model={}, checkpoint="", backbone="", classifier=classifier.digest(),
        preprocessing={}, compute={}, dtype="float32", device="cpu", views={},
        samples={name: samples_digest(ids[name], rows) for name, rows in labels.items()},
    )  # fmt: skip
    splits = tuple(SplitSpec(name, ids[name], rows) for name, rows in labels.items())
    names = tuple(f"class {c}" for c in range(n_classes))
    spec = StoreSpec(identity, names, classifier, splits, shard_rows=SHARD_ROWS)
    with create_store(path, spec, overwrite=True) as writer:
        for shard in writer.missing():
            rows = labels[shard.split][shard.start : shard.stop]
            noise = generator.standard_normal((len(rows), width)).astype(np.float32)
            features = means[rows] + 2 * noise
            writer.write_shard(shard, features=features, logits=classifier.logits(features))
        return writer.seal()
