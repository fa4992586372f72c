"""Stores in memory with planted features and labels, for the tests of everything that measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache import Classifier, Identity, SplitSpec, Store, StoreSpec, create_store, samples_digest
from pipeline.config import FitConfig
from pipeline.heads import Head
from pipeline.provenance import Fitted

Planted = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""Split -> features (N, D) and labels (N,)."""


def planted_store(
    folder: Path,
    planted: Planted,
    *,
    class_names: Sequence[str] | None = None,
    weight: ArrayLike | Classifier | None = None,
    failures: Mapping[str, Mapping[int, str]] | None = None,
    shard_rows: int = 8,
    checkpoint: str = "a" * 64,
    views: Mapping[str, ArrayLike] | None = None,
    normalized: bool = False,
    file: str = "planted.memory",
    dtype: str = "float32",
    store_logits: bool = True,
    **identity: Any,
) -> Store:
    """A finished store; without a weight the old logits are the features themselves (C = D).

    `weight` may be a whole old head; `views` are (V, N, D) by split; `normalized` makes an old
    head of cosines; `identity` holds other values of the store's identity.
    """
    seen = {name: np.asarray(each, dtype) for name, each in (views or {}).items()}
    splits = tuple(
        SplitSpec(
            name, [f"{name}/{i}" for i in range(len(np.asarray(labels)))], np.asarray(labels),
            n_views=len(seen.get(name, ())),
        )
        for name, (_, labels) in planted.items()
    )  # fmt: skip
    width = np.asarray(next(iter(planted.values()))[0]).shape[1]
    if isinstance(weight, Classifier):
        old = weight
    else:
        eye = np.eye(width) if weight is None else weight
        old = Classifier(np.asarray(eye, np.float32), normalized=normalized)
    names = class_names or [f"c{c}" for c in range(len(old.weight))]
    values: dict[str, Any] = {
        "model": {"family": "planted", "variant": "", "backbone": "net", "recalibrated": None},
        "checkpoint": checkpoint, "backbone": "b" * 64, "classifier": old.digest(),
        "preprocessing": {}, "compute": {}, "dtype": dtype, "device": "cpu",
        "views": {"train": None, "test": None},
    }  # fmt: skip
    samples = {s.name: samples_digest(s.ids, s.labels) for s in splits}
    spec = StoreSpec(
        Identity(**values | identity, samples=samples), tuple(names), old, splits,
        store_logits=store_logits, shard_rows=shard_rows,
    )  # fmt: skip
    with create_store(folder / file, spec, overwrite=True) as writer:
        for shard in writer.missing():
            features = np.asarray(planted[shard.split][0], dtype)[shard.start : shard.stop]
            failed = (failures or {}).get(shard.split, {})
            writer.write_shard(
                shard, features=features, logits=old.logits(features) if store_logits else None,
                views=seen[shard.split][:, shard.rows] if len(seen.get(shard.split, ())) else None,
                failures={r: why for r, why in failed.items() if shard.start <= r < shard.stop},
            )  # fmt: skip
        return writer.seal()


def planted_head(store: Store, weight: ArrayLike, bias: ArrayLike | None = None) -> Head:
    """A head of the store with a weight (C, D) of one's own."""
    values: NDArray[Any] = np.asarray(weight, np.float32)
    return Head(
        weight=values,
        bias=np.zeros(len(values), np.float32) if bias is None else np.asarray(bias, np.float32),
        identity=store.identity,
        class_names=store.class_names,
        class_counts=tuple(store.class_counts.tolist()),
        provenance=Fitted(FitConfig()),
        versions={},
    )
