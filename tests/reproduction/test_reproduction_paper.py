"""The paper's numbers, against each other and against its text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.metrics import IN_PERCENT
from pipeline.reproduction import paper
from pipeline.reproduction.paper import TABLE_3, TABLE_6, TABLE_7, TABLE_8, TABLE_9, PaperTable

TABLES = (
    TABLE_3, paper.TABLE_4, paper.TABLE_5, TABLE_6, TABLE_7, TABLE_8, TABLE_9,
)  # fmt: skip

IN_TEXT = {
    "BSCE [22]": "BSCE", "LDAM [2]": "LDAM", "LADE [13]": "LADE", "DiVE [12]": "DiVE",
    "MiSLAS [30]": "MiSLAS", "RIDE [26]": "RIDE", "PaCo [4]": "PaCo", "cRT [14]": "cRT",
    "(w/o re-weighting)": paper.label_plain("CE"),
    "(w/o re-weighting, re-sampling)": paper.label_resampled("CE"),
    "GML (train from scratch)": paper.SCRATCH_LABEL,
}  # fmt: skip
"""Labels of the text, which are ours where none is listed."""


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_rows_are_cited_and_named_once(table: PaperTable) -> None:
    assert [row.place for row in table.rows] == [
        f"{table.name}, row {k + 1}" for k in range(len(table.rows))
    ]
    assert len({row.label for row in table.rows}) == len(table.rows)
    assert all(tuple(row.values) == table.metrics for row in table.rows)


def test_a_star_stands_where_a_recall_is_zero_but_in_table_8() -> None:
    for table in TABLES:
        for row in table.rows:
            zero = row.values["lowest_recall"] == 0
            assert row.starred == (zero and table is not TABLE_8), row.place


def test_rows_that_stand_in_several_tables_agree() -> None:
    for table in (TABLE_6, TABLE_8, TABLE_9):
        for row in table.rows:
            same = TABLE_3.row(row.label)
            if same is not None:
                assert row.values == {name: same.values[name] for name in table.metrics}, row.place
    ensemble = TABLE_3.row("PaCo + GML (Ensemble)")
    assert ensemble is not None
    assert TABLE_7.rows[0].values == {name: ensemble.values[name] for name in TABLE_7.metrics}


def test_the_gains_of_table_6_are_those_that_it_prints() -> None:
    printed = {
        "CE": (15.56, 29.21, 6.00), "BSCE": (1.36, 4.64, 4.00), "MiSLAS": (0.74, 5.56, 6.00),
        "PaCo": (0.18, 2.78, 4.00),
    }  # fmt: skip
    for method, gains in printed.items():
        before, after = TABLE_6.row(method), TABLE_6.row(paper.label_gml(method))
        assert before is not None
        assert after is not None
        found = [after.values[name] - before.values[name] for name in TABLE_6.metrics]
        assert found == pytest.approx(gains, abs=0.0051)


def test_the_numbers_are_those_of_the_text(shared: Path) -> None:
    text = (shared / "paper/no-one-left-behind.txt").read_text(encoding="utf-8")
    checked = 0
    for table in TABLES:
        (end,) = (found.start() for found in re.finditer(rf"^{table.name}\. ", text, re.MULTILINE))
        body = text[text.rindex("\n\n", 0, text.rindex("\n\n", 0, end)) : end]
        for row, line in zip(table.rows, _lines(body, table), strict=True):
            cells = [re.sub(r"</?b>|\(.*?\)", "", cell).strip() for cell in line[1:]]
            assert [float(cell.rstrip("*")) for cell in cells] == list(row.values.values())
            assert any(cell.endswith("*") for cell in cells) == row.starred
            if table is not TABLE_7:
                assert IN_TEXT.get(line[0], line[0]) == row.label
            checked += 1
    assert checked == sum(len(table.rows) for table in TABLES)


def _lines(body: str, table: PaperTable) -> list[list[str]]:
    """Cells of each row, of Table 7 with both temperatures in the first."""
    rows = [line.split("\t") for line in body.splitlines() if "\t" in line][1:]
    return [["", *row[2:]] for row in rows] if table is TABLE_7 else rows


def test_methods_and_names() -> None:
    in_tables = {row.label for table in TABLES[:4] for row in table.rows if "GML" not in row.label}
    assert in_tables == set(paper.METHODS)
    assert paper.CIFAR100_LT.describe() == (
        "CIFAR100-LT (100 classes, 10,847 training images, 10,000 test images)"
    )


def test_the_metrics_of_the_paper_are_those_in_percent() -> None:
    assert paper.ALL_METRICS == IN_PERCENT
