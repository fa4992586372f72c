"""Words and tables of results: sentences that every command says alike, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from pipeline.metrics import IN_PERCENT, METRICS, Scores

ZEROS_COUNTED = "* Classes of zero recall count as 0.1 % in this mean"
"""What a star means."""


def measured_on(split: str, n_samples: int, n_failed: int = 0, test_views: int = 0) -> str:
    """The split, its size, and what was classified of each image; without the full stop."""
    left_out = f"; {n_failed:,} more could not be read" if n_failed else ""
    views = f", mean feature of {1 + test_views} views each" if test_views else ""
    return f"In %, on the {split} split ({n_samples:,} images{views}{left_out})"


def left_out(n_classes: int, without_samples: int, split: str) -> list[str]:
    """Classes of which a split has no images, where there are any."""
    if not without_samples:
        return []
    return [
        f"{without_samples} of {n_classes} classes have no images in the {split} split and are in "
        "no mean."
    ]


def star_note(zeros: bool) -> list[str]:
    """What a star means, where there is one."""
    return [f"{ZEROS_COUNTED}."] if zeros else []


def scores_in_words(scores: Scores) -> str:
    """The metrics in one line, as `accuracy 41.3 %, geometric mean 16.4*, ...`."""
    zeros = scores.substituted_zeros > 0
    parts = []
    for name in IN_PERCENT:
        metric = METRICS[name]
        unit = " %" if name == "accuracy" else ""  # said once, where the line begins
        value = metric.text(getattr(scores, name), zeros=zeros)
        parts.append(f"{metric.heading.lower()} {value}{unit}")
    return ", ".join(parts)


def terminal_table() -> Table:
    """An empty table, narrow enough for three classifiers in 80 columns."""
    return Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left",
        caption_style="dim",
    )  # fmt: skip


def markdown_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], rules: Sequence[str]
) -> str:
    """A table in Markdown.

    Args:
        headings: of the columns.
        rows: cells, escaped where they hold other people's text.
        rules: of each column, `---` for text and `---:` for numbers.
    """
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, rules, *rows))


def markdown_text(text: str) -> str:
    """Text without what Markdown would read as a column, an emphasis or a tag."""
    escaped = "".join(f"\\{c}" if c in "\\|*_`" else c for c in text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV: numbers with ten digits, nothing for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow(f"{v:.10g}" if isinstance(v, float) else v for v in row)
    return text.getvalue()
