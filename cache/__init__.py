"""The store of extracted tensors: create it, resume it, open it.

Names are imported when they are first used, so that `import cache` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import lazy_names

if TYPE_CHECKING:
    from cache.classifier import Classifier as Classifier
    from cache.convert import convert_store as convert_store
    from cache.convert import copy_store as copy_store
    from cache.convert import spec_of as spec_of
    from cache.errors import CorruptStoreError as CorruptStoreError
    from cache.errors import IdentityMismatchError as IdentityMismatchError
    from cache.errors import IncompleteStoreError as IncompleteStoreError
    from cache.errors import NolbError as NolbError
    from cache.errors import NonFiniteError as NonFiniteError
    from cache.errors import StoreError as StoreError
    from cache.errors import StoreExistsError as StoreExistsError
    from cache.errors import StoreFormatError as StoreFormatError
    from cache.errors import StoreLockedError as StoreLockedError
    from cache.errors import StoreNotFoundError as StoreNotFoundError
    from cache.identity import Identity as Identity
    from cache.identity import samples_digest as samples_digest
    from cache.info import StoreInfo as StoreInfo
    from cache.info import describe_store as describe_store
    from cache.repair import Reopened as Reopened
    from cache.repair import reopen_store as reopen_store
    from cache.repair import salvage_header as salvage_header
    from cache.shards import Shard as Shard
    from cache.shards import ShardRecord as ShardRecord
    from cache.spec import SplitSpec as SplitSpec
    from cache.spec import StoreSpec as StoreSpec
    from cache.store import Split as Split
    from cache.store import Store as Store
    from cache.store import open_store as open_store
    from cache.verify import Problem as Problem
    from cache.verify import verify_store as verify_store
    from cache.writer import StoreWriter as StoreWriter
    from cache.writer import create_store as create_store
    from cache.writer import join_store as join_store
    from cache.writer import resume_store as resume_store

__all__, __getattr__, __dir__ = lazy_names(__name__)
