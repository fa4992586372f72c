"""What is written and printed of a study: files, the figure, the table in a terminal."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from rich.console import Console

from pipeline import grid_configs, load_head, save_study, study
from pipeline.errors import EvaluationError, OutputExistsError
from pipeline.figures import studies
from pipeline.figures.studies import study_dots
from pipeline.studying import (
    study_folder,
)
from pipeline.studying.tables import study_table
from tests.made_studies import CONFIG, store_with, study_of


@pytest.fixture(autouse=True)
def _quick_and_searchable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.figures.canvas.DPI", 40)
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # letters stay letters


def test_files_hold_the_study(tmp_path: Path) -> None:
    store = store_with(tmp_path, "val", "test")
    found = study(store, grid_configs(CONFIG, {"lr": [1e-6, 0.1]}), seeds=3)
    folder = tmp_path / "study"
    heads = save_study(found, folder)
    assert [path.name for path in heads] == [f"seed{k}.safetensors" for k in range(3)]
    assert [load_head(path).config["lr"] for path in heads] == [0.1] * 3
    content = json.loads((folder / "study.json").read_text())
    assert (content["chosen"], content["chosen_on"]) == (1, "val")
    with (folder / "study.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["lr"], r["split"], r["state"]) for r in rows] == [
        ("1e-06", "val", ""), ("0.1", "val", "chosen"), ("0.1", "test", "chosen"),
    ]  # fmt: skip
    mean = content["configurations"][1]["harmonic_mean"]["mean"]
    assert float(rows[1]["harmonic_mean_mean"]) == pytest.approx(mean)
    assert float(rows[2]["accuracy_low"]) == pytest.approx(content["test"]["accuracy"]["low"])
    with (folder / "seeds.csv").open() as file:
        seeds = list(csv.DictReader(file))
    assert len(seeds) == 9
    values = [float(r["harmonic_mean"]) for r in seeds if (r["lr"], r["split"]) == ("0.1", "val")]
    assert np.mean(values) == pytest.approx(mean)


def test_an_earlier_study_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    store = store_with(tmp_path, "test")
    folder = tmp_path / "study"
    save_study(study(store, CONFIG, seeds=3), folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "seedling.safetensors").write_text("mine")
    two = study(store, CONFIG, seeds=2)
    with pytest.raises(OutputExistsError, match=r"holds study\.csv, .* already"):
        save_study(two, folder)
    assert len(save_study(two, folder, overwrite=True)) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "notes.txt", "seed0.safetensors", "seed1.safetensors", "seedling.safetensors",
        "seeds.csv", "study.csv", "study.json", "study.png",
    ]  # fmt: skip
    with pytest.raises(OutputExistsError, match="is a file"):
        save_study(two, folder / "notes.txt")
    with pytest.raises(OutputExistsError, match="no folder"):
        save_study(two, tmp_path / "missing" / "study")


def test_a_head_s_name_becomes_a_folder_s() -> None:
    assert study_folder("runs/head.safetensors") == Path("runs/head")
    assert study_folder(Path("runs/v1.5")) == Path("runs/v1.5")


def texts(path: Path) -> str:
    """All text of an SVG whose letters are text."""
    return "\n".join(ET.parse(path).getroot().itertext())  # noqa: S314  # we wrote it


def test_the_figure_says_what_where_and_which(tmp_path: Path) -> None:
    compared = study_of({0.1: [(50, 50), (52, 52)], 0.2: [(60, 60), (61, 61)]})
    text = texts(study_dots(compared, tmp_path / "study.svg"))
    assert "2 seeds each on the val split (200 images)" in text
    assert "lr=0.2 (chosen)" in text
    assert "95 % interval of the mean over seeds (not over images)" in text
    alone = study_of({0.1: [(50, 50)]}, split="test")
    text = texts(study_dots(alone, tmp_path / "alone.svg"))
    assert "1 seed each on the test split" in text
    assert "interval" not in text
    shown = study_of({0.1: [(50, 50)], 0.2: [(60, 60)]}, split="test")
    assert "nothing was chosen" in texts(study_dots(shown, tmp_path / "shown.svg"))
    with pytest.raises(EvaluationError, match="cannot be written as a figure"):
        study_dots(shown, tmp_path / "study.docx")


def test_of_many_configurations_the_figure_shows_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "SHOWN_UP_TO", 2)
    many = study_of({"x": [(50, 50)], "y": [(40, 40)], "z": [(60, 60)]}, split="test", field="f")
    text = texts(study_dots(many, tmp_path / "study.svg"))
    assert "the 2 of 3 with the highest harmonic mean" in text
    assert "f=x" in text
    assert "f=z" in text
    assert "f=y" not in text


def test_settings_are_whole_in_a_narrow_terminal() -> None:
    hits = [(30, 40), (31, 45), (36, 42)]
    found = study_of({1.25e-4: hits, 2.5e-4: hits}, field="weight_decay_of_a_long_name")
    console = Console(width=80, file=io.StringIO())
    console.print(study_table(found))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "…" not in text
    # Folded, not cut: each piece of both names stands in the first column.
    first_column = "".join(line[:12].strip() for line in text.splitlines())
    assert "=0.000125" in first_column
    assert "=0.00025" in first_column
