"""The stage and the command `report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from markupsafe import escape

from pipeline.config import SweepConfig
from pipeline.errors import EvaluationError, OutputExistsError
from pipeline.heads import save_head
from pipeline.stages.report import make_report, save_report
from pipeline.stages.sweep_temps import sweep_temps
from pipeline.sweeping.files import save_sweep
from tests.commands import nolb
from tests.reporting.reported import page_of, reported_head, reported_store

GRID = SweepConfig(t_old=(0.5, 1, 2), t_new=(0.5, 1, 2))


def test_temperatures_chosen_on_val_make_the_ensemble_the_one_to_show(tmp_path: Path) -> None:
    store = reported_store(tmp_path, val=True)
    head = reported_head(store)
    sweep = sweep_temps(store, head, GRID)
    report = make_report(store, head, sweep=sweep)
    assert sweep.chosen_on == "val"
    assert report.content.temperatures == sweep.chosen
    assert report.content.after.key == "ensemble"
    assert "chosen on the val split" in report.content.temperatures_from


def test_temperatures_that_the_likelihood_chose_are_said_to_be_its(tmp_path: Path) -> None:
    store = reported_store(tmp_path, val=True)
    head = reported_head(store)
    config = SweepConfig(GRID.t_old, GRID.t_new, choose="nll", replicates=100)
    sweep = sweep_temps(store, head, config)
    report = make_report(store, head, sweep=sweep)
    assert report.content.temperatures_from == "chosen on the val split by the likelihood"
    page = page_of(report)
    assert "The best likelihood of each head on val is at" in page
    assert "What the ensemble gains, with 95 % intervals" in page
    assert sweep.bootstrap is not None
    assert sweep.bootstrap.note
    assert str(escape(sweep.bootstrap.note)) in page


def test_nothing_is_chosen_on_the_split_that_is_reported(tmp_path: Path) -> None:
    store = reported_store(tmp_path, val=True)
    head = reported_head(store)
    on_test = sweep_temps(store, head, SweepConfig(GRID.t_old, GRID.t_new, "test"))
    report = make_report(store, head, sweep=on_test)
    assert report.content.temperatures == (1.0, 1.0)
    assert report.content.after.key == "new"
    with pytest.raises(EvaluationError, match="flatter"):
        make_report(store, head, sweep=sweep_temps(store, head, GRID), split="val")


def test_given_temperatures_come_first(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    report = make_report(store, reported_head(store), temperatures=(3.0, 1.0))
    assert report.content.temperatures == (3.0, 1.0)
    assert report.content.after.key == "ensemble"


def test_a_report_is_not_written_over_unasked(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    report = make_report(store, reported_head(store))
    path = save_report(report, tmp_path / "r.html")
    with pytest.raises(OutputExistsError, match="exists already"):
        save_report(report, path)
    with pytest.raises(OutputExistsError, match="is a folder"):
        save_report(report, tmp_path)
    save_report(report, path, overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["r.html"]
    for page in ("<!DOCTYPE html>\n<title>My pages</title>", "# a source file\n"):
        path.write_text(page)
        with pytest.raises(OutputExistsError, match="something else"):
            save_report(report, path, overwrite=True)
        assert path.read_text() == page


def test_the_command_writes_page_and_json(
    tmp_path: Path,
) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    save_head(head, tmp_path / "head.safetensors")
    save_sweep(sweep_temps(store, head, GRID), tmp_path / "sweep")
    nolb(
        "report", store.path, tmp_path / "head.safetensors", "--out", tmp_path / "r.html",
        "--sweep", tmp_path / "sweep", "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    content = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert content["scores"]["new"]["lowest_recall"] == 50.0
    nolb("report", store.path, tmp_path / "head.safetensors", "--out", tmp_path / "r.html", code=1)
    nolb("report", "a", "b", "--out", "c", "--sweep", "d", "--no-plane", code=2)
