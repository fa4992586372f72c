"""Test views are averaged wherever one scores, and the commands say so."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from torch import Tensor

from cache import Store, open_store
from pipeline.balancing.pools import pool_of_store
from pipeline.config import FitConfig, SweepConfig
from pipeline.datasets import ShiftedViews
from pipeline.ensemble import mixture_probabilities
from pipeline.errors import EvaluationError
from pipeline.heads import Head, average_heads, load_head, save_head
from pipeline.image_classifiers import classifier_of_head
from pipeline.scored import scored_split
from pipeline.stages.balance_head import balance_head
from pipeline.stages.evaluate import evaluate
from pipeline.stages.predict import predict
from pipeline.stages.report import make_report
from pipeline.stages.study import study
from pipeline.stages.sweep_temps import sweep_temps
from pipeline.sweeping.files import save_sweep
from tests.commands import nolb, refused
from tests.measured_stores import planted_head, planted_store
from tests.viewed_images import CONFIG, made_store, run, some_head

GRID = SweepConfig(t_old=(1.0, 2.0), t_new=(1.0, 2.0), replicates=100, threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(made: Path) -> Store:
    return open_store(made / "s.zarr")


def test_every_command_averages_and_says_so(made: Path, store: Store, tmp_path: Path) -> None:
    head, out = some_head(store), tmp_path / "sweep"
    path = tmp_path / "h.safetensors"
    save_head(head, path)
    words = "mean feature of 4 views each"
    pairs = [(["--test-views"], 3), ([], 3), (["--no-test-views"], 0)]
    for options, n_views in pairs:
        done = nolb("evaluate", made / "s.zarr", path, "--json", tmp_path / "e.json", "--overwrite",
                    *options)  # fmt: skip
        assert (words in done.output) == bool(n_views)
        content = json.loads((tmp_path / "e.json").read_text())
        assert content.pop("written_by") == "nolb evaluate"
        assert content == evaluate(store, head, test_views=n_views > 0).to_json()
        assert content["test_views"] == n_views
    swept = nolb("sweep-temps", made / "s.zarr", path, "--out", out, "--t-old", "1,2", "--t-new", 1,
                 "--split", "test")  # fmt: skip
    assert words in swept.output
    assert words in (out / "sweep.md").read_text()
    page = tmp_path / "r.html"
    shown = nolb(
        "report", made / "s.zarr", path, "--out", page, "--sweep", out, "--no-test-views", code=1
    )
    assert "mean of 4 views of each image" in shown.output
    shown = nolb("report", made / "s.zarr", path, "--out", page, "--sweep", out)
    assert words in page.read_text(encoding="utf-8")
    told = refused("evaluate", made / "s.zarr", "--split", "train", "--test-views")
    assert "no test views of 'train'" in told


@pytest.mark.parametrize(("options", "averaged"), [((), True), (("--test-views",), True), (("--no-test-views",), False)])  # fmt: skip  # noqa: E501
def test_fit_head_and_its_studies_score_as_they_are_told(
    made: Path,
    store: Store,
    tmp_path: Path,
    options: tuple[str, ...],
    averaged: bool,
    quick_pictures: None,
) -> None:
    words, n_views = "mean feature of 4 views each", 3 if averaged else 0
    out = tmp_path / "h.safetensors"
    common = ("fit-head", made / "s.zarr", "--epochs", 2, "--out", out, *options)
    done = nolb(*common, "--json", tmp_path / "h.json")
    assert (words in done.stdout) == averaged
    content = json.loads((tmp_path / "h.json").read_text())
    assert content["old"] == evaluate(store, test_views=averaged).to_json()
    assert content["new"] == evaluate(store, load_head(out), test_views=averaged).to_json()
    assert content["new"]["test_views"] == n_views

    done = nolb(*common, "--seeds", 2, "--json", tmp_path / "s.json")
    assert (words in " ".join(done.stdout.split())) == averaged
    content = json.loads((tmp_path / "s.json").read_text())
    assert (content["split"], content["test_views"]) == ("val", n_views)
    for split in ("val", "test"):
        alone = evaluate(store, split=split, test_views=averaged)
        assert content["old"][split] == alone.to_json()
    found = study(store, FitConfig(epochs=2), seeds=2, test_views=averaged)
    assert found.test is not None
    heads = [load_head(tmp_path / "h" / f"seed{seed}.safetensors") for seed in (0, 1)]
    wanted = [evaluate(store, head, test_views=averaged) for head in heads]
    assert list(found.test.scores) == wanted
    assert content["test"] == found.test.to_json()

    # The next command, as it is printed, scores in the same way.
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("next           nolb ")]
    assert ("--no-test-views" in line) == (not averaged)


@pytest.mark.parametrize("more", [(), ("--seeds", 2)])
def test_test_views_that_are_not_there_stop_a_fit_before_its_work(
    made: Path, tmp_path: Path, more: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(made, f"none{len(more)}.zarr", dataclasses.replace(CONFIG, test_views=0)).close()
    monkeypatch.setattr("pipeline.stages.fit_head.training_rows", None)  # nothing is fitted
    monkeypatch.setattr("pipeline.stages.study.fit_linear_heads", None)
    out = tmp_path / "h.safetensors"
    done = nolb(
        "fit-head", made / f"none{len(more)}.zarr", "--out", out, "--test-views", *more, code=1
    )
    assert "leave --test-views out" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_sweep_s_cells_are_those_of_the_mean_feature(store: Store, tmp_path: Path) -> None:
    head = some_head(store)
    for how, n_views in ((None, 3), (False, 0)):
        sweep = sweep_temps(store, head, dataclasses.replace(GRID, split="test", test_views=how))
        assert (sweep.test_views, sweep.to_json()["test_views"]) == (n_views, n_views)
        cell = evaluate(store, head, t_old=2.0, t_new=1.0, test_views=how)
        assert sweep.accuracy[1, 0] == cell.accuracy
        assert sweep.test_scores is not None
        assert sweep.test_scores.test_views == n_views
        report = make_report(store, head, sweep=sweep, test_views=how)
        assert report.to_json()["test_views"] == n_views
        assert report.cell_hits is not None  # its own count agrees with the sweep's
        scored = {c.key: c.scores for c in report.content.contenders}
        assert scored["new"].recalls == evaluate(store, head, test_views=how).recalls
    folded = sweep_temps(store, head, dataclasses.replace(GRID, cross_fit=2))
    assert folded.cross_fit is not None
    assert folded.cross_fit.scores.test_views == 3
    folder = tmp_path / "plain"
    save_sweep(sweep_temps(store, head, dataclasses.replace(GRID, test_views=False)), folder)
    with pytest.raises(EvaluationError, match=r"the clean image alone.*--test-views"):
        make_report(store, head, sweep=folder)


def test_test_views_that_are_not_there_stop_a_sweep_before_its_work(tmp_path: Path) -> None:
    planted = {name: (np.eye(3), range(3)) for name in ("train", "test")}
    store = planted_store(tmp_path, planted)
    config = dataclasses.replace(GRID, test_views=True)
    with pytest.raises(EvaluationError, match="no test views of 'test': extract with"):
        sweep_temps(store, planted_head(store, np.eye(3)), config)


def test_extract_shows_the_clean_images_first_and_the_views_beside_them(
    made: Path, tmp_path: Path
) -> None:
    done = nolb(
        "extract", "--checkpoint", made / "m.pth", "--train", made / "train", "--test",
        made / "test", "--out", tmp_path / "x.zarr", "--test-views", 1, "--workers", 0,
        "--device", "cpu", "--json", tmp_path / "x.json",
    )  # fmt: skip
    assert "old, test views: the mean feature of 2 views of each image." in done.output
    content = json.loads((tmp_path / "x.json").read_text())
    with open_store(tmp_path / "x.zarr") as store:
        assert content["old"] == evaluate(store, test_views=False).to_json()
        assert content["old_test_views"] == evaluate(store).to_json()
        assert store.identity.views == {"train": None, "test": ShiftedViews(1).to_json()}


def predicted(
    made: Path, folder: Path, store: Store, head: Head, *options: object, form: str = "jsonl"
) -> Result:
    """What the command says about the test images, with a head of that store."""
    path = folder / "h.safetensors"
    save_head(dataclasses.replace(head, identity=store.identity), path, overwrite=True)
    return nolb("predict", path, made / "test", "--checkpoint", made / "m.pth", "--format", form,
                "--t-old", 2, *options)  # fmt: skip


def told(done: Result, word: str = "scored") -> list[str]:
    """What it says of views, on standard error; the other lines are of the broken image."""
    return [line for line in done.stderr.splitlines() if word in line]


@pytest.mark.parametrize(
    ("options", "averaged", "words"),
    [
        ((), True, "classified by the mean feature of 4 views"),
        (
            ("--test-views", 0),
            False,
            "Predicting with no test views, where the head's store is scored with 3",
        ),
        (("--test-views", 3), True, None),
        (("--test-views", 3, "--test-view-shift", 1), True, None),
    ],
)
def test_a_head_predicts_as_its_store_is_scored(
    made: Path,
    store: Store,
    tmp_path: Path,
    options: tuple[object, ...],
    averaged: bool,
    words: str | None,
) -> None:
    head = some_head(store)
    done = predicted(made, tmp_path, store, head, *options)
    found = {Path(p["image"]): p for p in map(json.loads, done.stdout.splitlines()) if "class" in p}
    (block,) = scored_split(store, "test", [head], averaged).blocks([None, head])
    wanted = mixture_probabilities(block.logits, (2.0, 1.0))
    usable = np.flatnonzero(store["test"].usable)
    assert len(found) == len(usable)
    for row, probabilities in zip(usable, wanted, strict=True):
        best = found[made / "test" / store["test"].ids[row]]
        assert best["class"] == store.class_names[probabilities.argmax()]
        assert best["probability"] == pytest.approx(probabilities.max(), abs=1e-5)
    if words is None:
        assert told(done) == []
    else:
        (line,) = told(done)
        assert words in line
        assert "3 test views, mirror images, moves by 1, mean padding" in line


def test_what_is_said_of_views_is_no_part_of_the_output(
    made: Path, store: Store, tmp_path: Path
) -> None:
    for form in ("csv", "jsonl", "table"):
        done = predicted(made, tmp_path, store, some_head(store), form=form)
        assert len(told(done)) == 1
        assert "takes up to 4 times as long" in told(done)[0]
        assert "mean feature" not in done.stdout
    rows = csv.DictReader(
        predicted(made, tmp_path, store, some_head(store), form="csv").stdout.splitlines()
    )
    assert {row["image"] for row in rows} == {str(each) for each in (made / "test").rglob("*.png")}


def test_a_head_of_a_store_without_test_views_sees_the_clean_image_unless_told(
    made: Path, store: Store, tmp_path: Path
) -> None:
    head = some_head(store)
    plain = run(made, "clean.zarr", dataclasses.replace(CONFIG, test_views=0))
    clean = predicted(made, tmp_path, plain, head)
    assert told(clean) == []
    assert clean.stdout == predicted(made, tmp_path, store, head, "--test-views", 0).stdout
    asked = predicted(made, tmp_path, plain, head, "--test-views", 3, "--test-view-shift", 1)
    assert asked.stdout == predicted(made, tmp_path, store, head).stdout
    (line,) = told(asked)
    assert "Predicting with 3 test views, mirror images, moves by 1, mean padding, where" in line
    assert "is scored with no test views; leave the options of test views out" in line


def balanced_on(head: Head, store: Store, test_views: bool) -> Head:
    return balance_head(head, pool_of_store(store, head, test_views=test_views)).head


def test_a_balanced_head_predicts_on_what_it_was_balanced_on(
    made: Path, store: Store, tmp_path: Path
) -> None:
    views = "3 test views, mirror images, moves by 1, mean padding"
    alone, averaged = (balanced_on(some_head(store), store, kind) for kind in (False, True))
    clean = predicted(made, tmp_path, store, alone)
    (line,) = told(clean, "balanced")
    assert line == (
        "note           The clean image alone is classified, as the head was balanced for it, "
        f"without the {views} of the head's store."
    )
    asked = predicted(made, tmp_path, store, alone, "--test-views", 0)
    assert (asked.stdout, told(asked, "views")) == (clean.stdout, [])
    assert classifier_of_head(alone, made / "m.pth").views == ShiftedViews()
    # Its shift, colour and mirror images are the store's still, where views are asked for.
    contrary = predicted(made, tmp_path, store, alone, "--test-views", 3)
    (line,) = told(contrary, "balanced")
    assert line == (
        f"note           Predicting with {views}, where the head was balanced with no test views; "
        "leave the options of test views out to predict with those."
    )
    assert contrary.stdout != clean.stdout
    (line,) = told(predicted(made, tmp_path, store, averaged), "views")
    assert "classified by the mean feature of 4 views" in line
    (line,) = told(predicted(made, tmp_path, store, averaged, "--test-views", 0), "views")
    assert f"Predicting with no test views, where the head was balanced with {views}; " in line


def test_a_mean_predicts_on_what_its_heads_were_balanced_on(
    made: Path, store: Store, tmp_path: Path
) -> None:
    alone, averaged = (balanced_on(some_head(store), store, kind) for kind in (False, True))
    for mean, views in (
        (average_heads([alone, alone]), ShiftedViews()),
        (average_heads([some_head(store), alone]), ShiftedViews()),
        (average_heads([averaged, some_head(store)]), ShiftedViews(3, shift=1)),
    ):
        assert classifier_of_head(mean, made / "m.pth").views == views
    mean = average_heads([alone, some_head(store)])
    (line,) = told(predicted(made, tmp_path, store, mean), "balanced")
    said = "note           The clean image alone is classified, as the head was balanced"
    assert line.startswith(said)


def test_an_export_tells_what_its_head_was_balanced_for(
    made: Path, store: Store, tmp_path: Path
) -> None:
    for averages in (False, True):
        path = tmp_path / f"{averages}.safetensors"
        save_head(balanced_on(some_head(store), store, averages), path)
        done = nolb(
            "export", made / "s.zarr", path, "--checkpoint", made / "m.pth", "--format",
            "safetensors", "--out", tmp_path / f"{averages}-file.safetensors", "--json",
            tmp_path / f"{averages}.json",
        )  # fmt: skip
        # What is balanced on the clean image alone is scored on it, so no scores differ.
        assert ("not of the mean of 4 views" in done.output) == averages
        said = "The head was balanced for the mean feature of 4 views, and this file sees each"
        assert (said in done.output) == averages
        left_out = json.loads((tmp_path / f"{averages}.json").read_text())["views_left_out"]
        assert left_out == 3 * averages


def test_images_are_read_in_smaller_batches_the_more_views_they_have(
    made: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []
    classifier = classifier_of_head(some_head(store), made / "m.pth")
    assert classifier.views == ShiftedViews(3, shift=1)  # not given: those of its store
    classify = classifier.classify

    def noted(versions: Tensor) -> Any:
        read.append(tuple(versions.shape[:2]))
        return classify(versions)

    monkeypatch.setattr("pipeline.image_classifiers.HELD", 12)
    paths = [made / "test/ant/0.png"] * 7
    alike = list(predict(dataclasses.replace(classifier, classify=noted), paths))
    assert read == [(4, 3), (4, 3), (4, 1)]
    assert {each.candidates[0].class_name for each in alike} == {alike[0].candidates[0].class_name}


def test_exports_see_the_clean_image_and_views_must_be_there(
    made: Path, store: Store, tmp_path: Path
) -> None:
    save_head(some_head(store), tmp_path / "h.safetensors")
    exported = nolb(
        "export", made / "s.zarr", tmp_path / "h.safetensors", "--checkpoint", made / "m.pth",
        "--format", "safetensors", "--out", tmp_path / "e.safetensors", "--images", made / "test",
        "--check", "all", "--json", tmp_path / "e.json",
    )  # fmt: skip
    # it agrees with the clean images' predictions
    assert "not of the mean of 4 views" in exported.output
    assert json.loads((tmp_path / "e.json").read_text())["views_left_out"] == 3
    told = refused("predict", tmp_path / "e.safetensors", made / "test", "--test-views", 3)
    assert "sees the clean image alone" in told
    told = refused("predict", tmp_path / "h.safetensors", made / "test", "--checkpoint",
                 made / "m.pth", "--test-views", 18, code=2)  # fmt: skip
    assert "test_views must be 0 to 17" in told
