"""The store of extracted tensors: create it, resume it, open it.

Names are imported when they are first used, so that `import cache` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import lazy_names

if TYPE_CHECKING:
    from cache.classifier import Classifier
    from cache.convert import convert_store
    from cache.errors import (
        CorruptStoreError,
        IdentityMismatchError,
        IncompleteStoreError,
        NolbError,
        NonFiniteError,
        StoreError,
        StoreExistsError,
        StoreFormatError,
        StoreLockedError,
        StoreNotFoundError,
    )
    from cache.identity import Identity, samples_digest
    from cache.info import StoreInfo, describe_store
    from cache.repair import Reopened, reopen_store, salvage_header
    from cache.shards import Shard, ShardRecord
    from cache.spec import SplitSpec, StoreSpec
    from cache.store import Split, Store, open_store
    from cache.verify import Problem, verify_store
    from cache.writer import StoreWriter, create_store, join_store, resume_store

__all__ = [
    "Classifier",
    "CorruptStoreError",
    "Identity",
    "IdentityMismatchError",
    "IncompleteStoreError",
    "NolbError",
    "NonFiniteError",
    "Problem",
    "Reopened",
    "Shard",
    "ShardRecord",
    "Split",
    "SplitSpec",
    "Store",
    "StoreError",
    "StoreExistsError",
    "StoreFormatError",
    "StoreInfo",
    "StoreLockedError",
    "StoreNotFoundError",
    "StoreSpec",
    "StoreWriter",
    "convert_store",
    "create_store",
    "describe_store",
    "join_store",
    "open_store",
    "reopen_store",
    "resume_store",
    "salvage_header",
    "samples_digest",
    "verify_store",
]

_HOMES = {
    "Classifier": "cache.classifier",
    "CorruptStoreError": "cache.errors",
    "Identity": "cache.identity",
    "IdentityMismatchError": "cache.errors",
    "IncompleteStoreError": "cache.errors",
    "NolbError": "cache.errors",
    "NonFiniteError": "cache.errors",
    "Problem": "cache.verify",
    "Reopened": "cache.repair",
    "Shard": "cache.shards",
    "ShardRecord": "cache.shards",
    "Split": "cache.store",
    "SplitSpec": "cache.spec",
    "Store": "cache.store",
    "StoreError": "cache.errors",
    "StoreExistsError": "cache.errors",
    "StoreFormatError": "cache.errors",
    "StoreInfo": "cache.info",
    "StoreLockedError": "cache.errors",
    "StoreNotFoundError": "cache.errors",
    "StoreSpec": "cache.spec",
    "StoreWriter": "cache.writer",
    "convert_store": "cache.convert",
    "create_store": "cache.writer",
    "describe_store": "cache.info",
    "join_store": "cache.writer",
    "open_store": "cache.store",
    "reopen_store": "cache.repair",
    "resume_store": "cache.writer",
    "salvage_header": "cache.repair",
    "samples_digest": "cache.identity",
    "verify_store": "cache.verify",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted(__all__)
