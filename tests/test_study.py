"""Studies: many configurations over many seeds, compared honestly."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from cache import Store, open_store
from pipeline import FitConfig, evaluate, fit_head, grid_configs, load_head, save_study, study
from pipeline.cli import main
from pipeline.errors import ConfigError, EvaluationError, FitError, OutputExistsError
from pipeline.figures import studies
from pipeline.figures.studies import study_dots
from pipeline.metrics import score_hits
from pipeline.progress import Snapshot
from pipeline.studying import (
    Measurement,
    Study,
    Variant,
    judged,
    parse_sweeps,
    spread_of,
    study_folder,
    study_members,
)
from pipeline.studying import measuring as measuring_module
from pipeline.studying.tables import study_table, table_on_test
from pipeline.team import Team
from tests.measured_stores import planted_store
from tests.small_data import image_folder, small_checkpoint

CONFIG = FitConfig(epochs=4, batch_size=16)
N_CLASSES = 3


@pytest.fixture(autouse=True)
def _quick_and_searchable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.figures.canvas.DPI", 40)
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # letters stay letters


def store_with(folder: Path, *splits: str, shuffled: str | None = None) -> Store:
    """Noisy features around a corner for each class, some rows failed; one split may lie."""
    rng = np.random.default_rng(0)
    planted = {}
    for name in ("train", *splits):
        labels = np.repeat(np.arange(N_CLASSES), [50, 20, 10] if name == "train" else [20] * 3)
        features = 1.5 * np.eye(N_CLASSES, 5)[labels] + rng.normal(0, 0.7, (len(labels), 5))
        shown = rng.permutation(labels) if name == shuffled else labels
        planted[name] = (features, shown)
    failures = {name: {3: "torn"} for name in planted}
    return planted_store(folder, planted, weight=np.eye(N_CLASSES, 5), failures=failures)


def study_of(
    values: dict[Any, Sequence[tuple[int, int]]], split: str = "val", field: str = "lr"
) -> Study:
    """A study of heads that get so many of 100 samples of each of two classes right, by setting."""
    head: Any = object()  # one that nobody looks into
    variants = tuple(
        Variant(
            settings={field: value} if len(values) > 1 else {},
            seeds=tuple(range(len(hits))),
            heads=(head,) * len(hits),
            measured=Measurement(
                tuple(score_hits(h, (100, 100), (9, 9), ("ant", "bee"), split) for h in hits)
            ),
        )
        for value, hits in values.items()
    )
    return judged(
        Study(
            split=split, config=FitConfig(), variants=variants, n_samples=200, n_failed=0,
            n_rows=18, seconds=1.0,
        )
    )  # fmt: skip


def text_of(table: Any) -> str:
    """Its text with single spaces, wherever lines were broken."""
    console = Console(width=110, file=io.StringIO())
    console.print(table)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]  # a StringIO


# Statistics


def test_mean_deviation_and_interval_by_hand() -> None:
    # Student's t for 2 degrees of freedom is 4.3027; 4.3027 * 2 / sqrt(3) = 4.9683.
    spread = spread_of([36, 38, 40])
    assert (spread.mean, spread.deviation) == (38, 2)
    assert spread.interval == pytest.approx((38 - 4.9683, 38 + 4.9683), abs=1e-4)
    alone = spread_of([7.0])
    assert (alone.mean, alone.deviation, alone.interval) == (7.0, None, None)
    assert alone.to_json()["low"] is None


def test_no_interval_leaves_what_is_possible() -> None:
    # Mean 1, deviation sqrt(3): 4.3027 * sqrt(3) / sqrt(3) to either side, 0 at the lowest.
    assert spread_of([0, 0, 3]).interval == pytest.approx((0, 5.3027), abs=1e-4)
    assert spread_of([100, 100, 97], highest=100).interval == pytest.approx(
        (94.6973, 100), abs=1e-4
    )


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(50, 3, (2000, 5))
    held = [low <= 50 <= high for low, high in (spread_of(list(d)).interval or () for d in draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)  # three deviations of 2000 draws


# Grids


def test_sweeps_are_read_as_in_a_recipe() -> None:
    assert parse_sweeps(["lr=0.05,1e-1", "views=yes,no", "epochs=5"]) == {
        "lr": [0.05, "1e-1"], "views": [True, False], "epochs": [5],
    }  # fmt: skip
    both = parse_sweeps(["lr=0.05,0.1,weight-decay=1e-4, 5e-4"])
    assert both == {"lr": [0.05, 0.1], "weight_decay": ["1e-4", "5e-4"]}
    assert parse_sweeps([]) == {}


def test_a_grid_is_every_combination_with_the_last_field_fastest() -> None:
    configs = grid_configs(CONFIG, {"lr": [0.1, "2e-1"], "loss": ["gml", "cross-entropy"]})
    assert [(c.lr, c.loss) for c in configs] == [
        (0.1, "gml"), (0.1, "cross-entropy"), (0.2, "gml"), (0.2, "cross-entropy"),
    ]  # fmt: skip
    assert {dataclasses.replace(c, lr=0.1, loss="gml") for c in configs} == {CONFIG}
    assert grid_configs(CONFIG, {}) == [CONFIG]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["lr"], "no list of values: give FIELD=VALUE"),
        (["lr="], "no list of values"),
        (["lr=0.1,,0.2"], "no list of values"),
        (["=3"], "There is no setting ''"),
        (["lr=0.1", "lr=0.2"], "--sweep lr is given twice"),
        (["lr=0.1,1e-1"], "holds a value twice"),
        (["rate=0.1"], "There is no setting 'rate' to sweep; those are: loss, "),
        (["seed=0,1"], "seeds are varied with --seeds"),
        (["device=cpu,cuda"], "share one device"),
        (["lr=0.1,-1"], "lr must be above 0, not -1"),
        (["lr=0.1,fast"], "lr must be a number, not 'fast'"),
        (["epochs=1.5"], "epochs must be a whole number, not 1.5"),
        (["loss=gml,hinge"], "loss must be one of gml"),
        (["lr={"], "lr must be a number"),
        ([f"lr={','.join(map(str, range(1, 2002)))}"], "up to 2,000 heads, not 2,001"),
    ],
)
def test_what_is_no_grid_is_told_in_a_sentence(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        grid_configs(CONFIG, parse_sweeps(texts))
    assert "\n" not in str(caught.value)


def test_seeds_count_up_and_averaged_heads_share_none() -> None:
    (plain,) = study_members([dataclasses.replace(CONFIG, seed=5)], 3)
    assert [c.seed for c in plain] == [5, 6, 7]
    averaged = dataclasses.replace(CONFIG, average_seeds=4)
    (members,) = study_members([averaged], 3)
    used = [seed for c in members for seed in range(c.seed, c.seed + c.average_seeds)]
    assert used == list(range(12))


@pytest.mark.parametrize(
    ("configs", "seeds", "words"),
    [
        ([CONFIG], 0, "seeds must be 1 or more"),
        ([], 1, "one configuration or more"),
        ([CONFIG, CONFIG], 1, "two are the same"),
        ([CONFIG, dataclasses.replace(CONFIG, seed=1)], 1, "--seeds"),
        ([CONFIG], 2001, "up to 2,000 heads"),
    ],
)
def test_what_is_no_study_is_told(configs: list[FitConfig], seeds: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study_members(configs, seeds)


# The stage


def test_its_heads_and_scores_are_those_of_single_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring_module, "LOGITS_OF_A_ROW", 2 * N_CLASSES)  # two heads at a time
    store = store_with(tmp_path, "test")
    configs = grid_configs(CONFIG, {"lr": [0.05, 0.1], "loss": ["gml", "cross-entropy"]})
    found = study(store, configs, seeds=3)
    assert [v.settings for v in found.variants] == [
        {"loss": c.loss, "lr": c.lr} for c in configs
    ]  # fmt: skip
    for config, variant in zip(configs, found.variants, strict=True):
        assert variant.seeds == (0, 1, 2)
        assert variant.measured is not None
        for seed, head, scores in zip(
            variant.seeds, variant.heads, variant.measured.scores, strict=True
        ):
            single = fit_head(store, dataclasses.replace(config, seed=seed)).head
            assert head is not None
            assert np.allclose(head.weight, single.weight, atol=1e-5)
            assert head.config == single.config
            assert scores == evaluate(store, head)
    assert (found.split, found.n_samples, found.n_failed, found.n_rows) == ("test", 59, 1, 79)
    assert found.old == {"test": evaluate(store)}


def test_without_validation_nothing_is_chosen(tmp_path: Path) -> None:
    store = store_with(tmp_path, "test")
    found = study(store, grid_configs(CONFIG, {"lr": [1e-6, 0.1]}), seeds=2)
    assert (found.split, found.chosen, found.kept, found.test) == ("test", None, None, None)
    assert found.to_json()["chosen_on"] is None
    assert "Nothing was chosen on this split" in text_of(study_table(found))
    assert table_on_test(found) is None
    assert save_study(found, tmp_path / "study") == []
    only = study(store, CONFIG, seeds=2)
    assert (only.chosen, only.kept, only.test) == (None, only.variants[0], None)


@pytest.mark.parametrize("shuffled", [None, "test"])
def test_validation_chooses_and_test_has_no_part_in_it(
    tmp_path: Path, shuffled: str | None
) -> None:
    # A learning rate of 1e-6 leaves the head as it was drawn.
    store = store_with(tmp_path, "val", "test", shuffled=shuffled)
    found = study(store, grid_configs(CONFIG, {"lr": [1e-6, 0.1, 1e-5]}), seeds=3)
    assert (found.split, found.chosen) == ("val", 1)
    assert found.kept is not None
    assert found.test is not None
    heads = [head for head in found.kept.heads if head is not None]
    assert list(found.test.scores) == [evaluate(store, head) for head in heads]
    assert set(found.old) == {"val", "test"}
    assert "had no part" in text_of(table_on_test(found))


def test_test_views_are_averaged_as_everywhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_CLASSES), 8)
    corners = np.eye(N_CLASSES, 5)[labels]
    planted = {
        name: (corners + rng.normal(0, 1, corners.shape), labels) for name in ("train", "test")
    }
    views = {"test": corners + rng.normal(0, 1, (2, *corners.shape))}
    store = planted_store(tmp_path, planted, weight=np.eye(N_CLASSES, 5), views=views)
    found = study(store, CONFIG, seeds=2)
    assert found.variants[0].measured is not None
    for head, scores in zip(
        found.variants[0].heads, found.variants[0].measured.scores, strict=True
    ):
        assert scores == evaluate(store, head)
    assert found.test_views == 2
    assert "mean feature of 3 views each" in text_of(study_table(found))


def test_a_configuration_that_diverged_has_no_figures(tmp_path: Path) -> None:
    store = store_with(tmp_path, "val", "test")
    found = study(store, grid_configs(CONFIG, {"lr": [0.1, 1e38]}), seeds=2)
    assert [v.n_diverged for v in found.variants] == [0, 2]
    assert found.variants[1].measured is None
    assert found.chosen == 0
    assert "2 of 2 fits diverged with lr=1e+38: its steps are too large." in found.warnings
    assert found.to_json()["configurations"][1]["harmonic_mean"] is None
    assert "diverged" in text_of(study_table(found))
    save_study(found, tmp_path / "study")
    with pytest.raises(FitError, match="Every fit of the study diverged"):
        study(store, dataclasses.replace(CONFIG, lr=1e38), seeds=2)


def test_a_store_that_cannot_be_scored_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.study.fit_linear_heads", None)
    with pytest.raises(EvaluationError, match="no split 'test'"):
        study(store_with(tmp_path), CONFIG)


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    study(store_with(tmp_path, "test"), CONFIG, seeds=2, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total >= CONFIG.epochs


# The choice


def test_ties_go_to_the_better_worst_class_then_to_the_first() -> None:
    assert study_of({0.1: [(50, 50)], 0.2: [(60, 60)], 0.3: [(55, 55)]}).chosen == 1
    assert study_of({0.1: [(50, 50)], 0.2: [(50, 50)]}).chosen == 0
    # Harmonic means of both seeds are 48 and 60: 2 / (1/40 + 1/60) = 48, 54 on average.
    equal = study_of({0.1: [(40, 60), (60, 60)], 0.2: [(54, 54), (54, 54)]})
    assert equal.chosen == 1
    assert study_of({0.1: [(50, 50)], 0.2: [(60, 60)]}, split="test").chosen is None


def test_what_these_seeds_cannot_tell_apart_is_marked() -> None:
    found = study_of(
        {
            "a": [(60, 60), (70, 70), (65, 65)],
            "b": [(61, 61), (69, 69), (64, 64)],  # now better, now worse
            "c": [(58, 58), (68, 68), (63, 63)],  # always worse by 2, however seeds vary
        },
        field="loss",
    )
    assert (found.chosen, found.alike) == (0, (1,))
    shown = text_of(study_table(found))
    assert "chosen: the highest mean harmonic mean;" in shown
    assert "alike: its harmonic mean cannot be told" in shown


def test_a_best_value_on_the_edge_is_reported() -> None:
    assert study_of({0.1: [(50, 50)], 0.2: [(60, 60)], 0.3: [(55, 55)]}).warnings == ()
    (warning,) = study_of({0.1: [(50, 50)], 0.2: [(60, 60)]}).warnings
    assert "The best lr = 0.2 lies on the edge of the values tried, 0.1 to 0.2" in warning
    assert study_of({"gml": [(9, 9)], "vs": [(8, 8)]}, field="loss").warnings == ()
    assert study_of({True: [(9, 9)], False: [(8, 8)]}, field="views").warnings == ()


def test_a_table_says_what_its_numbers_are() -> None:
    text = text_of(study_table(study_of({0.1: [(0, 50), (10, 60)]})))
    assert "27.5" in text.split("lr")[-1] or "30.0" in text  # accuracy: 25 and 35
    assert "5.0 ± 7.1" in text  # lowest recall: 0 and 10
    assert "0.5 ± 0.7" in text  # classes at zero: 1 and 0
    assert "2 seeds" in text
    assert "It covers what the seed decides, not which images" in text
    assert "* Classes of zero recall count as 0.1 % in this mean." in text
    alone = text_of(study_table(study_of({0.1: [(50, 50)]})))
    assert "One seed: no spread." in alone
    assert "±" not in alone


# Files and the figure


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


# The command


def nolb(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store on disk with train, val and test, made by the command."""
    folder = tmp_path_factory.mktemp("store")
    small_checkpoint(folder / "m.pth")
    for k, name in enumerate(("train", "val", "test")):
        image_folder(folder / name, (6, 4, 2), seed=k)
    sources = [part for name in ("train", "val", "test") for part in (f"--{name}", folder / name)]
    result = nolb(
        "extract", "--checkpoint", folder / "m.pth", *sources, "--out", folder / "s.zarr",
        "--workers", 0, "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder / "s.zarr"


def test_seeds_write_heads_that_the_next_command_takes(store_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    result = nolb("fit-head", store_path, "--out", out, "--seeds", 3, "--seed", 7, "--json", "-")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    heads = [tmp_path / "head" / f"seed{seed}.safetensors" for seed in (7, 8, 9)]
    assert content["heads"] == [str(path) for path in heads]
    assert content["configurations"][0]["seeds"] == [7, 8, 9]
    assert content["test"] is not None
    assert "fitted  3 seeds, over 12 rows" in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Next: nolb ")]
    words = shlex.split(line.removeprefix("Next: nolb "))
    globbed = [
        str(each)
        for word in words
        for each in (sorted(Path(word).parent.glob(Path(word).name)) if "*" in word else [word])
    ]
    few = ["--t-old", "1,2", "--t-new", "1,2", "--replicates", 0]
    assert nolb(*globbed, *few).exit_code == 0


def test_a_sweep_is_chosen_on_validation_and_shown_on_test(
    store_path: Path, tmp_path: Path
) -> None:
    result = nolb(
        "fit-head", store_path, "--out", tmp_path / "study", "--epochs", 2, "--sweep",
        "lr=0.1,1e-6", "--sweep", "loss=gml,cross-entropy", "--json", tmp_path / "s.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["chosen_on"] == "val"
    assert len(content["configurations"]) == 4
    assert len(content["heads"]) == 5
    assert "fitted  4 configurations with 5 seeds each" in result.stdout
    assert "on the val split" in result.stdout
    assert "on the test split (12 images), which had no part in the choice" in result.stdout
    again = nolb("fit-head", store_path, "--out", tmp_path / "study", "--seeds", 2)
    assert again.exit_code == 1
    assert "holds study.csv" in again.stderr
    assert nolb(
        "fit-head", store_path, "--out", tmp_path / "study", "--seeds", 2, "--overwrite"
    ).exit_code == 0  # fmt: skip
    assert len(list((tmp_path / "study").glob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sweep", "rate=1"], "There is no setting 'rate' to sweep"),
        (["--sweep", "lr=0.1,x"], "lr must be a number, not 'x'"),
        (["--sweep", "seed=1,2"], "--seeds"),
        (["--seeds", 0], "--seeds"),
        (["--seeds", 3000], "up to 2,000 heads"),
    ],
)
def test_what_cannot_be_studied_is_one_sentence(
    store_path: Path, tmp_path: Path, options: list[object], words: str
) -> None:
    result = nolb("fit-head", store_path, "--out", tmp_path / "study", *options)
    assert result.exit_code == 2  # usage
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_study_is_the_work_of_one_process(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Team, "from_environment", lambda **_: Team(size=2))
    result = nolb("fit-head", store_path, "--out", tmp_path / "study", "--seeds", 2)
    assert result.exit_code == 2
    assert "leave torchrun out" in result.stderr


def test_one_fit_says_how_it_ended(store_path: Path, tmp_path: Path) -> None:
    def fit(name: str, *settings: str | int) -> tuple[str, Any]:
        out = tmp_path / f"{name}.safetensors"
        result = nolb(
            "fit-head", store_path, "--out", out, *settings, "--json", out.with_suffix("")
        )
        assert result.exit_code == 0, result.output
        return result.stdout, json.loads(out.with_suffix("").read_text())["convergence"]

    newton = ("--solver", "l-bfgs", "--standardize", "--weight-decay", "1e-2")
    text, how = fit("whole", *newton, "--epochs", 50)
    assert how["converged"]
    assert f"gml, l-bfgs converged after {how['iterations']} iterations over" in text
    assert "optimum" not in text
    text, how = fit("cut", *newton, "--epochs", 1)
    assert not how["converged"]
    assert "l-bfgs stopped after 10 iterations over" in text
    assert "give more --epochs, of ten iterations each, or more --weight-decay" in " ".join(
        text.split()
    )
    text, how = fit("means", "--head", "nearest-mean")
    assert how is None
    assert "fitted  nearest-mean head over" in text
    text, _ = fit("adjusted", "--head", "logit-adjusted")
    assert "made  logit-adjusted head from the old one in" in text


def test_fits_that_stop_too_early_are_told(store_path: Path, tmp_path: Path) -> None:
    with open_store(store_path) as store:
        short = FitConfig(solver="l-bfgs", epochs=1, weight_decay=1e-4)
        found = study(store, short, seeds=2)
        averaged = fit_head(store, dataclasses.replace(short, average_seeds=2))
    assert found.warnings == ("2 of 2 fits stopped before they converged: give more epochs.",)
    assert averaged.convergence is not None
    assert not averaged.convergence.converged


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
