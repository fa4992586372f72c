"""A study as a table for the terminal: mean and spread of every configuration."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from pipeline.metrics import METRICS, Metric, Scores
from pipeline.studying.results import MEASURED, Measurement, Study, Variant
from pipeline.studying.statistics import Spread
from pipeline.writing import measured_on, star_note, terminal_table


def study_table(study: Study) -> StudyTable:
    """Every configuration on the study's split, the old head above them."""
    rows = [
        Row(h + 1, variant, _cells(variant), _remark(study, h))
        for h, variant in enumerate(study.variants)
    ]
    return StudyTable(_old(study, study.split), tuple(rows), tuple(_notes(study)))


def table_on_test(study: Study) -> StudyTable | None:
    """The chosen configuration, or the only one, on `test`; None where that is not known."""
    if study.kept is None or study.test is None:
        return None
    no_part = ", which had no part in the choice" if study.chosen is not None else ""
    first = study.test.scores[0]
    where = measured_on("test", first.n_samples, first.n_failed, first.test_views)
    row = Row((study.chosen or 0) + 1, study.kept, _spreads(study.test), "")
    return StudyTable(_old(study, "test"), (row,), (f"{where}{no_part}.",))


@dataclass(frozen=True)
class Row:
    """A configuration's line."""

    number: int
    """Its place among the study's configurations, from 1 on."""

    variant: Variant
    """The configuration."""

    cells: Sequence[str]
    """Its metrics."""

    remark: str
    """What to know of it."""


@dataclass(frozen=True)
class StudyTable:
    """What rich prints: a table whose rows go by their settings where the terminal has room.

    Elsewhere they go by numbers, which a list above the table explains: neither the name of a
    setting nor its value is ever broken.
    """

    old: Sequence[str] | None
    """Metrics of the old head, where there is one."""

    rows: tuple[Row, ...]
    """The configurations."""

    notes: tuple[str, ...]
    """What stands below."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table for this terminal's width."""
        # Text, because a setting may be called [red] and rich would paint it.
        named = self._table([Text(row.variant.name.replace(", ", "\n")) for row in self.rows])
        width = _width(console, options, named)
        if width <= options.max_width or not any(row.variant.label for row in self.rows):
            table = named
        else:
            yield from self._numbered_settings(options.max_width)
            table = self._table([Text(str(row.number)) for row in self.rows])
        # In a terminal that is narrower still, rich would cut numbers off.
        table.width = _width(console, options, table)
        yield table

    def _numbered_settings(self, width: int) -> Iterator[Text]:
        """The settings of each number, in lines that end between two of them."""
        digits = max(len(str(row.number)) for row in self.rows)
        for row in self.rows:
            yield Text(
                textwrap.fill(
                    row.variant.label,
                    width,
                    initial_indent=f"{row.number:{digits}}  ",
                    subsequent_indent=" " * (digits + 2),
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )

    def _table(self, names: Sequence[Text]) -> Table:
        """All rows, by these names."""
        table = terminal_table()
        table.add_column("", no_wrap=True)
        for metric in METRICS.values():
            table.add_column(metric.heading.replace(" ", "\n"), justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        if self.old is not None:
            table.add_row("old", *self.old, "")
        for name, row in zip(names, self.rows, strict=True):
            table.add_row(name, *row.cells, row.remark)
        table.caption = Text("\n".join(self.notes))
        return table


def _width(console: Console, options: ConsoleOptions, table: Table) -> int:
    """Characters that a table takes with nothing broken."""
    return console.measure(table, options=options.update(width=sys.maxsize)).maximum


def _old(study: Study, split: str) -> list[str] | None:
    """The old head's metrics on a split, where the store has one."""
    return _plain(study.old[split]) if split in study.old else None


def _plain(scores: Scores) -> list[str]:
    """The metrics of one head."""
    zeros = scores.substituted_zeros > 0
    return [metric.text(getattr(scores, name), zeros=zeros) for name, metric in METRICS.items()]


def _cells(variant: Variant) -> Sequence[str]:
    """The metrics of one configuration, or that it has none."""
    if variant.measured is None:
        return ["diverged", *["-"] * (len(MEASURED) - 1)]
    return _spreads(variant.measured)


def _spreads(measured: Measurement) -> list[str]:
    """Mean and deviation, and below it the interval of the mean."""
    zeros = any(scores.substituted_zeros for scores in measured.scores)
    return [_spread(measured.spread(name), metric, zeros=zeros) for name, metric in METRICS.items()]


def _spread(spread: Spread, metric: Metric, *, zeros: bool) -> str:
    """As `37.1 ± 0.4` above `(36.8, 37.4)`; of a mean, a number of classes has a decimal too."""
    star = "*" if zeros and metric.starred else ""
    if spread.deviation is None:
        return f"{spread.mean:.1f}{star}"
    text = f"{spread.mean:.1f}{star} ± {spread.deviation:.1f}"
    if spread.interval is None:
        return text
    low, high = spread.interval
    return f"{text}\n({low:.1f}, {high:.1f})"


def _remark(study: Study, index: int) -> str:
    """Marks the configuration to use, and those that are as good as far as anyone can tell."""
    if index == study.chosen:
        return "chosen"
    return "alike" if index in study.alike else ""


def _notes(study: Study) -> list[str]:
    """Where the numbers come from, what the intervals cover, and what was chosen."""
    where = measured_on(study.split, study.n_samples, study.n_failed, study.test_views)
    notes = [f"{where}."]
    notes += _about_seeds(study)
    measured = [v.measured for v in study.variants if v.measured is not None]
    zeros = any(scores.substituted_zeros for one in measured for scores in one.scores)
    return notes + star_note(zeros) + _choice(study)


def _about_seeds(study: Study) -> list[str]:
    """What the intervals are of, and where there is none."""
    once = [variant for variant in study.variants if not variant.seeded]
    if len(once) == len(study.variants):
        each = "this head: it was" if len(once) == 1 else "these heads: each was"
        return [f"No seed decides {each} fitted once, and has no spread over seeds."]
    if study.n_seeds == 1:
        return ["One seed: no spread. --seeds 10 gives one."]
    seeded = [v.measured for v in study.variants if v.seeded and v.measured is not None]
    deviations = {one.spread(metric).deviation for one in seeded for metric in MEASURED}
    if deviations == {0.0}:  # as with l-bfgs, whose optimum may be one wherever a seed begins
        notes = [f"All {study.n_seeds} seeds come to the same figures: there is no spread."]
    else:
        notes = [
            f"Mean ± standard deviation over {study.n_seeds} seeds; below, the 95 % interval of the"
            " mean (Student's t).\nIt covers what the seed decides, not which images are in the "
            "split."
        ]
        if 0.0 in deviations:
            notes.append("Where all seeds agree, they give no interval.")
    if once:
        notes.append("No seed decides the heads without ±: each was fitted once.")
    return notes


def _choice(study: Study) -> list[str]:
    """What was chosen and how sure that is."""
    if len(study.variants) == 1:
        return []
    if study.chosen is None:
        return [f"Nothing was chosen on this split: only `val` may choose, not `{study.split}`."]
    notes = ["chosen: the highest mean harmonic mean; being the best of several flatters it here."]
    if study.alike:
        notes.append(
            "alike: its harmonic mean cannot be told from the chosen one's over these seeds."
        )
    return notes
