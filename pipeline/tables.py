"""Tables of scores: for the terminal with rich, for papers in Markdown (Tables 3 and 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pipeline.metrics import IN_PERCENT, METRICS, Scores
from pipeline.sweeping.selection import range_in_words
from pipeline.writing import (
    left_out,
    markdown_table,
    markdown_text,
    measured_on,
    star_note,
    terminal_table,
)

if TYPE_CHECKING:
    from pipeline.bootstrap import Bootstrap, Estimate
    from pipeline.calibration import Calibration
    from pipeline.sweeping.sweep import Sweep

HEADINGS = tuple(METRICS[name].heading for name in IN_PERCENT)

NAME_WIDTH = 16
"""Columns that a classifier's name keeps in a narrow terminal, where it would be cut to a dot."""

ALL_CELLS_UP_TO = 25
"""Cells up to which a sweep is printed whole; of more, only the cells that matter."""

ALL_FOLDS_UP_TO = 10
"""Folds up to which each one's temperatures are listed; of more, a summary and ..."""

MOST_FREQUENT = 3
"""... so many of the most frequent ones."""

PAPER_TEMPERATURES = (1.0, 2.0, 3.0)
"""Of Table 7."""


def scores_table(scores_by_name: Mapping[str, Scores]) -> Table:
    """Table of classifiers for the terminal, in percent, the worst class named.

    Args:
        scores_by_name: scores of one split, such as `{"old": ..., "new": ..., "ensemble": ...}`.
    """
    table = terminal_table()
    widths = [min(NAME_WIDTH, len(name)) for name in scores_by_name]
    table.add_column("", min_width=max(widths, default=0))
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
    interval = "95 %: exact interval of the lowest recall, which accounts for its selection."
    table.caption = Text("\n".join([*_footnotes(scores_by_name), interval]))
    return table


def scores_markdown(scores_by_name: Mapping[str, Scores]) -> str:
    """The same in Markdown, with two decimals, as the paper's Tables 3 to 5."""
    rows = [
        [markdown_text(name), *_numbers(scores, 2), markdown_text(_worst(scores))]
        for name, scores in scores_by_name.items()
    ]
    table = _with_remark(["Method", *HEADINGS, "Worst class"], rows)
    return table + "".join(f"\n{markdown_text(note)}\n" for note in _footnotes(scores_by_name))


def sweep_table(sweep: Sweep) -> Table:
    """Table of temperatures for the terminal, as Table 7; of a large grid the cells that matter."""
    cells = sweep.cells()
    shown = _shown(sweep, cells)
    table = terminal_table()
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


def sweep_markdown(sweep: Sweep) -> str:
    """Every cell in Markdown, with two decimals, as the paper's Table 7."""
    cells = sweep.cells()
    rows = [[*_cell_texts(cell, 2), _remark(sweep, cell)] for cell in cells]
    notes = _grid_notes(sweep, cells)
    table = _with_remark(["t_old", "t_new", *HEADINGS, ""], rows)
    return table + "".join(f"\n{markdown_text(note)}\n" for note in notes)


def table7_markdown(sweep: Sweep) -> str:
    """The paper's Table 7 in Markdown: both means and the lowest recall, the best of each in bold.

    A small grid is shown whole; of a larger one the cells at the paper's temperatures 1, 2 and 3,
    and the chosen one.
    """
    cells = sweep.cells()
    shown = cells if len(cells) <= ALL_CELLS_UP_TO else [c for c in cells if _of_paper(sweep, c)]
    columns = IN_PERCENT[1:]
    best = {name: max((f"{c[name]:.2f}" for c in cells), key=float) for name in columns}
    rows = []
    for cell in shown:
        texts = _cell_texts(cell, 2)
        numbers = [
            f"**{text}**" if text.rstrip("*") == best[name] else markdown_text(text)
            for name, text in zip(columns, texts[3:], strict=True)
        ]
        rows.append([*texts[:2], *numbers, _remark(sweep, cell)])
    notes = [*_grid_notes(sweep, shown), "Bold: the best of the whole grid."]
    if len(shown) < len(cells):
        notes.append(f"{len(shown)} of {len(cells)} cells; sweep.csv has them all.")
    table = _with_remark(["t_old", "t_new", *HEADINGS[1:], ""], rows)
    return table + "".join(f"\n{markdown_text(note)}\n" for note in notes)


def bootstrap_table(bootstrap: Bootstrap) -> Table:
    """Table of intervals: each classifier, and the first one's lead over the others."""
    table = terminal_table()
    table.add_column("")
    for heading in HEADINGS:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    first = next(iter(bootstrap.values))
    for name, estimates in bootstrap.values.items():
        table.add_row(Text(name), *(_interval(estimates[metric], "") for metric in IN_PERCENT))
    for name, estimates in bootstrap.differences.items():
        texts = (_interval(estimates[metric], "+") for metric in IN_PERCENT)
        table.add_row(Text(f"{first} - {name}"), *texts)
    how = (
        f"In %, on the {bootstrap.split} split: value and 95 % interval of "
        f"{bootstrap.replicates:,} bootstrap replicates, paired and stratified by class; of the "
        "lowest recall from exact intervals."
    )
    table.caption = Text("\n".join(filter(None, (how, bootstrap.note))))
    return table


