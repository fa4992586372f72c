"""What a store, finished or not, says about itself: for people, programs and dataset cards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.backends import backend_for
from cache.errors import StoreNotFoundError
from cache.layout import Header
from cache.store import open_store
from cache.strict_json import JSON

_SHOWN_CLASSES = 10  # the largest and the smallest that a card names


@dataclass(frozen=True)
class SplitInfo:
    """One split in numbers."""

    name: str
    n_samples: int
    n_views: int
    n_shards: int
    n_recorded: int
    """Shards that are complete."""
    n_failed: int
    """Rows whose image could not be read, in the shards that are complete."""


@dataclass(frozen=True)
class StoreInfo:
    """A store in numbers and words."""

    path: Path
    complete: bool
    header: Header
    class_counts: tuple[int, ...] | None
    """(C) usable training rows; None while the store is unfinished."""
    splits: tuple[SplitInfo, ...]
    n_bytes: int
    """What it takes up on its disk."""

    def to_json(self) -> dict[str, JSON]:
        """Return all of it as plain JSON values."""
        header = self.header
        splits: dict[str, JSON] = {
            split.name: {key: value for key, value in vars(split).items() if key != "name"}
            for split in self.splits
        }
        return {
            "path": str(self.path),
            "complete": self.complete,
            "bytes": self.n_bytes,
            "identity": header.identity.to_json(),
            "dtype": header.dtype,
            "feature_width": header.feature_width,
            "logits": "full" if header.store_logits else "recompute",
            "shard_rows": header.shard_rows,
            "splits": splits,
            "class_names": list(header.class_names),
            "class_counts": None if self.class_counts is None else list(self.class_counts),
            "provenance": dict(header.provenance),
        }

    def card(self) -> str:
        """Return a dataset card in Markdown."""
        return "\n".join(_card(self)) + "\n"


def describe_store(path: Path | str) -> StoreInfo:
    """Describe a store, finished or not.

    Raises:
        StoreNotFoundError: nothing stands at ``path``.
        StoreFormatError: what stands there is no nolb store.
        CorruptStoreError: its header or its records are damaged.
    """
    path = Path(path)
    backend = backend_for(path)
    if backend.has_sealed(path):
        with open_store(path) as store:
            header, counts = store.header, tuple(store.class_counts.tolist())
            records = {
                record.shard: record for name in store.splits for record in store[name].records
            }
    elif backend.has_draft(path):
        draft = backend.open_draft(path)
        header, counts, records = draft.header, None, draft.records()
    else:
        raise StoreNotFoundError(f"{path}: there is no store here, finished or not.")
    splits = []
    for split in header.splits:
        own = [record for shard, record in records.items() if shard.split == split.name]
        failed = sum(len(record.failures) for record in own)
        size = (split.n_samples, split.n_views, header.n_shards(split.name))
        splits.append(SplitInfo(split.name, *size, len(own), failed))
    return StoreInfo(
        path, backend.has_sealed(path), header, counts, tuple(splits), backend.n_bytes(path)
    )


def _card(info: StoreInfo) -> Iterator[str]:
    header, identity = info.header, info.header.identity
    yield f"# {_inline(info.path.name)}"
    yield ""
    yield (
        f"Features of {len(header.class_names)} classes from the frozen backbone of "
        f"`{_inline(identity.model)}`, {header.feature_width} {header.dtype} numbers an image, "
        f"with the old classifier's logits. Made with nolb; {_size(info.n_bytes)}."
    )
    if not info.complete:
        recorded = sum(split.n_recorded for split in info.splits)
        of = sum(split.n_shards for split in info.splits)
        yield ""
        yield f"**Unfinished**: {recorded} of {of} shards are written."
    yield ""
    yield "| split | images | not readable | views | shards |"
    yield "|---|---:|---:|---:|---:|"
    for split in info.splits:
        yield (
            f"| {split.name} | {split.n_samples:,} | {split.n_failed:,} | {split.n_views} | "
            f"{split.n_recorded} of {split.n_shards} |"
        )
    if info.class_counts is not None:
        yield from _class_table(header.class_names, info.class_counts)
    yield ""
    yield "## Identity"
    yield ""
    yield "| field | value |"
    yield "|---|---|"
    for key, value in identity.to_json().items():
        if isinstance(value, dict):
            for split_name, digest in value.items():
                yield f"| samples of {_inline(split_name)} | `{_inline(str(digest))}` |"
        else:
            yield f"| {key} | `{_inline(str(value)) or '-'}` |"
    yield ""
    yield "## Reading it"
    yield ""
    yield "```python"
    yield "from cache import open_store"
    yield ""
    yield f"with open_store({str(info.path.name)!r}) as store:"
    yield '    features, labels = store["train"].features(), store["train"].labels'
    yield "```"
    yield ""
    yield (
        "Every byte can be compared with the recorded sha256 sums: "
        f"`nolb store verify --full {_inline(info.path.name)}`. Plain Zarr 3 and HDF5 readers "
        "find the same arrays: `<split>/features`, `views`, `logits`, `labels`, `ids`, `failed`, "
        "and `classifier/weight`, `bias`."
    )


def _class_table(names: tuple[str, ...], counts: tuple[int, ...]) -> Iterator[str]:
    """The largest and smallest classes: all of them would drown the rest of the card."""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    smallest = max(1, counts[order[-1]])
    yield ""
    yield (
        f"The largest class has {counts[order[0]]:,} usable training images, the smallest "
        f"{counts[order[-1]]:,}: an imbalance of {counts[order[0]] / smallest:,.1f}."
    )
    yield ""
    yield "| class | training images |"
    yield "|---|---:|"
    whole = len(order) <= 2 * _SHOWN_CLASSES
    top, rest = (order, []) if whole else (order[:_SHOWN_CLASSES], order[-_SHOWN_CLASSES:])
    for c in top:
        yield f"| {_inline(names[c])} | {counts[c]:,} |"
    if rest:
        yield f"| ... {len(order) - len(top) - len(rest)} more | |"
    for c in rest:
        yield f"| {_inline(names[c])} | {counts[c]:,} |"


def _inline(text: str) -> str:
    """Text of strangers that stays within its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def _size(n_bytes: int) -> str:
    size = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - of the next unit
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
