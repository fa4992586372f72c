"""Names, shapes and types on disk, and the header that describes them.

Legend: N samples, C classes, D feature width, V views.

    attributes          format, version, identity, class_names, class_counts, ...
    classifier/         weight (C, D) float32, bias (C,) float32 or absent
    <split>/features    (N, D) float32 or float16
    <split>/views       (V, N, D), where there are views
    <split>/logits      (N, C) float32, unless they are recomputed from classifier/
    <split>/labels      (N,) int64
    <split>/ids         (N,) string
    <split>/failed      (N,) string, "" for a row that is fine
    <split>/records     (S,) string, one JSON record for each shard
    catalogue           (1,) string, attributes and records once more: repairs read it
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError, StoreFormatError
from cache.identity import Identity, ids_digest
from cache.records import Check, Count, Record
from cache.shards import Shard, array_digest, shard_at, shards_of
from cache.spec import SplitSpec, StoreSpec, is_split_name
from cache.strict_json import JSON

FORMAT = "nolb"
VERSION = 2
SPARE = "catalogue"
STRING = "string"  # the layout's word for variable-length UTF-8 text

AtLeastOne = Annotated[int, Check("1 or more", lambda value: value > 0)]

_CHUNK_BYTES = 1 << 20  # large enough to read at full speed, small enough to read a part of a shard
_SMALL_CHUNK_ROWS = 1 << 17  # labels, ids and failed: 1 MiB of int64


@dataclass(frozen=True)
class ArrayLayout:
    """One array on disk."""

    path: str
    """Name from the root, as "train/features"."""
    shape: tuple[int, ...]
    """As in the legend above."""
    dtype: str
    """A name that numpy knows, or "string"."""
    row_axis: int = 0
    """The axis of samples; 1 in (V, N, D)."""
    chunk: tuple[int, ...] = ()
    """Unit of checksum and of partial reading."""
    shard: tuple[int, ...] | None = None
    """Unit of writing, a whole number of chunks; None for small arrays that are written once."""

    @property
    def split(self) -> str:
        """The group that the array lies in."""
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """The name within the group."""
        return self.path.partition("/")[2]

    def one_view(self) -> ArrayLayout:
        """Return the layout of one view (N, D) of an array (V, N, D)."""
        return ArrayLayout(self.path, self.shape[1:], self.dtype)

    def index(
        self, rows: slice | npt.NDArray[np.bool_], view: int | None = None
    ) -> tuple[Any, ...]:
        """Return the index that selects `rows`, a slice or a mask, whatever the row axis.

        With `view` it selects them of one view of an array (V, N, D).
        """
        if view is not None:
            return (view, rows)
        return (*(slice(None),) * self.row_axis, rows)

    def shape_of(self, n_rows: int) -> tuple[int, ...]:
        """Return the shape that the array has for as many rows."""
        return (*self.shape[: self.row_axis], n_rows, *self.shape[self.row_axis + 1 :])


@dataclass(frozen=True)
class SplitHeader(Record):
    """What the header says about a split.

    Raises:
        StoreError: it cannot be called so.
    """

    name: str
    """"train", "test" or another."""
    n_samples: AtLeastOne
    """N."""
    n_views: Count
    """V, 0 for none."""
    ids: str
    """`cache.identity.ids_digest`."""
    labels: str
    """`cache.shards.array_digest`."""

    @classmethod
    def of(cls, split: SplitSpec) -> SplitHeader:
        """Describe a split."""
        digests = ids_digest(split.ids), array_digest(split.labels)
        return cls(split.name, len(split.ids), split.n_views, *digests)

    def __post_init__(self) -> None:
        """Refuse a name that would lead elsewhere."""
        if not is_split_name(self.name):
            raise StoreError(f"A split cannot be called '{self.name:.40}'.")


@dataclass(frozen=True)
class Header(Record):
    """All that must be known to read a store; it stands in the root's attributes."""

    identity: Identity
    """What was extracted and by what."""
    class_names: tuple[str, ...]
    """(C) names in the order of the labels."""
    feature_width: AtLeastOne
    """D."""
    has_bias: bool
    """Whether the old head has a bias."""
    splits: tuple[SplitHeader, ...]
    """In their order."""
    store_logits: bool
    """Whether the old logits are stored; otherwise they are recomputed."""
    shard_rows: AtLeastOne
    """Rows of a shard; the last one of a split may be shorter."""
    provenance: Mapping[str, JSON] = field(hash=False)
    """Whatever the maker noted."""

    @classmethod
    def of(cls, spec: StoreSpec) -> Header:
        """Describe a store that is about to be written."""
        return cls(
            identity=spec.identity,
            class_names=spec.class_names,
            feature_width=spec.classifier.weight.shape[1],
            has_bias=spec.classifier.bias is not None,
            splits=tuple(SplitHeader.of(split) for split in spec.splits),
            store_logits=spec.store_logits,
            shard_rows=spec.shard_rows,
            provenance=spec.provenance,
        )

    def to_json(self) -> dict[str, JSON]:
        """Return the header as a JSON object."""
        return {"format": FORMAT, "version": VERSION, **super().to_json()}

    @classmethod
    def from_json(cls, value: object, where: str) -> Self:
        """Read what `to_json` wrote; `where` names the store in the error.

        Raises:
            StoreFormatError: this is no header of ours, or one of another version.
        """
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            raise StoreFormatError(f"{where}: this is no nolb store (no attribute format = nolb).")
        if value.get("version") != VERSION:
            found = reprlib.repr(value.get("version"))
            raise StoreFormatError(
                f"{where}: the store has version {found}, but this nolb reads version {VERSION}. "
                "Install the nolb that wrote it, or extract again."
            )
        rest = {key: value[key] for key in value if key not in ("format", "version")}
        return super().from_json(rest, f"the header of {where}")

    def __post_init__(self) -> None:
        """Refuse a store of nothing."""
        if not self.class_names or not self.splits:
            raise StoreError("A store has classes and splits.")

    @property
    def dtype(self) -> str:
        """Stored type of features and views: "float32" or "float16"."""
        return self.identity.dtype

    @property
    def classifier(self) -> str:
        """`cache.Classifier.digest` of the old head."""
        return self.identity.classifier

    def split(self, name: str) -> SplitHeader:
        """Return one split's part."""
        return next(split for split in self.splits if split.name == name)

    def differences(self, other: Header) -> list[str]:
        """Name what keeps the two from being the same extraction, as "field: this X, that Y".

        The size of the shards and the provenance do not.
        """
        found = self.identity.differences(other.identity)
        if self.class_names != other.class_names:
            found.append("class_names: their names or their order differ")
        if self.store_logits != other.store_logits:
            found.append(f"store_logits: this {self.store_logits}, that {other.store_logits}")
        these, those = ({s.name: s.n_views for s in each.splits} for each in (self, other))
        found.extend(
            f"views of '{name}': this {these[name]}, that {those[name]}"
            for name in these
            if name in those and these[name] != those[name]
        )
        return found

    def shards(self, split: str | None = None) -> tuple[Shard, ...]:
        """Return the shards of one split or of all, in their order."""
        return tuple(
            shard
            for each in self.splits
            if split in (None, each.name)
            for shard in shards_of(each.n_samples, self.shard_rows, each.name)
        )

    def has(self, shard: Shard) -> bool:
        """Tell whether a shard is one of `shards`, without making the others."""
        return any(
            0 <= shard.start < each.n_samples
            and shard == shard_at(shard.index, each.n_samples, self.shard_rows, each.name)
            for each in self.splits
        )

    def n_shards(self, split: str) -> int:
        """Return the number of shards of one split, without making them."""
        return -(-self.split(split).n_samples // self.shard_rows)

    def shard_arrays(self, split: str) -> dict[str, ArrayLayout]:
        """Return the arrays that are written shard by shard, by their name within the split."""
        of, clean = self.split(split), (self.split(split).n_samples, self.feature_width)
        arrays = [self._sharded(f"{split}/features", clean, self.dtype)]
        if of.n_views:
            arrays.append(self._sharded(f"{split}/views", (of.n_views, *clean), self.dtype))
        if self.store_logits:
            scores = (of.n_samples, len(self.class_names))
            arrays.append(self._sharded(f"{split}/logits", scores, "float32"))
        return {array.name: array for array in arrays}

    def _sharded(self, path: str, shape: tuple[int, ...], dtype: str) -> ArrayLayout:
        *leading, n_rows, width = shape
        shard_rows = min(self.shard_rows, n_rows)
        rows = chunk_rows(shard_rows, width * np.dtype(dtype).itemsize)
        ones = (1,) * len(leading)
        return ArrayLayout(
            path, shape, dtype, len(leading), (*ones, rows, width), (*ones, shard_rows, width)
        )

    def small_arrays(self) -> dict[str, ArrayLayout]:
        """Return the arrays that are written once, by their path from the root."""
        n_classes = len(self.class_names)
        arrays = [_whole("classifier/weight", (n_classes, self.feature_width), "float32")]
        if self.has_bias:
            arrays.append(_whole("classifier/bias", (n_classes,), "float32"))
        for split in self.splits:
            shape = (split.n_samples,)
            arrays += [
                _whole(f"{split.name}/labels", shape, "int64"),
                _whole(f"{split.name}/ids", shape, STRING),
                _whole(f"{split.name}/failed", shape, STRING),
                _whole(f"{split.name}/records", (self.n_shards(split.name),), STRING),
            ]
        arrays.append(_whole(SPARE, (1,), STRING))
        return {array.path: array for array in arrays}

    def all_arrays(self) -> dict[str, ArrayLayout]:
        """Return every array of the store by its path from the root."""
        sharded = (self.shard_arrays(split.name).values() for split in self.splits)
        return {array.path: array for each in sharded for array in each} | self.small_arrays()


def _whole(path: str, shape: tuple[int, ...], dtype: str) -> ArrayLayout:
    chunk = (min(shape[0], _SMALL_CHUNK_ROWS), *shape[1:])
    return ArrayLayout(path, shape, dtype, chunk=chunk)


def chunk_rows(shard_rows: int, row_bytes: int) -> int:
    """Return the rows of a chunk: the largest divisor of the shard that fits the chunk's size.

    Shards are whole numbers of chunks, so that no chunk is ever written twice. Where only a
    splinter divides the shard (as with a prime number of rows), the shard is one chunk.
    """
    wanted = max(1, min(shard_rows, _CHUNK_BYTES // row_bytes))
    fitting = next(rows for rows in range(wanted, 0, -1) if shard_rows % rows == 0)
    return fitting if fitting * 4 >= wanted else shard_rows
