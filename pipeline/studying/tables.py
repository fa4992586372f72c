"""A study as a table for the terminal: mean and spread of every configuration."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from pipeline.metrics import Scores
from pipeline.studying.results import METRICS, Measurement, Study, Variant
from pipeline.studying.statistics import Spread

HEADINGS = ("Accuracy", "Geometric\nmean", "Harmonic\nmean", "Lowest\nrecall", "At\nzero")

MEANS = ("geometric_mean", "harmonic_mean")
"""Metrics in which a recall of zero counts as 0.1 %."""


def study_table(study: Study) -> Table:
    """Every configuration on the study's split, the old head above them."""
    table = _table()
    if study.split in study.old:
        table.add_row("old", *_plain(study.old[study.split]), "")
    for h, variant in enumerate(study.variants):
        # Text, because a setting may be called [red] and rich would paint it.
        table.add_row(Text(_name(variant)), *_cells(variant), _remark(study, h))
    table.caption = Text("\n".join(_notes(study)))
    return table


def table_on_test(study: Study) -> Table | None:
    """The chosen configuration, or the only one, on `test`; None where that is not known."""
    if study.kept is None or study.test is None:
        return None
    table = _table()
    if "test" in study.old:
        table.add_row("old", *_plain(study.old["test"]), "")
    table.add_row(Text(_name(study.kept)), *_spreads(study.test), "")
    no_part = ", which had no part in the choice" if study.chosen is not None else ""
    first = study.test.scores[0]
    where = _measured("test", first.n_samples, first.n_failed, first.test_views)
    table.caption = Text(f"{where}{no_part}.")
    return table


def _table() -> Table:
    """An empty table."""
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left",
        caption_style="dim",
    )  # fmt: skip
    table.add_column("", overflow="fold")  # cut off, configurations would look alike
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    return table


def _name(variant: Variant) -> str:
    """A configuration's settings below each other, so that five columns fit a terminal."""
    n_seeds = len(variant.seeds)
    seeds = f"{n_seeds} seeds" if n_seeds > 1 else "1 seed"
    return variant.label.replace(", ", "\n") or seeds


def _plain(scores: Scores) -> list[str]:
    """The metrics of one head."""
    return [
        f"{getattr(scores, metric):.{0 if metric == METRICS[-1] else 1}f}"
        f"{'*' if metric in MEANS and scores.substituted_zeros else ''}"
        for metric in METRICS
    ]


def _cells(variant: Variant) -> Sequence[str]:
    """The metrics of one configuration, or that it has none."""
    if variant.measured is None:
        return ["diverged", *["-"] * (len(METRICS) - 1)]
    return _spreads(variant.measured)


def _spreads(measured: Measurement) -> list[str]:
    """Mean and deviation, and below it the interval of the mean."""
    zeros = any(scores.substituted_zeros for scores in measured.scores)
    return [
        _spread(measured.spread(metric), "*" if zeros and metric in MEANS else "")
        for metric in METRICS
    ]


def _spread(spread: Spread, star: str) -> str:
    """As `37.1 ± 0.4` above `(36.8, 37.4)`."""
    if spread.deviation is None or spread.interval is None:
        return f"{spread.mean:.1f}{star}"
    low, high = spread.interval
    return f"{spread.mean:.1f}{star} ± {spread.deviation:.1f}\n({low:.1f}, {high:.1f})"


def _remark(study: Study, index: int) -> str:
    """Marks the configuration to use, and those that are as good as far as anyone can tell."""
    if index == study.chosen:
        return "chosen"
    return "alike" if index in study.alike else ""


def _notes(study: Study) -> list[str]:
    """Where the numbers come from, what the intervals cover, and what was chosen."""
    where = _measured(study.split, study.n_samples, study.n_failed, study.test_views)
    notes = [f"{where}."]
    if study.n_seeds > 1:
        notes.append(
            f"Mean ± standard deviation over {study.n_seeds} seeds; below, the 95 % interval of the"
            " mean (Student's t).\nIt covers what the seed decides, not which images are in the "
            "split."
        )
    else:
        notes.append("One seed: no spread. --seeds 10 gives one.")
    measured = [v.measured for v in study.variants if v.measured is not None]
    if any(scores.substituted_zeros for one in measured for scores in one.scores):
        notes.append("* Classes of zero recall count as 0.1 % in this mean.")
    return notes + _choice(study)


def _measured(split: str, n_samples: int, n_failed: int, test_views: int) -> str:
    """The split, its size, and what was classified of each image."""
    views = f", mean feature of {1 + test_views} views each" if test_views else ""
    left_out = f"; {n_failed:,} more could not be read" if n_failed else ""
    return f"In %, on the {split} split ({n_samples:,} images{views}{left_out})"


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
