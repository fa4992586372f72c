"""Studies from the command line, and what `fit-head` says of one fit."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from cache import open_store
from pipeline import FitConfig, fit_head, study
from pipeline.team import Team
from tests.commands import nolb, refused
from tests.small_data import image_folder, small_checkpoint

pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store on disk with train, val and test, made by the command."""
    folder = tmp_path_factory.mktemp("store")
    small_checkpoint(folder / "m.pth")
    for k, name in enumerate(("train", "val", "test")):
        image_folder(folder / name, (6, 4, 2), seed=k)
    sources = [part for name in ("train", "val", "test") for part in (f"--{name}", folder / name)]
    nolb(
        "extract", "--checkpoint", folder / "m.pth", *sources, "--out", folder / "s.zarr",
        "--workers", 0, "--device", "cpu",
    )  # fmt: skip
    return folder / "s.zarr"


def test_seeds_write_heads_that_the_next_command_takes(store_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.safetensors"
    result = nolb("fit-head", store_path, "--out", out, "--seeds", 3, "--seed", 7, "--json", "-")
    content = json.loads(result.stdout)
    heads = [tmp_path / "head" / f"seed{seed}.safetensors" for seed in (7, 8, 9)]
    assert content["heads"] == [str(path) for path in heads]
    assert content["configurations"][0]["seeds"] == [7, 8, 9]
    assert content["test"] is not None
    assert "fitted         3 seeds, over 12 rows" in result.stderr
    label = "next           nolb "
    (line,) = [line for line in result.stderr.splitlines() if line.startswith(label)]
    words = shlex.split(line.removeprefix(label))
    globbed = [
        str(each)
        for word in words
        for each in (sorted(Path(word).parent.glob(Path(word).name)) if "*" in word else [word])
    ]
    few = ["--t-old", "1,2", "--t-new", "1,2", "--replicates", 0]
    nolb(*globbed, *few)


def test_a_sweep_is_chosen_on_validation_and_shown_on_test(
    store_path: Path, tmp_path: Path
) -> None:
    result = nolb(
        "fit-head", store_path, "--out", tmp_path / "study", "--epochs", 2, "--sweep",
        "lr=0.1,1e-6", "--sweep", "loss=gml,cross-entropy", "--json", tmp_path / "s.json",
    )  # fmt: skip
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["chosen_on"] == "val"
    assert len(content["configurations"]) == 4
    assert len(content["heads"]) == 5
    assert "fitted         4 configurations with 5 seeds each" in result.stdout
    assert "on the val split" in result.stdout
    assert "on the test split (12 images), which had no part in the choice" in result.stdout
    told = refused("fit-head", store_path, "--out", tmp_path / "study", "--seeds", 2)
    assert "study.csv exists already" in told
    nolb(
        "fit-head", store_path, "--out", tmp_path / "study", "--seeds", 2, "--overwrite"
    )  # fmt: skip
    assert len(list((tmp_path / "study").glob("*.safetensors"))) == 2


def test_a_sweep_names_a_head_by_what_decides_it(store_path: Path, tmp_path: Path) -> None:
    result = nolb(
        "fit-head", store_path, "--out", tmp_path / "study", "--epochs", 2, "--seeds", 2,
        "--sweep", "head=nearest-mean,linear", "--sweep", "solver=sgd,adamw",
        "--sweep", "momentum=0.5,0.9", "--json", "-",
    )  # fmt: skip
    content = json.loads(result.stdout)
    assert [of["settings"] for of in content["configurations"]] == [
        {"head": "nearest-mean"},
        {"head": "linear", "solver": "sgd", "momentum": 0.5},
        {"head": "linear", "solver": "sgd", "momentum": 0.9},
        {"head": "linear", "solver": "adamw"},
    ]
    assert "fitted         4 configurations with 2 seeds each (one head where" in result.stderr
    assert "linear, solver=adamw\n" in result.stderr


def test_seeds_of_a_head_that_has_none_are_one_head(store_path: Path, tmp_path: Path) -> None:
    result = nolb(
        "fit-head", store_path, "--out", tmp_path / "means", "--head", "nearest-mean", "--seeds", 3
    )
    assert "fitted         one head, over 12 rows" in result.stdout
    assert "No seed decides this head: it was fitted once" in result.stdout
    assert "±" not in result.stdout
    assert [path.name for path in (tmp_path / "means").glob("*.safetensors")] == [
        "seed0.safetensors"
    ]


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
    told = refused("fit-head", store_path, "--out", tmp_path / "study", *options, code=2)
    assert words in told
    assert not list(tmp_path.iterdir())


def test_a_study_is_the_work_of_one_process(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Team, "from_environment", lambda **_: Team(size=2))
    told = refused("fit-head", store_path, "--out", tmp_path / "study", "--seeds", 2, code=2)
    assert "leave torchrun out" in told


def test_one_fit_says_how_it_ended(store_path: Path, tmp_path: Path) -> None:
    def fit(name: str, *settings: str | int) -> tuple[str, Any]:
        out = tmp_path / f"{name}.safetensors"
        result = nolb(
            "fit-head", store_path, "--out", out, *settings, "--json", out.with_suffix("")
        )
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
    assert "fitted         nearest-mean head over" in text
    text, _ = fit("adjusted", "--head", "logit-adjusted")
    assert "made           logit-adjusted head from the old one in" in text


def test_fits_that_stop_too_early_are_told(store_path: Path, tmp_path: Path) -> None:
    with open_store(store_path) as store:
        short = FitConfig(solver="l-bfgs", epochs=1, weight_decay=1e-4)
        found = study(store, short, seeds=2)
        averaged = fit_head(store, dataclasses.replace(short, average_seeds=2))
    assert found.warnings == ("2 of 2 fits stopped before they converged: give more epochs.",)
    assert averaged.convergence is not None
    assert not averaged.convergence.converged