def calibration_table(calibration: Calibration) -> Table:
    """Table of likelihood and calibration error before and after temperature scaling."""
    table = terminal_table()
    for heading in ("", "t", "NLL\nbefore", "NLL\nafter", "ECE\nbefore", "ECE\nafter"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, before in calibration.before.items():
        after = calibration.after[name]
        used = after.temperatures
        table.add_row(
            Text(name), ", ".join(f"{t:.3g}" for t in used), f"{before.nll:.3f}",
            f"{after.nll:.3f}", f"{before.ece:.1f}", f"{after.ece:.1f}",
        )  # fmt: skip
    fitted = f"temperatures of {calibration.fitted_on}" if calibration.fitted_on else "t as given"
    table.caption = Text(
        f"On the {calibration.split} split, {fitted}: likelihood in nats, calibration error in %."
    )
    return table


def sweep_notes(sweep: Sweep) -> list[str]:
    """What a sweep found, in sentences: the region within the noise, folds, and warnings."""
    notes = list(sweep.warnings)
    if sweep.noise is not None:
        region = sweep.noise
        notes.append(
            f"{region.share:.0f} % of the plane is statistically indistinguishable from its best "
            f"harmonic mean on {sweep.split}, including all pairs with "
            f"t_old {range_in_words(region.t_old)} and t_new {range_in_words(region.t_new)}."
        )
    if sweep.cross_fit is not None:
        notes.append(
            f"Cross-fitted on {sweep.split}: every row is scored at temperatures chosen on the "
            f"other folds, {_of_folds(sweep.cross_fit.folds)}."
        )
    return notes


def _of_folds(folds: Sequence[tuple[float, ...]]) -> str:
    """The temperatures (t_old, t_new, ...) of few folds one by one, of many in a summary."""
    texts = ["(" + ", ".join(f"{t:.3g}" for t in fold) + ")" for fold in folds]
    if len(texts) <= ALL_FOLDS_UP_TO:
        return f"by fold {'; '.join(texts)}"
    counted = Counter(texts)
    if len(counted) == 1:
        return f"and all {len(texts)} folds chose {texts[0]}"
    old, new = [fold[0] for fold in folds], [t for fold in folds for t in fold[1:]]
    most = ", ".join(f"{of} in {n}" for of, n in counted.most_common(MOST_FREQUENT))
    return (
        f"and the {len(texts)} folds chose {len(counted)} different ones, t_old "
        f"{range_in_words((min(old), max(old)))} and t_new {range_in_words((min(new), max(new)))}, "
        f"most often {most}; sweep.json has them all"
    )


def _of_paper(sweep: Sweep, cell: Mapping[str, Any]) -> bool:
    """Whether a cell of a large grid belongs in Table 7."""
    place = cell["t_old"], cell["t_new"]
    return place == sweep.chosen or all(t in PAPER_TEMPERATURES for t in place)


def _interval(estimate: Estimate, sign: str) -> str:
    """Value, and the interval below it, so that five columns fit a terminal."""
    return f"{estimate.value:{sign}.1f}\n({estimate.low:{sign}.1f}, {estimate.high:{sign}.1f})"


def _numbers(scores: Scores, decimals: int) -> list[str]:
    """The four metrics; a mean with substituted zeros carries a star."""
    values = {name: getattr(scores, name) for name in IN_PERCENT}
    return _starred(values, scores.substituted_zeros, decimals)


def _cell_texts(cell: Mapping[str, Any], decimals: int) -> list[str]:
    """Temperatures and metrics of one cell."""
    temperatures = [f"{cell[name]:.4g}" for name in ("t_old", "t_new")]
    return temperatures + _starred(cell, cell["substituted_zeros"], decimals)


def _starred(values: Mapping[str, Any], zeros: int, decimals: int) -> list[str]:
    """The four metrics as text."""
    return [
        METRICS[name].text(values[name], zeros=zeros > 0, decimals=decimals) for name in IN_PERCENT
    ]


def _worst(scores: Scores) -> str:
    """The class of the lowest recall, and how many others share it."""
    others = len(scores.lowest_classes) - 1
    return f"{scores.lowest_class} (+{others})" if others else scores.lowest_class


def _footnotes(scores_by_name: Mapping[str, Scores]) -> list[str]:
    """Where the numbers come from and what they leave out."""
    if not scores_by_name:
        return []
    counts = {scores.test_views for scores in scores_by_name.values()}
    notes = []
    for one in {scores.split: scores for scores in scores_by_name.values()}.values():
        shared = one.test_views if len(counts) == 1 else 0
        notes.append(f"{measured_on(one.split, one.n_samples, one.n_failed, shared)}.")
        notes += left_out(len(one.class_names), one.classes_without_samples, one.split)
    if len(counts) > 1:
        notes += [
            f"{name}: the mean feature of {1 + scores.test_views} views of each image."
            for name, scores in scores_by_name.items()
            if scores.test_views
        ]
    zeros = any(scores.substituted_zeros for scores in scores_by_name.values())
    return notes + star_note(zeros)


def _grid_notes(sweep: Sweep, cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the grid was measured and whether it may choose."""
    where = measured_on(sweep.split, sweep.n_samples, sweep.n_failed, sweep.test_views)
    notes = [f"{where}."]
    if sweep.chosen_on is None:
        notes.append("Nothing was chosen on this split; (1, 1) is kept.")
    return notes + star_note(any(cell["substituted_zeros"] for cell in cells))


def _shown(sweep: Sweep, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All cells of a small grid; of a large one (1, 1) and the chosen one."""
    if len(cells) <= ALL_CELLS_UP_TO:
        return cells
    wanted = {(1.0, 1.0), sweep.chosen}
    return [cell for cell in cells if (cell["t_old"], cell["t_new"]) in wanted]


def _remark(sweep: Sweep, cell: Mapping[str, Any]) -> str:
    """Marks the cell to use."""
    if (cell["t_old"], cell["t_new"]) != sweep.chosen:
        return ""
    return "kept" if sweep.chosen_on is None else "chosen"


def _with_remark(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of numbers between a column of text and a remark."""
    return markdown_table(headings, rows, ["---", *["---:"] * (len(headings) - 2), "---"])
