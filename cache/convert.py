"""The same features in another store: another format, type or size of shards, another head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache.errors import StoreError, StoreNotFoundError
from cache.shards import Shard
from cache.spec import SplitSpec, StoreSpec
from cache.store import Store, open_store
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
    with open_store(source) as store:
        spec = spec_of(store)
        if shard_rows is not None:
            spec = replace(spec, shard_rows=shard_rows)
        if dtype is not None and dtype != store.dtype:
            spec = _in_type(spec, dtype, store.path)
        return copy_store(
            store, target, spec, resume=resume, overwrite=overwrite, on_shard=on_shard
        )


def copy_store(
    store: Store,
    target: Path | str,
    spec: StoreSpec,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_shard: Callable[[int, int], None] | None = None,
) -> Store:
    """Write the features and views of a store, shard by shard, into another one.

    Args:
        store: where they come from; every byte that is taken over is verified.
        target: the store to create.
        spec: what it will be: `spec_of(store)`, changed by `dataclasses.replace`; the samples and
            their views must stay.
        resume: go on with an interrupted copy; begin one where there is none.
        overwrite: replace what stands at `target`, once the new store is complete.
        on_shard: called with the number of shards written, and of all that were missing.

    Returns:
        The new store, open.

    Raises:
        StoreError: the two are the same, `spec` has other samples or views, or wants logits that
            `store` does not keep; or `target` exists or cannot be written.
        CorruptStoreError: the store is damaged.
    """
    target = Path(target)
    if store.path.absolute() == target.absolute():
        raise StoreError(f"{target} cannot be copied onto itself; choose another name.")
    _require_copyable(store, spec)
    with _begin(target, spec, resume=resume, overwrite=overwrite) as writer:
        missing = writer.missing()
        for number, shard in enumerate(missing, start=1):
            _copy(store, writer, shard)
            if on_shard is not None:
                on_shard(number, len(missing))
        return writer.seal()


def spec_of(store: Store) -> StoreSpec:
    """Return what `create_store` was told, so that the same store could be written again."""
    header = store.header
    return StoreSpec(
        identity=header.identity,
        class_names=header.class_names,
        classifier=store.classifier,
        splits=tuple(
            SplitSpec(name, store[name].ids, store[name].labels, store[name].n_views)
            for name in store.splits
        ),
        store_logits=header.store_logits,
        shard_rows=header.shard_rows,
        provenance=header.provenance,
    )


def _in_type(spec: StoreSpec, dtype: str, path: Path) -> StoreSpec:
    """The specification of a store whose features are of another type."""
    if dtype == "float32":
        raise StoreError(
            f"{path} holds {spec.dtype}: float32 would promise digits that are gone. Extract again "
            "with --dtype float32."
        )
    return replace(
        spec,
        identity=replace(spec.identity, dtype=dtype),
        provenance={**spec.provenance, "converted": f"{spec.dtype} to {dtype}"},
    )


def _require_copyable(store: Store, spec: StoreSpec) -> None:
    """Refuse what a copy cannot give: other samples or views, and logits of another head."""
    views = {split.name: split.n_views for split in spec.splits}
    if (
        spec.identity.samples != store.identity.samples
        or views != {name: store[name].n_views for name in store.splits}
    ):  # fmt: skip
        raise StoreError(f"{store.path} has other samples or views than a copy of it shall have.")
    same_head = store.header.classifier == spec.classifier.digest()
    if spec.store_logits and not (same_head and store.header.store_logits):
        raise StoreError(
            f"{store.path} keeps no logits of that head: copy it with store_logits=False."
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
    # Out of range is infinite, and the writer names it; a warning would say less.
    with np.errstate(over="ignore"):
        writer.write_shard(
            shard,
            features=split.features(*rows),
            views=split.views(*rows) if split.n_views else None,
            logits=split.logits(*rows) if writer.spec.store_logits else None,
            failures={row: split.failed[row] for row in range(*rows) if row in split.failed},
        )
