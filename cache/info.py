"""What a store, finished or not, says about itself: for people, programs and dataset cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """As in the store, "train" or another."""
    n_samples: int
    """N."""
    n_views: int
    """V, 0 where none are stored."""
    n_shards: int
    """Shards in all."""
    n_recorded: int
    """Shards that are complete."""
    n_failed: int
    """Rows whose image could not be read, in the shards that are complete."""


@dataclass(frozen=True)
class StoreInfo:
    """A store in numbers and words."""

    path: Path
    """Where it stands, or will stand."""
    complete: bool
    """Whether it is finished."""
    header: Header
    """What it holds."""
    class_counts: tuple[int, ...] | None
    """(C) usable training rows; None while the store is unfinished."""
    splits: tuple[SplitInfo, ...]
    """In the order of the store."""
    n_bytes: int
    """What it takes up on its disk."""
    unreadable: Mapping[str, Mapping[str, str]] | None
    """Why, by split and id, an image could not be read; None while the store is unfinished."""

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
            "unreadable": None if self.unreadable is None else dict(self.unreadable),
            "provenance": dict(header.provenance),
        }

    def card(self) -> str:
        """Return a dataset card in Markdown."""
        return _card(self)


def describe_store(path: Path | str) -> StoreInfo:
    """Describe a store, finished or not.

    Raises:
        StoreNotFoundError: nothing stands at `path`.
        StoreFormatError: what stands there is no nolb store.
        CorruptStoreError: its header or its records are damaged.
    """
    path = Path(path)
    backend = backend_for(path)
    if backend.has_sealed(path):
        with open_store(path) as store:
            header, counts = store.header, tuple(store.class_counts.tolist())
            unreadable = {
                name: {store[name].ids[row]: why for row, why in store[name].failed.items()}
                for name in store.splits
            }
            records = {
                record.shard: record for name in store.splits for record in store[name].records
            }
    elif backend.has_draft(path):
        draft = backend.open_draft(path)
        header, counts, records = draft.header, None, draft.records()
        unreadable = None
    else:
        raise StoreNotFoundError(f"{path}: there is no store here, finished or not.")
    splits = []
    for split in header.splits:
        own = [record for shard, record in records.items() if shard.split == split.name]
        failed = sum(len(record.failures) for record in own)
        size = (split.n_samples, split.n_views, header.n_shards(split.name))
        splits.append(SplitInfo(split.name, *size, len(own), failed))
    sealed, size_on_disk = backend.has_sealed(path), backend.n_bytes(path)
    return StoreInfo(path, sealed, header, counts, tuple(splits), size_on_disk, unreadable)


def _card(info: StoreInfo) -> str:
    """The blocks of the card, an empty line between any two."""
    blocks = [
        _introduction(info),
        *_unfinished(info),
        _split_table(info),
        *_classes(info),
        "## Identity",
        _identity_table(info),
        "## Reading it",
        _example(info),
        _advice(info),
    ]
    return "\n\n".join(blocks) + "\n"


def _introduction(info: StoreInfo) -> str:
    header, name = info.header, _inline(info.path.name)
    return (
        f"# {name}\n\n"
        f"Features of {len(header.class_names)} classes from the frozen backbone of "
        f"`{_inline(header.identity.model)}`, {header.feature_width} {header.dtype} numbers an "
        f"image, with the old classifier's logits. Made with nolb; {_size(info.n_bytes)}."
    )


def _unfinished(info: StoreInfo) -> list[str]:
    if info.complete:
        return []
    recorded = sum(split.n_recorded for split in info.splits)
    of = sum(split.n_shards for split in info.splits)
    return [f"**Unfinished**: {recorded} of {of} shards are written."]


def _table(head: str, alignment: str, rows: Iterable[str]) -> str:
    return "\n".join([head, alignment, *rows])


def _split_table(info: StoreInfo) -> str:
    rows = (
        f"| {split.name} | {split.n_samples:,} | {split.n_failed:,} | {split.n_views} | "
        f"{split.n_recorded} of {split.n_shards} |"
        for split in info.splits
    )
    head = "| split | images | not readable | views | shards |"
    return _table(head, "|---|---:|---:|---:|---:|", rows)


def _classes(info: StoreInfo) -> list[str]:
    """The largest and smallest classes: all of them would drown the rest of the card."""
    if info.class_counts is None:
        return []
    names, counts = info.header.class_names, info.class_counts
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    smallest = max(1, counts[order[-1]])
    whole = len(order) <= 2 * _SHOWN_CLASSES
    top, rest = (order, []) if whole else (order[:_SHOWN_CLASSES], order[-_SHOWN_CLASSES:])
    rows = {c: f"| {_inline(names[c])} | {counts[c]:,} |" for c in (*top, *rest)}
    between = [f"| ... {len(order) - len(top) - len(rest)} more | |"] if rest else []
    return [
        f"The largest class has {counts[order[0]]:,} usable training images, the smallest "
        f"{counts[order[-1]]:,}: an imbalance of {counts[order[0]] / smallest:,.1f}.",
        _table(
            "| class | training images |",
            "|---|---:|",
            [*(rows[c] for c in top), *between, *(rows[c] for c in rest)],
        ),
    ]


def _identity_table(info: StoreInfo) -> str:
    identity = info.header.identity
    rows = [
        f"| {key} | `{_inline(value) or '-'}` |"
        for key, value in identity.to_json().items()
        if isinstance(value, str)
    ]
    samples = (
        f"| samples of {_inline(split)} | `{_inline(digest)}` |"
        for split, digest in identity.samples.items()
    )
    return _table("| field | value |", "|---|---|", [*rows, *samples])


def _example(info: StoreInfo) -> str:
    return (
        "```python\n"
        "from cache import open_store\n"
        "\n"
        f"with open_store({info.path.name!r}) as store:\n"
        '    features, labels = store["train"].features(), store["train"].labels\n'
        "```"
    )


def _advice(info: StoreInfo) -> str:
    return (
        "Every byte can be compared with the recorded sha256 sums: "
        f"`nolb store verify --full {_inline(info.path.name)}`. Plain Zarr 3 and HDF5 readers "
        "find the same arrays: `<split>/features`, `views`, `logits`, `labels`, `ids`, `failed`, "
        "and `classifier/weight`, `bias`."
    )


def _inline(text: str) -> str:
    """Text of strangers that stays within its cell."""
    return (
        " ".join(text.split())
        .replace("|", "\\|")
        .replace("`", "'")
        .replace("&", "&amp;")
        .replace("<", "&lt;")
    )


def _size(n_bytes: int) -> str:
    size = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004  # of the next unit
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
