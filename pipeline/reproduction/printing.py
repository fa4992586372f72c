"""A comparison as a table for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipeline.metrics import METRICS
from pipeline.reproduction.claims import Claim, Finding
from pipeline.reproduction.evidence import Interval, WithIntervals
from pipeline.reproduction.paper import PaperRow
from pipeline.reproduction.results import Reproduction, Row
from pipeline.reproduction.settings import fits_heads
from pipeline.writing import markdown_table, markdown_text, terminal_table

STYLES = {"holds": "green", "does not hold": "red", "cannot be told": "yellow", "not tested": "dim"}

NEEDED = {">": "above", ">=": "at least", "<=": "at most", "within": "within +-"}


def terminal(result: Reproduction) -> Group:
    """Rows beside the paper's numbers, then the claims; for rich's console."""
    metrics = result.experiment.table.metrics
    table = _titled(f"{result.experiment.table.name}: {result.experiment.table.title}")
    table.add_column("")
    for metric in metrics:
        table.add_column(METRICS[metric].heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in result.rows:
        table.add_row(Text(row.label), *(Text(_stacked_cell(row, metric)) for metric in metrics))
    table.caption = Text("\n".join(result.notes))
    claims = _titled("What the paper claims")
    claims.add_column("", no_wrap=True)
    claims.add_column("")
    for finding in result.findings:
        verdict = Text(finding.verdict, style=STYLES[finding.verdict])
        claims.add_row(verdict, Text(f"{_finding_lines(finding)}{_aside(finding, '; ')}"))
    claims.caption = Text(verdict_counts(result))
    return Group(table, Text(""), claims)


def markdown(result: Reproduction) -> str:
    """The same in Markdown, with two decimals."""
    table = result.experiment.table
    beside = ["paper"] * any(row.paper is not None for row in result.rows)
    headings = [""]
    for metric in table.metrics:
        headings += [METRICS[metric].heading, *beside]
    rows = []
    for row in result.rows:
        cells = [row.label]
        for metric in table.metrics:
            cells += [_cell(row, metric, 2), *(_paper_cell(row.paper, metric) for _ in beside)]
        rows.append([markdown_text(cell) for cell in cells])
    fits = fits_heads(result.experiment.kinds)
    seeds = f"; {_seeds_in_words(result.seeds)}" if fits else ""
    parts = [
        f"# {table.name}: {table.title}\n",
        f"Methods: {', '.join(result.methods)}{seeds}.\n",
        *([f"![{table.title}]({result.what}.png)\n"] if result.experiment.draws else []),
        markdown_table(headings, rows, ["---", *["---:"] * (len(headings) - 1)]),
        *(f"{markdown_text(note)}\n" for note in result.notes),
        "## What the paper claims\n",
        markdown_table(
            ["verdict", "claim", "place", "measured", "needed", "paper"],
            [[markdown_text(cell) for cell in _finding_cells(f)] for f in result.findings],
            ["---"] * 6,
        ),
        f"{verdict_counts(result)}\n",
    ]
    return "\n".join(parts)


def verdict_counts(result: Reproduction) -> str:
    """How many claims hold, and how many do not."""
    verdicts = [finding.verdict for finding in result.findings]
    counts = [f"{name} {verdicts.count(name)}" for name in STYLES if name in verdicts]
    return f"{len(verdicts)} claims: {', '.join(counts)}."


def _seeds_in_words(seeds: Sequence[int]) -> str:
    """First seed of each head, as a range."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    step = seeds[1] - seeds[0]
    return f"seeds {seeds[0]} to {seeds[-1]}{f' in steps of {step}' if step > 1 else ''}"


def _stacked_cell(row: Row, metric: str) -> str:
    """WithIntervals value, its interval below, and the paper's number."""
    lines = []
    if row.measured is not None:
        number = row.measured[metric]
        lines = [
            _told(row, number.value, metric),
            f"({number.interval.low:.1f}, {number.interval.high:.1f})",
        ]
    if row.paper is not None:
        lines.append(f"paper {_paper_cell(row.paper, metric)}")
    return "\n".join(lines)


def _cell(row: Row, metric: str, decimals: int) -> str:
    """WithIntervals value and interval, nothing where no checkpoint was given."""
    if row.measured is None:
        return ""
    number = row.measured[metric]
    low, high = number.interval.low, number.interval.high
    text = _told(row, number.value, metric, decimals)
    return f"{text} ({low:.{decimals}f} to {high:.{decimals}f})"


def _paper_cell(paper: PaperRow | None, metric: str) -> str:
    """The paper's number, with its star."""
    if paper is None or metric not in paper.values:
        return ""
    return METRICS[metric].text(paper.values[metric], zeros=paper.starred, decimals=2)


def _told(row: Row, value: float, metric: str, decimals: int = 1) -> str:
    """A measured value, with its star."""
    return METRICS[metric].text(value, zeros=bool(row.zeros), decimals=decimals)


def _finding_lines(finding: Finding) -> str:
    """Claim, what was measured, and what it needed."""
    head = f"{finding.words} ({finding.place})"
    if finding.claim is None or finding.measured is None:
        return f"{head}\n{finding.needs}"
    claim = finding.claim
    paper = "" if claim.in_paper is None else f"; paper {_number(claim.in_paper, claim)}"
    why = f" ({claim.why})" if claim.why else ""
    return (
        f"{head}\n{claim.measure}: {_measured(finding.measured, claim)}; "
        f"needs {_needed(claim)}{why}{paper}"
    )


def _aside(finding: Finding, link: str) -> str:
    """The verdict by the seeds alone, where the choice of the images leaves it open."""
    alone = finding.on_these_images
    return "" if alone in (None, finding.verdict) else f"{link}on these images: {alone}"


def _finding_cells(finding: Finding) -> list[str]:
    """One row of the Markdown table."""
    cells = [finding.verdict + _aside(finding, " / "), finding.words, finding.place]
    if finding.claim is None or finding.measured is None:
        return [*cells, finding.needs, "", ""]
    claim = finding.claim
    paper = "" if claim.in_paper is None else _number(claim.in_paper, claim, 2)
    needed = f"{_needed(claim)}{f' ({claim.why})' if claim.why else ''}"
    return [*cells, f"{claim.measure}: {_measured(finding.measured, claim)}", needed, paper]


def _measured(number: WithIntervals, claim: Claim) -> str:
    """Value with all intervals."""
    parts = [_number(number.value, claim)]
    if number.seeds is not None:
        parts.append(f"seeds {_interval(number.seeds)}")
    return ", ".join([*parts, f"images {_interval(number.images)}"])


def _number(value: float, claim: Claim, decimals: int = 1) -> str:
    """With a sign where it is a difference, in its unit where that is not points."""
    sign = "+" if claim.bounds[0] < 0 else ""
    unit = "" if claim.unit == "points" else f" {claim.unit}"
    return f"{value:{sign}.{decimals}f}{unit}"


def _interval(interval: Interval) -> str:
    return f"({interval.low:.1f}, {interval.high:.1f})"


def _needed(claim: Claim) -> str:
    """The threshold in words."""
    space = "" if claim.relation == "within" else " "
    return f"{NEEDED[claim.relation]}{space}{claim.threshold:g}"


def _titled(title: str) -> Table:
    """An empty table with a title."""
    table = terminal_table()
    table.title, table.title_justify, table.title_style = Text(title), "left", "bold"
    return table
