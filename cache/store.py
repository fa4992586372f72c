"""The finished store, as its readers meet it."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.backends import backend_for
from cache.backends.contract import Sealed
from cache.catalogue import Catalogue, failures_of
from cache.classifier import Classifier
from cache.closable import Closable
from cache.damage import damaged
from cache.errors import CorruptStoreError, IncompleteStoreError, StoreError, StoreNotFoundError
from cache.identity import Identity, ids_digest
from cache.layout import ArrayLayout, Header
from cache.shards import (
    Shard,
    ShardRecord,
    array_digest,
    blocks_digest,
    finite_rows,
    indices_within,
    unfinished_message,
)
from cache.strict_json import JSON

_READERS = 2  # one reads while the other hashes; more would only hold more shards in memory


def open_store(path: Path | str) -> Store:
    """Open a finished store for reading.

    Raises:
        StoreNotFoundError: nothing stands at `path`.
        IncompleteStoreError: only its unfinished form does; the message counts what is missing.
        StoreFormatError: what stands there is no nolb store, or of a version not known here.
        CorruptStoreError: its header or its records are damaged.
    """
    path = Path(path)
    backend = backend_for(path)
    if not backend.has_sealed(path):
        if backend.has_draft(path):
            draft = backend.open_draft(path)
            recorded = draft.records()
            unfinished = [shard for shard in draft.header.shards() if shard not in recorded]
            raise IncompleteStoreError(unfinished_message(path, draft.header.shards(), unfinished))
        raise StoreNotFoundError(
            f"{path}: there is no store here; make one with: nolb extract ... --out {path}"
        )
    sealed = backend.open_sealed(path)
    try:
        return Store(path, sealed, Catalogue.read(sealed, path))
    except BaseException:
        sealed.close()
        raise


class Store(Closable):
    """A finished store: complete, and read-only.

    `store["train"]` is a `Split`, `"val" in store` tells whether there is one. Close the
    store, or use it as a context manager.
    """

    def __init__(self, path: Path, sealed: Sealed, catalogue: Catalogue) -> None:
        self.path = path
        self._sealed: Sealed | None = sealed
        self._catalogue = catalogue
        self._splits = {split.name: Split(self, split.name) for split in catalogue.header.splits}

    @property
    def sealed(self) -> Sealed:
        """The store as its backend reads it; StoreError once the store is closed."""
        if self._sealed is None:
            raise StoreError(f"{self.path} was closed before it was read; open it again.")
        return self._sealed

    @property
    def header(self) -> Header:
        """Everything that the store's attributes say."""
        return self._catalogue.header

    @property
    def identity(self) -> Identity:
        """What was extracted and by what."""
        return self._catalogue.header.identity

    @property
    def class_names(self) -> tuple[str, ...]:
        """(C) names in the order of the labels."""
        return self._catalogue.header.class_names

    @cached_property
    def class_counts(self) -> npt.NDArray[np.int64]:
        """(C,) usable training samples of each class: rows whose image failed do not count."""
        return read_only(np.array(self._catalogue.class_counts, dtype=np.int64))

    @cached_property
    def classifier(self) -> Classifier:
        """The old head.

        Raises:
            CorruptStoreError: it is not the one that was written.
        """
        return read_classifier(self.path, self.sealed, self._catalogue)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in their order."""
        return tuple(self._splits)

    @property
    def dtype(self) -> str:
        """Stored type of features and views: "float32" or "float16"."""
        return self._catalogue.header.dtype

    @property
    def provenance(self) -> MappingProxyType[str, JSON]:
        """Whatever its maker noted: command, versions, dates."""
        return MappingProxyType(dict(self._catalogue.header.provenance))

    def __getitem__(self, split: str) -> Split:
        """Return a split; StoreError where there is none of that name."""
        if split not in self._splits:
            have = ", ".join(self._splits)
            raise StoreError(f"{self.path} has no split '{split}'; it has {have}.")
        return self._splits[split]

    def __contains__(self, split: object) -> bool:
        return split in self._splits

    def __repr__(self) -> str:
        return f"<Store {self.path}: {', '.join(self._splits)}>"

    def close(self) -> None:
        """Let go of the files; arrays that were read stay valid."""
        if self._sealed is not None:
            self._sealed.close()
            self._sealed = None


class Split:
    """One split of a store; row i is sample i of its ordered list.

    Whatever is read is checked: labels, ids and shards against their sha256. Of a shard that is
    read in parts, the whole is compared once, and the parts with the format's own checksums.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store
        self._path = store.path
        self._header = store._catalogue.header
        self._about = self._header.split(name)
        self._arrays = self._header.shard_arrays(name)
        self.records: tuple[ShardRecord, ...] = store._catalogue.records[name]
        """The record of every shard, in the order of the rows."""
        self._compared: set[tuple[str, Shard]] = set()

    def __repr__(self) -> str:
        return f"<Split {self.name} of {self._path}: {self.n_samples} samples>"

    @property
    def shard_arrays(self) -> tuple[str, ...]:
        """Names of the arrays that are stored in shards: "features", "views", "logits"."""
        return tuple(self._arrays)

    @property
    def n_samples(self) -> int:
        """N."""
        return self._about.n_samples

    @property
    def n_views(self) -> int:
        """V, 0 where no views are stored."""
        return self._about.n_views

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) class of each sample.

        Raises:
            CorruptStoreError: the bytes are not those that were written.
        """
        layout = self._header.small_arrays()[f"{self.name}/labels"]
        labels = self._store.sealed.read(layout, slice(0, self.n_samples))
        if array_digest(labels) != self._about.labels:
            raise damaged(self._path, f"the labels of '{self.name}' are not those written")
        return read_only(labels)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """(N) paths relative to the data root.

        Raises:
            CorruptStoreError: the bytes are not those that were written.
        """
        ids = tuple(self._store.sealed.read_texts(f"{self.name}/ids"))
        if ids_digest(ids) != self._about.ids:
            raise damaged(self._path, f"the ids of '{self.name}' are not those written")
        return ids

    @cached_property
    def failed(self) -> dict[int, str]:
        """Row -> why its image could not be read; its features and logits are NaN."""
        return failures_of(self.records)

    def check_failed(self) -> None:
        """Compare the array "<split>/failed", which is there for plain readers, with the records.

        Raises:
            CorruptStoreError: the two differ.
        """
        texts = self._store.sealed.read_texts(f"{self.name}/failed")
        if {row: text for row, text in enumerate(texts) if text} != self.failed:
            raise damaged(self._path, f"'{self.name}/failed' is not what was written")

    @cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """(N,) True where the row did not fail."""
        usable = np.ones(self.n_samples, dtype=bool)
        usable[list(self.failed)] = False
        return read_only(usable)

    def features(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.floating[Any]]:
        """Return the features of the clean images, (n, D) in the stored type.

        Args:
            start: first row.
            stop: row after the last; None for all.

        Raises:
            CorruptStoreError: the bytes are not those that were written.
        """
        return self._read(self._arrays["features"], start, stop)

    def views(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.floating[Any]]:
        """Return the features of the views, (V, n, D) in the stored type.

        Those of `train` are random augmentations to fit on, those of other splits the fixed views
        to average with the clean image.

        Raises:
            StoreError: the split has no views.
            CorruptStoreError: the bytes are not those that were written.
        """
        if not self.n_views:
            raise StoreError(
                f"{self._path}: split '{self.name}' has no views; extract with "
                f"{'--views' if self.name == 'train' else '--test-views'}."
            )
        return self._read(self._arrays["views"], start, stop)

    def version(
        self, version: int, start: int = 0, stop: int | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """Return the features of one version of the images, (n, D): 0 is clean, v is view v - 1.

        It takes no more memory than that, however many views there are.

        Raises:
            StoreError: there is no such view.
            CorruptStoreError: the bytes are not those that were written.
        """
        if version == 0:
            return self.features(start, stop)
        if version > self.n_views:
            raise StoreError(
                f"{self._path}: split '{self.name}' has {self.n_views} views; there is no view "
                f"{version - 1}."
            )
        return self._read(self._arrays["views"], start, stop, view=version - 1)

    def logits(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32]:
        """Return the old classifier's logits of the clean images, (n, C) float32.

        A store that keeps none recomputes them from the stored features.

        Raises:
            CorruptStoreError: the bytes are not those that were written.
        """
        if "logits" in self._arrays:
            return self._read(self._arrays["logits"], start, stop)
        return self._store.classifier.logits(self.features(start, stop))

    def _read(
        self, array: ArrayLayout, start: int, stop: int | None, view: int | None = None
    ) -> npt.NDArray[Any]:
        """Read rows shard by shard, each checked while it is still in the processor's cache."""
        first, last, _ = slice(start, stop).indices(self.n_samples)
        rows = slice(first, max(first, last))
        touched = self.records[indices_within(rows, self._header.shard_rows)]
        if len(touched) == 1:
            return self._read_shard(array, touched[0], rows, view)
        of = array if view is None else array.one_view()
        shape = of.shape_of(rows.stop - rows.start)
        try:
            values = np.empty(shape, array.dtype)
        except MemoryError:
            size = math.prod(shape) * np.dtype(array.dtype).itemsize / 2**30
            raise StoreError(
                f"{self._path}: {size:,.0f} GiB of '{array.name}' do not fit the memory; read "
                "fewer rows at a time."
            ) from None

        def fill(record: ShardRecord) -> None:
            own = slice(max(record.start, rows.start), min(record.stop, rows.stop))
            target = slice(own.start - rows.start, own.stop - rows.start)
            values[of.index(target)] = self._read_shard(array, record, own, view)

        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(fill, touched))
        return values

    def _read_shard(
        self, array: ArrayLayout, record: ShardRecord, rows: slice, view: int | None
    ) -> npt.NDArray[Any]:
        """Read rows of one shard, of which all bytes have been compared with its sha256."""
        why = self._store.sealed.lost(array, record.shard)
        if why is not None:
            raise self._damage(array, record, why)
        if rows == record.shard.rows and view is None:
            values = self._store.sealed.read(array, rows)
            if array_digest(values) != record.arrays.get(array.name):
                raise self._damage(array, record)
            return values
        # Whoever reads a part trusts the whole: two shards that changed places have checksums that
        # are right in every part. It is read once; what changes later, the checksums tell.
        if (array.name, record.shard) not in self._compared:
            self.check_shard(array.name, record)
        values = self._store.sealed.read(array, rows, view)
        of = array if view is None else array.one_view()
        if not (finite_rows(values, of.row_axis) | ~self.usable[rows]).all():
            raise self._damage(array, record)
        return values

    def check_shard(self, name: str, record: ShardRecord) -> None:
        """Compare every byte of an array's shard with its record, one view at a time.

        Raises:
            CorruptStoreError: they differ.
        """
        array, rows, sealed = self._arrays[name], record.shard.rows, self._store.sealed
        if array.row_axis == 0:
            blocks = (sealed.read(array, rows) for _ in range(1))
        else:
            blocks = (sealed.read(array, rows, view) for view in range(array.shape[0]))
        shape = array.shape_of(record.shard.n_rows)
        why = sealed.lost(array, record.shard)
        if why or blocks_digest(array.dtype, shape, blocks) != record.arrays.get(name):
            raise self._damage(array, record, why)
        self._compared.add((name, record.shard))

    def _damage(
        self, array: ArrayLayout, record: ShardRecord, why: str | None = None
    ) -> CorruptStoreError:
        detail = f": {why}" if why else ""
        return damaged(
            self._path, f"'{array.name}' of {record.shard} is not what was written{detail}"
        )


def read_classifier(path: Path, sealed: Sealed, catalogue: Catalogue) -> Classifier:
    """Read the old head and compare it with the header's digest.

    Raises:
        CorruptStoreError: it is not the one that was written.
    """
    layouts = catalogue.header.small_arrays()
    of_all = slice(0, len(catalogue.header.class_names))
    weight = sealed.read(layouts["classifier/weight"], of_all)
    layout = layouts.get("classifier/bias")
    bias = sealed.read(layout, of_all) if layout else None
    attributes = sealed.attributes("classifier")
    scale, normalized = attributes.get("scale"), attributes.get("normalized")
    if isinstance(scale, float) and isinstance(normalized, bool):
        with suppress(StoreError):  # NaN where none was written
            classifier = Classifier(weight, bias, scale, normalized)
            if classifier.digest() == catalogue.header.classifier:
                return classifier
    raise damaged(path, "the old head is not the one written")


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array, guarded against changes: it is handed out more than once."""
    array.setflags(write=False)
    return array
