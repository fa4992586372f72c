from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.config import SweepConfig
from pipeline.errors import OutputExistsError
from pipeline.stages.report import Report, make_report, save_for_papers
from pipeline.stages.sweep_temps import sweep_temps
from tests.reporting.reported import NAMES, NASTY, reported_head, reported_store


@pytest.fixture
def report(tmp_path: Path) -> Report:
    store = reported_store(tmp_path)
    head = reported_head(store)
    sweep = sweep_temps(store, head, SweepConfig(t_old=(1, 2), t_new=(1, 2)))
    return make_report(store, head, sweep=sweep)


def test_tables_and_figures_are_all_there(report: Report, tmp_path: Path) -> None:
    written = save_for_papers(report, tmp_path / "papers")
    figures_made = ("figure-1", "figure-2", "figure-3", "temperatures")
    assert {path.name for path in written} == {
        "scores.md", "improvement.md", "temperatures.md", "scores.csv", "recalls.csv",
        "confusions.csv", "sweep.csv",
        *(f"{name}{suffix}" for name in figures_made for suffix in (".png", ".svg")),
    }  # fmt: skip
    assert all(path.stat().st_size for path in written)
    with (tmp_path / "papers/recalls.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES)
    assert (rows[0]["old_hits"], rows[0]["new_recall"], rows[3]["group"]) == ("4", "75", "few")
    improvement = (tmp_path / "papers/improvement.md").read_text(encoding="utf-8")
    assert "| New head | " in improvement
    assert "50.00 (50.00 ↑)" in improvement  # lowest recall 0 -> 50
    assert "| Old head | 3.16\\* | 0.20\\* | 0.00 |" in improvement  # sqrt(100 * 0.1); 4/(2/.1+..)
    table = (tmp_path / "papers/temperatures.md").read_text(encoding="utf-8")
    assert table.startswith("| t_old | t_new | Accuracy |")
    assert NASTY in (tmp_path / "papers/confusions.csv").read_text(encoding="utf-8")


def test_a_folder_with_something_in_it_is_left_alone(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"thesis\.tex exists already"):
        save_for_papers(report, folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
