"""A store's dataset card, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.info import StoreInfo  # which has a card

_SHOWN_CLASSES = 10  # the largest and the smallest that a card names


def card(info: StoreInfo) -> str:
    """Return a dataset card in Markdown."""
    blocks = [  # an empty line between any two
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
        f"Features of {len(header.class_names)} classes from a frozen backbone, "
        f"{header.feature_width} {header.dtype} numbers an image, with the old classifier's "
        f"logits. Made with nolb; {_size(info.n_bytes)}."
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
    rows = (
        f"| {_inline(name)} | `{_inline(value) or '-'}` |"
        for name, value in info.header.identity.in_words().items()
    )
    return _table("| field | value |", "|---|---|", rows)


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
