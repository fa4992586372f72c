"""The commands `sweep-temps` and `evaluate` with everything that a choice of temperatures needs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cache import Store
from pipeline.heads import load_head, save_head
from tests.commands import nolb, refused
from tests.measured_stores import planted_head, planted_store

N_CLASSES = 4


@pytest.fixture
def store(tmp_path: Path, quick_pictures: None) -> Store:
    rng = np.random.default_rng(0)
    labels = np.arange(80) % N_CLASSES
    features = 2 * np.eye(N_CLASSES)[labels] + rng.normal(size=(80, N_CLASSES))
    store = planted_store(tmp_path, {"train": (features, labels), "test": (features, labels)})
    for seed in range(2):
        weight = np.diag([0.5, 1, 1, 3]) + rng.normal(0, 0.3, (N_CLASSES, N_CLASSES))
        save_head(planted_head(store, weight), tmp_path / f"seed{seed}.safetensors")
    return store


def test_cross_fitting_is_asked_for_and_said(store: Store, tmp_path: Path) -> None:
    head, out = tmp_path / "seed0.safetensors", tmp_path / "out"
    result = nolb(
        "sweep-temps", store.path, head, "--out", out, "--t-old", "1,2", "--t-new", "0.5,1",
        "--cross-fit", 4, "--replicates", 100, "--json", tmp_path / "sweep.json",
    )  # fmt: skip
    assert "Cross-fitted on test" in result.output
    assert "indistinguishable from its best" in result.output
    assert "ensemble - old" in result.output
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["chosen_on"] == "test"
    assert len(content["cross_fit"]["folds"]) == 4
    assert content["test"] == content["cross_fit"]["scores"]


def test_calibration_of_several_heads_with_weights(store: Store, tmp_path: Path) -> None:
    heads = [tmp_path / f"seed{k}.safetensors" for k in range(2)]
    out = tmp_path / "out"
    result = nolb(
        "sweep-temps", store.path, *heads, "--out", out, "--t-old", "1", "--t-new", "1",
        "--choose", "nll", "--cross-fit", 2, "--weights", "2,1,1", "--replicates", 0,
    )  # fmt: skip
    assert "new 2" in result.output
    assert (out / "reliability.png").stat().st_size > 1000
    content = json.loads((out / "sweep.json").read_text())
    assert content["chosen_by"] == "nll"
    assert len(content["temperatures"]) == 3
    # The choice, given to `evaluate`, is the chosen cell.
    t_old, *t_new = content["temperatures"]
    again = nolb(
        "evaluate", store.path, *heads, "--t-old", t_old, "--t-new", ",".join(map(str, t_new)),
        "--weights", "2,1,1", "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert "ensemble" in again.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    chosen = content["chosen"]
    (cell,) = [
        c for c in content["cells"]
        if (c["t_old"], c["t_new"]) == (chosen["t_old"], chosen["t_new"])
    ]  # fmt: skip
    assert scores["accuracy"] == pytest.approx(cell["accuracy"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--cross-fit", "1", "cross_fit must be 2 folds or more"),
        ("--weights", "1:4:3", "no list of weights"),
        ("--weights", "0,0", "no list of weights"),
        ("--memory", "1MiB", "memory must be 256MiB or more"),
        ("--memory", "1024", "'1024' is no size: give a number and a unit"),
    ],
)
def test_settings_that_no_sweep_could_use_are_wrong_usage(
    store: Store, tmp_path: Path, option: str, value: str, message: str
) -> None:
    words = ["sweep-temps", store.path, tmp_path / "seed0.safetensors", "--out", tmp_path / "o"]
    assert message in refused(*words, option, value, code=2)


def test_the_help_names_what_options_take() -> None:
    said = " ".join(nolb("sweep-temps", "--help").output.split())
    for option in ("--weights W,W[,W...]", "--memory SIZE", "--t-old GRID"):
        assert option in said
    assert "[default: 1GiB]" in said
    for command in ("fit-head", "pretrain"):
        assert "--memory SIZE" in nolb(command, "--help").output


def test_a_head_of_weight_0_is_left_out_of_a_sweep(store: Store, tmp_path: Path) -> None:
    heads = [tmp_path / f"seed{k}.safetensors" for k in range(2)]
    common = ["--t-old", "1,2", "--t-new", "1,2", "--replicates", 100]
    nolb(
        "sweep-temps", store.path, *heads, "--out", tmp_path / "a", "--weights", "2,0,1", *common
    )  # fmt: skip
    nolb("sweep-temps", store.path, heads[1], "--out", tmp_path / "b", "--weights", "2,1", *common)
    pair = [json.loads((tmp_path / name / "sweep.json").read_text()) for name in "ab"]
    assert pair[0]["cells"] == pair[1]["cells"]
    assert pair[0]["weights"] == [2, 1]
    assert list(pair[0]["bootstrap"]["differences"]) == ["old", "new 2"]
    words = ["sweep-temps", store.path, *heads, "--out", tmp_path / "c", "--weights", "0,1,1"]
    assert "scored with nolb evaluate, as --weights 0,1,1" in refused(*words)


def test_the_mean_of_two_heads_is_scored_as_their_mean_logits(store: Store, tmp_path: Path) -> None:
    heads = [tmp_path / f"seed{k}.safetensors" for k in range(2)]
    out = tmp_path / "mean.safetensors"
    result = nolb("average-heads", *heads, "--out", out, "--weights", "3,1")
    assert "averaged 2 heads" in " ".join(result.output.split())
    features = store["test"].features()
    logits = [load_head(head).logits(features) for head in heads]
    expected = (0.75 * logits[0] + 0.25 * logits[1]).argmax(axis=1) == store["test"].labels
    nolb("evaluate", store.path, out, "--json", tmp_path / "mean.json")
    scores = json.loads((tmp_path / "mean.json").read_text())
    assert scores["accuracy"] == pytest.approx(100 * expected.mean())
    assert "exists already" in refused("average-heads", heads[0], "--out", out)
    again = nolb("average-heads", *heads, "--out", out, "--overwrite", "--json", "-")
    assert json.loads(again.stdout) == {
        "written_by": "nolb average-heads",
        "head": str(out), "average_of": list(map(str, heads)), "weights": None,
        "balanced_for_test_views": None,
    }  # fmt: skip


def test_a_range_of_one_temperature_is_one_temperature(store: Store, tmp_path: Path) -> None:
    head, page = tmp_path / "seed0.safetensors", tmp_path / "r.html"
    said = nolb(
        "sweep-temps", store.path, head, "--out", tmp_path / "out", "--t-old", "9.5137",
        "--t-new", "0.5:2:3", "--replicates", 100,
    ).output  # fmt: skip
    assert "best harmonic mean on test, including all pairs with t_old = 9.51 and t_new " in said
    nolb("report", store.path, head, "--out", page, "--sweep", tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "among them every pair with t<sub>old</sub> = 9.51 and t<sub>new</sub> " in text
