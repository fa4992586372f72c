"""What is written and printed of a study: files, the figure, the table in a terminal."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pipeline import grid_configs, load_head, save_study, study
from pipeline.errors import EvaluationError, OutputError, OutputExistsError
from pipeline.figures import studies
from pipeline.figures.studies import study_dots
from pipeline.studying.files import study_folder
from pipeline.studying.results import shown
from pipeline.studying.tables import study_table, table_on_test
from tests.figures.svg import texts
from tests.studying.made_studies import CONFIG, store_with, study_of

pytestmark = pytest.mark.usefixtures("quick_pictures")


def test_files_hold_the_study(tmp_path: Path) -> None:
    store = store_with(tmp_path, "val", "test")
    found = study(store, grid_configs(CONFIG, {"lr": [1e-6, 0.1]}), seeds=3)
    folder = tmp_path / "study"
    heads = save_study(found, folder)
    assert [path.name for path in heads] == [f"seed{k}.safetensors" for k in range(3)]
    assert [load_head(path).provenance.config.lr for path in heads] == [0.1] * 3
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
    with pytest.raises(OutputExistsError, match=r"study/\S+ exists already"):
        save_study(two, folder)
    assert len(save_study(two, folder, overwrite=True)) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "notes.txt", "seed0.safetensors", "seed1.safetensors", "seedling.safetensors",
        "seeds.csv", "study.csv", "study.json", "study.png",
    ]  # fmt: skip
    with pytest.raises(OutputExistsError, match="is a file"):
        save_study(two, folder / "notes.txt")
    with pytest.raises(OutputError, match="no folder"):
        save_study(two, tmp_path / "missing" / "study")


def test_a_head_s_name_becomes_a_folder_s() -> None:
    assert study_folder("runs/head.safetensors") == Path("runs/head")
    assert study_folder(Path("runs/v1.5")) == Path("runs/v1.5")


def test_the_figure_says_what_where_and_which(tmp_path: Path) -> None:
    compared = study_of({0.1: [(50, 50), (52, 52)], 0.2: [(60, 60), (61, 61)]})
    text = texts(study_dots(compared, tmp_path / "study.svg"))
    assert "2 seeds each on the val split (200 images)" in text
    assert "lr=0.2 (chosen)" in text
    assert "95 % interval of the mean over seeds (not over images)" in text
    alone = study_of({0.1: [(50, 50)]}, split="test")
    text = texts(study_dots(alone, tmp_path / "alone.svg"))
    assert "1 seed on the test split" in text
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


def printed(table: object, width: int) -> list[str]:
    """Lines of a terminal as `nolb` writes to it, without the spaces at their ends."""
    console = Console(width=width, file=io.StringIO(), soft_wrap=True)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]  # a StringIO


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": ["gml", "gml+label-aware-smoothing"]},
        {"lr": [0.05, 0.1], "weight_decay": [1.25e-4, 5e-4]},
        {"solver": ["sgd", "adamw"], "lr": [0.001, 0.1], "feature_dropout": [0.0, 0.125]},
    ],
)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_setting_and_no_number_is_broken(settings: dict[str, list[Any]], width: int) -> None:
    rows = [dict(zip(settings, values, strict=True)) for values in product(*settings.values())]
    found = study_of({k: [(30, 40), (31, 45), (36, 42)] for k in range(len(rows))})
    variants = [
        replace(variant, settings=row) for variant, row in zip(found.variants, rows, strict=True)
    ]
    lines = printed(study_table(replace(found, variants=tuple(variants))), width)
    words = " ".join(lines).replace(",", " ").split()
    for row in rows:
        for name, value in row.items():
            assert f"{name}={shown(value)}" in words
    text = "\n".join(lines)
    assert "…" not in text
    # Accuracies 35, 38 and 39: mean 37.33, deviation 2.08, and 4.3027 * 2.08 / sqrt(3) = 5.17.
    assert text.count("37.3 ± 2.1") == text.count("(32.2, 42.5)") == len(rows)
    table = [line for line in lines if "±" in line and "Mean" not in line]
    assert len(table) == len(rows)
    assert width < 80 or max(map(len, table)) <= width
    named = width == 120
    firsts = [line.split()[0] for line in table]
    assert firsts == [
        next(f"{name}={shown(value)}" for name, value in row.items()) if named else str(k)
        for k, row in enumerate(rows, 1)
    ]


def test_a_name_that_fits_stands_in_its_row() -> None:
    found = study_of({0.1: [(30, 40), (31, 45)], 0.2: [(31, 40), (31, 45)]})
    lines = printed(study_table(found), 90)
    assert [line.split()[0] for line in lines if "± " in line][:2] == ["lr=0.1", "lr=0.2"]
    assert not any(line.startswith("1 ") for line in lines)


def test_the_table_on_test_goes_by_the_same_number() -> None:
    found = study_of({"x": [(30, 40), (31, 45)], "y": [(60, 60), (61, 61)]}, field="of" * 20)
    on_test = replace(found, test=found.variants[1].measured)
    lines = printed(table_on_test(on_test), 80)
    assert lines[0] == f"2  {'of' * 20}=y"
    assert any(line.split()[:2] == ["2", "60.5"] for line in lines)


def test_settings_without_a_part_in_a_head_are_empty_in_the_tables(tmp_path: Path) -> None:
    store = store_with(tmp_path, "test")
    configs = grid_configs(CONFIG, {"head": ["nearest-mean", "linear"], "lr": [0.05, 0.1]})
    save_study(study(store, configs, seeds=2), tmp_path / "study")
    with (tmp_path / "study" / "study.csv").open() as file:
        rows = [(r["head"], r["lr"], r["seeds"]) for r in csv.DictReader(file)]
    assert rows == [("nearest-mean", "", "1"), ("linear", "0.05", "2"), ("linear", "0.1", "2")]
    with (tmp_path / "study" / "seeds.csv").open() as file:
        heads = [(r["head"], r["lr"], r["seed"], r["split"]) for r in csv.DictReader(file)]
    assert heads == [
        ("nearest-mean", "", "0", "test"),
        *(("linear", lr, seed, "test") for lr in ("0.05", "0.1") for seed in ("0", "1")),
    ]


def test_the_figure_of_a_head_that_no_seed_decides(tmp_path: Path) -> None:
    store = store_with(tmp_path, "test")
    found = study(store, replace(CONFIG, head="nearest-mean"), seeds=3)
    text = texts(study_dots(found, tmp_path / "once.svg"))
    assert "one head on the test split" in text
    assert "seed" not in text
