"""The same store in another format, type or size of shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache.errors import StoreError, StoreNotFoundError
from cache.shards import Shard
from cache.spec import SplitSpec, StoreSpec
from cache.store import Store, open_store
from cache.strict_json import JSON
from cache.writer import StoreWriter, create_store, resume_store


def convert_store(
    source: Path | str,
    target: Path | str,
    *,
    dtype: str | None = None,
    shard_rows: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_shard: Callable[[int, int], None] | None = None,
) -> Store:
    """Write a store anew; the suffix of `target` chooses its format.

    Format and size of the shards change no number, and there and back again gives equal bytes.
    The type of the features is part of a store's identity: "float16" makes the store that an
    extraction in float16 would have made. "float32" from float16 is refused, because the digits
    that it promises are gone.

    Args:
        source: a finished store; every byte that is taken over is verified.
        target: the store to create.
        dtype: "float32" or "float16"; None: as it is.
        shard_rows: rows of a shard; None: as it is.
        resume: go on with an interrupted conversion; begin one where there is none.
        overwrite: replace what stands at `target`, once the new store is complete.
        on_shard: called with the number of shards written, and of all.

    Returns:
        The new store, open.

    Raises:
        StoreError: the two are the same, the type is unknown or would lie, float16 overflows, or
            `target` exists or cannot be written.
        CorruptStoreError: the source is damaged.
    """
    source, target = Path(source), Path(target)
    if source.absolute() == target.absolute():
        raise StoreError(f"{source} cannot be converted onto itself; choose another name.")
    with open_store(source) as store:
        spec = _converted_spec(store, dtype, shard_rows)
        with _begin(target, spec, resume=resume, overwrite=overwrite) as writer:
            missing = writer.missing()
            for number, shard in enumerate(missing, start=1):
                _copy(store, writer, shard)
                if on_shard is not None:
                    on_shard(number, len(missing))
            return writer.seal()


def _converted_spec(store: Store, dtype: str | None, shard_rows: int | None) -> StoreSpec:
    """The store's own specification with another type or size of shards."""
    dtype = dtype or store.dtype
    if dtype == "float32" and store.dtype == "float16":
        raise StoreError(
            f"{store.path} holds float16: float32 would promise digits that are gone. Extract "
            "again with --dtype float32."
        )
    provenance: dict[str, JSON] = dict(store.provenance)
    if dtype != store.dtype:
        provenance["converted"] = f"{store.dtype} to {dtype}"
    return StoreSpec(
        identity=replace(store.identity, dtype=dtype),
        class_names=store.class_names,
        classifier=store.classifier,
        splits=tuple(
            SplitSpec(name, store[name].ids, store[name].labels, store[name].n_views)
            for name in store.splits
        ),
        dtype=dtype,
        store_logits=store.header.store_logits,
        shard_rows=shard_rows or store.header.shard_rows,
        provenance=provenance,
    )


def _begin(target: Path, spec: StoreSpec, *, resume: bool, overwrite: bool) -> StoreWriter:
    if resume:
        try:
            return resume_store(target, spec)
        except StoreNotFoundError:
            pass  # nothing was begun yet
    return create_store(target, spec, overwrite=overwrite)


def _copy(store: Store, writer: StoreWriter, shard: Shard) -> None:
    split, rows = store[shard.split], (shard.start, shard.stop)
    failed = {row: why for row, why in split.failed.items() if shard.start <= row < shard.stop}
    features = split.features(*rows)
    views = split.views(*rows) if split.n_views else None
    # Out of range is infinite, and the writer names it; a warning would say less.
    with np.errstate(over="ignore"):
        writer.write_shard(
            shard,
            features=features,
            views=views,
            logits=split.logits(*rows) if store.header.store_logits else None,
            failures=failed,
        )
