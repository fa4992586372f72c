"""Tables of scores: for the terminal with rich, for papers in Markdown (Tables 3 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich import box
from rich.table import Table
from rich.text import Text

from pipeline.metrics import Scores

METRICS = ("accuracy", "geometric_mean", "harmonic_mean", "lowest_recall")
HEADINGS = ("Accuracy", "Geometric mean", "Harmonic mean", "Lowest recall")

ALL_CELLS_UP_TO = 25
"""Cells up to which a sweep is printed whole; of more, only the cells that matter."""


class MeasuredGrid(Protocol):
    """What a table needs of a sweep."""

    @property
    def split(self) -> str:
        """Split on which the grid was measured."""

    @property
    def n_samples(self) -> int:
        """Samples scored in each cell."""

    @property
    def n_failed(self) -> int:
        """Samples left out."""

    @property
    def chosen(self) -> tuple[float, float]:
        """(t_old, t_new) to use."""

    @property
    def chosen_on(self) -> str | None:
        """Split that chose them, or None."""

    def cells(self) -> list[dict[str, Any]]:
        """Temperatures and metrics of every cell."""


def scores_table(scores_by_name: Mapping[str, Scores]) -> Table:
    """Table of classifiers for the terminal, in percent, the worst class named.

    Args:
        scores_by_name: scores of one split, such as `{"old": ..., "new": ..., "ensemble": ...}`.
    """
    table = _table()
    table.add_column("")
    for heading in HEADINGS:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    table.add_column("95 %", no_wrap=True)
    table.add_column("Worst class")
    table.add_column("At\nzero", justify="right", no_wrap=True)
    for name, scores in scores_by_name.items():
        low, high = scores.lowest_interval
        # Text, because a class may be called [red] and rich would paint it.
        table.add_row(
            Text(name), *_numbers(scores, 1), f"{low:.1f}-{high:.1f}",
            Text(_worst(scores)), str(scores.substituted_zeros),
        )  # fmt: skip
    interval = "95 %: Wilson interval of the lowest recall, taken as one class's."
    table.caption = Text("\n".join([*_footnotes(scores_by_name), interval]))
    return table


def scores_markdown(scores_by_name: Mapping[str, Scores]) -> str:
    """The same in Markdown, with two decimals, as the paper's Tables 3 to 5."""
    rows = [
        [_escaped(name), *_numbers(scores, 2), _escaped(_worst(scores))]
        for name, scores in scores_by_name.items()
    ]
    table = _markdown(["Method", *HEADINGS, "Worst class"], rows)
    return table + "".join(f"\n{_escaped(note)}\n" for note in _footnotes(scores_by_name))


def sweep_table(sweep: MeasuredGrid) -> Table:
    """Table of temperatures for the terminal, as Table 7; of a large grid the cells that matter."""
    cells = sweep.cells()
    shown = _shown(sweep, cells)
    table = _table()
    for heading in ("t_old", "t_new", *HEADINGS):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    table.add_column("")
    for cell in shown:
        table.add_row(*_cell_texts(cell, 1), _remark(sweep, cell))
    notes = _grid_notes(sweep, shown)
    if len(shown) < len(cells):
        notes.append(f"{len(shown)} of {len(cells)} cells; sweep.csv has them all.")
    table.caption = Text("\n".join(notes))
    return table


def sweep_markdown(sweep: MeasuredGrid) -> str:
    """Every cell in Markdown, with two decimals, as the paper's Table 7."""
    cells = sweep.cells()
    rows = [[*_cell_texts(cell, 2), _remark(sweep, cell)] for cell in cells]
    notes = _grid_notes(sweep, cells)
    table = _markdown(["t_old", "t_new", *HEADINGS, ""], rows)
    return table + "".join(f"\n{_escaped(note)}\n" for note in notes)


def _table() -> Table:
    """An empty table, narrow enough for three classifiers in 80 columns."""
    return Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left",
        caption_style="dim",
    )  # fmt: skip


def _numbers(scores: Scores, decimals: int) -> list[str]:
    """The four metrics; a mean with substituted zeros carries a star."""
    values = {name: getattr(scores, name) for name in METRICS}
    return _starred(values, scores.substituted_zeros, decimals)


def _cell_texts(cell: Mapping[str, Any], decimals: int) -> list[str]:
    """Temperatures and metrics of one cell."""
    temperatures = [f"{cell[name]:.4g}" for name in ("t_old", "t_new")]
    return temperatures + _starred(cell, cell["substituted_zeros"], decimals)


def _starred(values: Mapping[str, Any], zeros: int, decimals: int) -> list[str]:
    """The four metrics as text."""
    starred = {"geometric_mean", "harmonic_mean"} if zeros else set()
    return [f"{values[name]:.{decimals}f}{'*' if name in starred else ''}" for name in METRICS]


def _worst(scores: Scores) -> str:
    """The class of the lowest recall, and how many others share it."""
    others = len(scores.lowest_classes) - 1
    return f"{scores.lowest_class} (+{others})" if others else scores.lowest_class


def _footnotes(scores_by_name: Mapping[str, Scores]) -> list[str]:
    """Where the numbers come from and what they leave out."""
    if not scores_by_name:
        return []
    first = next(iter(scores_by_name.values()))
    notes = [_measured(first.split, first.n_samples, first.n_failed)]
    if first.classes_without_samples:
        notes.append(
            f"{first.classes_without_samples} of {len(first.class_names)} classes have no images "
            "in this split and are in no mean."
        )
    zeros = any(scores.substituted_zeros for scores in scores_by_name.values())
    return notes + _star_note(zeros)


def _grid_notes(sweep: MeasuredGrid, cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the grid was measured and whether it may choose."""
    notes = [_measured(sweep.split, sweep.n_samples, sweep.n_failed)]
    if sweep.chosen_on is None:
        notes.append("Nothing was chosen on this split; (1, 1) is kept.")
    return notes + _star_note(any(cell["substituted_zeros"] for cell in cells))


def _measured(split: str, n_samples: int, n_failed: int) -> str:
    """The split and its size."""
    left_out = f"; {n_failed:,} more could not be read" if n_failed else ""
    return f"In %, on the {split} split ({n_samples:,} images{left_out})."


def _star_note(zeros: bool) -> list[str]:
    """What a star means, where there is one."""
    return ["* Classes of zero recall count as 0.1 % in this mean."] if zeros else []


def _shown(sweep: MeasuredGrid, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All cells of a small grid; of a large one (1, 1) and the chosen one."""
    if len(cells) <= ALL_CELLS_UP_TO:
        return cells
    wanted = {(1.0, 1.0), sweep.chosen}
    return [cell for cell in cells if (cell["t_old"], cell["t_new"]) in wanted]


def _remark(sweep: MeasuredGrid, cell: Mapping[str, Any]) -> str:
    """Marks the cell to use."""
    if (cell["t_old"], cell["t_new"]) != sweep.chosen:
        return ""
    return "kept" if sweep.chosen_on is None else "chosen"


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    rule = ["---", *["---:"] * (len(headings) - 2), "---"]
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, rule, *rows))


def _escaped(text: str) -> str:
    """Text without what Markdown would read as a column or an emphasis."""
    return "".join(f"\\{c}" if c in "\\|*_`" else c for c in text).replace("\n", " ")
