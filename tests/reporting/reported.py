"""A small store and head whose every number a reader can count, with hostile names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cache import Store
from pipeline.heads import Head
from pipeline.reporting import render_page
from pipeline.stages.report import Report
from tests.measured_stores import planted_head, planted_store

NASTY = "<script>document.title='owned'</script>"
NAMES = ("ant", NASTY, "eel & co", 'quo"te')

# 150 ants, 40 of the nasty class, 19 eels, 5 quotes: many, medium, few, few.
COUNTS = (150, 40, 19, 5)

# Old logits are the features. Eel and quote are always taken for an ant by the old head; the new
# head, whose last two rows are tripled, finds eels and every second quote, and loses one ant.
TEST = np.array(
    [
        [4, 0, 0, 0], [4, 1, 0, 0], [3, 0, 0, 0], [3, 0, 1.5, 0],
        [0, 4, 0, 0], [1, 4, 0, 0], [0, 3, 0, 0], [0, 3, 0, 0],
        [3, 0, 2, 0], [3, 0, 2, 0], [4, 0, 3, 0], [3, 0, 1.5, 0],
        [3, 0, 0, 2], [4, 0, 0, 1], [3, 0, 0, 2], [4, 0, 0, 1],
    ],
    np.float32,
)  # fmt: skip
LABELS = np.repeat(np.arange(4), 4)
OLD_HITS = (4, 4, 0, 0)
NEW_HITS = (3, 4, 4, 2)


def reported_store(folder: Path, *, val: bool = False, failed: bool = False) -> Store:
    """The store; with `val` the test rows stand there too."""
    train = np.repeat(np.eye(4, dtype=np.float32), COUNTS, axis=0), np.repeat(range(4), COUNTS)
    planted = {"train": train, "test": (TEST, LABELS)} | ({"val": (TEST, LABELS)} if val else {})
    failures = {"test": {15: "truncated"}} if failed else None
    return planted_store(folder, planted, class_names=NAMES, failures=failures)


def page_of(report: Report) -> str:
    """The text of a report's page."""
    return render_page(
        report.content, report.lost, sweep=report.sweep, cell_hits=report.cell_hits,
        thumbnails=report.thumbnails,
    )  # fmt: skip


def reported_head(store: Store) -> Head:
    return planted_head(store, np.diag([1.0, 1.0, 3.0, 3.0]))
