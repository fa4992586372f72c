"""The report's figures and tables as files for papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.figures import recall_bars, temperature_heatmaps
from pipeline.metrics import IN_PERCENT, METRICS, Scores, score_hits
from pipeline.reporting.confusion import confusion_rows
from pipeline.reporting.content import Contender, Content
from pipeline.sweeping.sweep import Sweep
from pipeline.tables import scores_markdown, sweep_markdown, table7_markdown
from pipeline.writing import (
    csv_text,
    left_out,
    markdown_table,
    markdown_text,
    measured_on,
    star_note,
)

FIGURE_SUFFIXES = (".png", ".svg")

GROUPED_CLASSES = 10
"""Classes in the figure of before and after, as many as the paper's Figure 2 shows."""

WHOLE_TABLE_UP_TO = 49
"""Cells up to which a Markdown table lists the plane; of more, those of the paper's Table 7."""


def write_for_papers(content: Content, sweep: Sweep | None, folder: Path) -> list[Path]:
    """Write tables as CSV and Markdown and figures as PNG and SVG.

    Args:
        content: what was predicted.
        sweep: the temperature plane, if there is one.
        folder: exists; files of the same names are replaced.

    Returns:
        The files, in the order of the paper.
    """
    texts = {
        "scores.md": scores_markdown(_named(content)),
        "improvement.md": improvement_markdown(content),
        "scores.csv": csv_text(_score_rows(content)),
        "recalls.csv": csv_text(_recall_rows(content)),
        "confusions.csv": csv_text(
            [("classifier", "class", "taken_for", "images"), *confusion_rows(content)]
        ),
    }
    if sweep is not None:
        cells = sweep.cells()
        whole = len(cells) <= WHOLE_TABLE_UP_TO
        texts["temperatures.md"] = sweep_markdown(sweep) if whole else table7_markdown(sweep)
        texts["sweep.csv"] = csv_text([list(cells[0]), *(list(cell.values()) for cell in cells)])
    written = []
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
        written.append(folder / name)
    return written + _write_figures(content, sweep, folder)


def improvement_markdown(content: Content) -> str:
    """The gains over the old head, in the form of Table 6."""
    columns = IN_PERCENT[1:]
    rows = []
    for contender in content.contenders:
        zeros = contender.scores.substituted_zeros > 0
        cells = [contender.name]
        for column in columns:
            before, value = (getattr(k.scores, column) for k in (content.old, contender))
            arrow = "\N{DOWNWARDS ARROW}" if value < before else "\N{UPWARDS ARROW}"
            gain = "" if contender is content.old else f" ({abs(value - before):.2f} {arrow})"
            text = METRICS[column].text(value, zeros=zeros, decimals=2)
            cells.append(f"{markdown_text(text)}{gain}")
        rows.append(cells)
    headings = ["Method", "G-Mean", "H-Mean", "Lowest Recall"]  # the paper's words
    table = markdown_table(headings, rows, ["---", *["---:"] * len(columns)])
    zeros = any(k.scores.substituted_zeros for k in content.contenders)
    scores = content.old.scores
    where = measured_on(scores.split, scores.n_samples, scores.n_failed, scores.test_views)
    missing = left_out(len(scores.class_names), scores.classes_without_samples, scores.split)
    stars = map(markdown_text, star_note(zeros))
    notes = [f"{where}.", *missing, *stars, *content.notes]
    return table + "".join(f"\n{note}\n" for note in notes)


def _write_figures(content: Content, sweep: Sweep | None, folder: Path) -> list[Path]:
    """Figures 1 to 3 and the temperature plane, in each format."""
    named, counts = _named(content), content.class_counts
    worst = _lowest_before(content)
    written = []
    for suffix in FIGURE_SUFFIXES:
        one = folder / f"figure-1{suffix}"
        written.append(recall_bars({content.old.name: content.old.scores}, counts, one))
        written.append(
            recall_bars(
                {
                    f"{k.name}, on these classes": _scores_of(content, k, worst)
                    for k in (content.old, content.after)
                },
                counts[worst],
                folder / f"figure-2{suffix}",
            )
        )
        written.append(recall_bars(named, counts, folder / f"figure-3{suffix}"))
        if sweep is not None:
            written.append(temperature_heatmaps(sweep, folder / f"temperatures{suffix}"))
    return written


def _named(content: Content) -> dict[str, Scores]:
    """Scores by the names that tables and figures show."""
    t_old, t_new = content.temperatures
    return {
        content.old.name: content.old.scores,
        content.new.name: content.new.scores,
        f"Ensemble ({t_old:g}, {t_new:g})": content.ensemble.scores,
    }


def _lowest_before(content: Content) -> list[int]:
    """Classes of Figure 2: the lowest with the old head, by index."""
    recalls = content.old.scores.recalls
    scored = [(recall, c) for c, recall in enumerate(recalls) if recall is not None]
    return sorted(c for _, c in sorted(scored)[:GROUPED_CLASSES])


def _scores_of(content: Content, contender: Contender, classes: Sequence[int]) -> Scores:
    """A classifier's scores on the images of some classes alone."""
    samples = [contender.scores.class_samples[c] for c in classes]
    names = [content.class_names[c] for c in classes]
    counts = content.class_counts[list(classes)]
    return score_hits(contender.hits[list(classes)], samples, counts, names, content.split)


def _score_rows(content: Content) -> list[tuple[Any, ...]]:
    """One row for each classifier."""
    rows: list[tuple[Any, ...]] = [
        ("classifier", *IN_PERCENT, "lowest_low", "lowest_high", "lowest_class",
         "substituted_zeros", *content.old.scores.groups, "split", "n_samples")
    ]  # fmt: skip
    for k in content.contenders:
        s = k.scores
        values = (getattr(s, column) for column in IN_PERCENT)
        rows.append(
            (k.key, *values, *s.lowest_interval, s.lowest_class, s.substituted_zeros,
             *s.groups.values(), s.split, s.n_samples)
        )  # fmt: skip
    return rows


def _recall_rows(content: Content) -> list[tuple[Any, ...]]:
    """One row for each class, in label order."""
    per = ("hits", "recall", "low", "high")
    heading = [f"{k.key}_{name}" for k in content.contenders for name in per]
    rows: list[tuple[Any, ...]] = [("class", "training_images", "group", "samples", *heading)]
    for c, name in enumerate(content.class_names):
        values: list[Any] = []
        for k in content.contenders:
            values += [int(k.hits[c]), k.scores.recalls[c], *(k.intervals[c] or (None, None))]
        about = (name, int(content.class_counts[c]), content.groups[c])
        rows.append((*about, content.old.scores.class_samples[c], *values))
    return rows
