"""The stage and the command `predict`."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from pipeline import image_classifiers, progress
from pipeline.cli.predict import _table
from pipeline.ensemble import ensemble_probabilities, softmax
from pipeline.errors import DatasetError
from pipeline.exporting import Agreement, open_export
from pipeline.extracting.running import RunningModel
from pipeline.heads import save_head
from pipeline.image_classifiers import classifier_of_export, classifier_of_head, find_images
from pipeline.mixture import Mixture
from pipeline.progress import Snapshot
from pipeline.scored import ScoredSplit
from pipeline.stages.export import export
from pipeline.stages.predict import Candidate, Prediction, predict
from tests.commands import nolb, refused
from tests.exporting.exported import TEMPERATURES, Small, small_extraction


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    found = small_extraction(tmp_path_factory.mktemp("small"))
    save_head(found.head, found.folder / "head.safetensors")
    return found


def test_predictions_are_the_stores_for_both_heads_and_the_ensemble(small: Small) -> None:
    classifier = classifier_of_head(small.head, small.checkpoint, TEMPERATURES)
    split = small.store["test"]
    old, new = split.logits(), small.head.logits(split.features())
    both = ensemble_probabilities(old, new, *TEMPERATURES)
    paths = [small.images / each for each in split.ids]
    found = list(predict(classifier, paths, top=3))
    assert [each.image for each in found] == list(map(str, paths))
    for row, prediction in enumerate(found):
        best = prediction.candidates[0]
        c = int(both[row].argmax())
        assert best.class_name == small.store.class_names[c]
        assert prediction.old_class == small.store.class_names[int(old[row].argmax())]
        values = (best.probability, best.old, best.new)
        wanted = (both[row, c], softmax(old)[row, c], softmax(new)[row, c])
        np.testing.assert_allclose(values, wanted, atol=1e-5)
        assert sum(each.probability for each in prediction.candidates) == pytest.approx(1)


def test_without_temperatures_the_new_head_predicts_as_evaluate_scores_it(small: Small) -> None:
    split = small.store["test"]
    paths = [small.images / each for each in split.ids]
    found = list(predict(classifier_of_head(small.head, small.checkpoint), paths))
    names = small.store.class_names
    predictions = [names.index(each.candidates[0].class_name) for each in found]
    alone = ScoredSplit(small.store, "test").predictions([small.head])
    assert predictions == alone.tolist()
    both = ScoredSplit(small.store, "test").predictions([small.head], Mixture((1.0, 1.0)))
    assert predictions != both.tolist()  # or the two could not be told apart
    for each in found:
        assert each.new_class == each.candidates[0].class_name
        assert each.candidates[0].new == each.candidates[0].probability
        assert each.old_class is not None  # of the checkpoint's own head, to compare with


def test_an_export_with_both_heads_says_what_each_thinks(small: Small, tmp_path: Path) -> None:
    result = export(
        small.store, small.head, small.checkpoint, tmp_path, format="safetensors",
        temperatures=TEMPERATURES,
    )  # fmt: skip
    paths = find_images([small.images])
    live = list(predict(classifier_of_head(small.head, small.checkpoint, TEMPERATURES), paths))
    read = list(predict(classifier_of_export(open_export(result.path)), paths))
    for a, b in zip(live, read, strict=True):
        assert (a.old_class, a.new_class) == (b.old_class, b.new_class)
        assert a.candidates[0].class_name == b.candidates[0].class_name
        assert a.candidates[0].old == pytest.approx(b.candidates[0].old, abs=1e-5)


def test_unreadable_images_stand_in_their_place_with_the_reason(
    small: Small, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    shutil.copy(small.images / "ant" / "0.png", tmp_path / "good.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "wide.png")
    classifier = classifier_of_head(small.head, small.checkpoint)
    found = list(predict(classifier, find_images([tmp_path])))
    assert [Path(each.image).name for each in found] == ["bad.png", "good.png", "wide.png"]
    assert found[0].error == "not an image of a known format"
    assert found[1].error is None
    assert found[2].error is None  # this network takes any size


def test_reading_processes_change_nothing(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.images, tmp_path / "images")
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "wide.png")
    paths = find_images([tmp_path / "images"]) * 10  # several batches
    classifier = classifier_of_head(small.head, small.checkpoint, TEMPERATURES, device="cpu")
    alone = list(predict(classifier, paths, workers=0))
    assert list(predict(classifier, paths, workers=2)) == alone
    assert [each.image for each in alone] == paths
    assert sum(each.error is not None for each in alone) == 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_device_that_is_not_there_is_refused_in_one_sentence(
    small: Small, tmp_path: Path
) -> None:
    head, model = small.folder / "head.safetensors", ("--checkpoint", small.checkpoint)
    out = ("--out", tmp_path / "out.safetensors")
    for command in (
        ("predict", head, small.images, *model),
        ("export", small.store.path, head, *model, "--format", "safetensors", *out,
         "--images", small.images),
        ("export", small.store.path, head, *model, "--format", "torch-export", *out[:1], tmp_path,
         "--images", small.images),
        ("balance-head", head, "--images", small.images, *model, *out),
    ):  # fmt: skip
        assert "choose --device cpu" in refused(*command, "--device", "cuda", code=2)
        assert "device must be auto, cpu" in refused(*command, "--device", "tpu", code=2)
        assert "workers must be 0 or more" in refused(*command, "--workers", -2, code=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [None, "safetensors", "torch-export"])
def test_a_gpu_predicts_as_the_cpu_does(small: Small, tmp_path: Path, name: str | None) -> None:
    found = []
    for device in ("cpu", "cuda"):
        classifier = classifier_of_head(small.head, small.checkpoint, TEMPERATURES, device=device)
        if name is not None:
            result = export(
                small.store, small.head, small.checkpoint, tmp_path / device, format=name,
                temperatures=TEMPERATURES, images=small.images, device=device,
            )  # fmt: skip
            assert result.agreement == Agreement(n_images=12, n_different=0, n_unreadable=0)
            classifier = classifier_of_export(open_export(result.path, device=device))
        found.append(list(predict(classifier, find_images([small.images]), top=3)))
    for cpu, gpu in zip(*found, strict=True):
        wanted = {each.class_name: each.probability for each in cpu.candidates}
        got = {each.class_name: each.probability for each in gpu.candidates}
        assert got == pytest.approx(wanted, abs=1e-2)  # convolutions may use TF32


def test_a_program_names_the_size_that_it_takes(small: Small, tmp_path: Path) -> None:
    result = export(
        small.store, small.head, small.checkpoint, tmp_path, format="torch-export", side=small.side
    )
    Image.new("RGB", (30, 20)).save(tmp_path / "wide.png")
    classifier = classifier_of_export(open_export(result.path))
    (found,) = predict(classifier, [tmp_path / "wide.png"])
    assert found.error == "is 30 x 20, but the model takes 10 x 10"


def test_images_are_found_in_folders_and_below(small: Small, tmp_path: Path) -> None:
    found = find_images([small.images, small.images / "ant" / "0.png"])
    assert len(found) == 13
    assert found[:12] == sorted(found[:12])
    with pytest.raises(DatasetError, match="no such image"):
        find_images([tmp_path / "nothing"])
    with pytest.raises(DatasetError, match="holds no images"):
        find_images([tmp_path])


def test_json_lines_csv_and_table(small: Small, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    common = (
        "predict", small.folder / "head.safetensors", small.images / "bee", tmp_path,
        "--checkpoint", small.checkpoint, "--t-old", 2,
    )  # fmt: skip
    lines = nolb(*common, "--format", "jsonl", "--top", 2)
    found = [json.loads(line) for line in lines.stdout.splitlines()]
    assert len(found) == 5
    assert len(found[0]["candidates"]) == 2
    assert found[4]["error"] == "not an image of a known format"
    assert "1 of 5 images could not be used" in lines.stderr
    table = list(csv.DictReader(io.StringIO(nolb(*common, "--format", "csv").stdout)))
    assert len(table) == 4 * 3 + 1
    assert table[0]["class"] == found[0]["class"]
    assert table[-1]["error"]
    for options, headings in (
        (("--t-old", 2), ["Old", "head", "New", "head"]), ((), ["Old", "head"])
    ):  # fmt: skip
        out = ("--out", tmp_path / "table.txt", "--overwrite")
        nolb(*common[:-2], *options, *out)
        heading = (tmp_path / "table.txt").read_text(encoding="utf-8").splitlines()[1]
        assert heading.split() == ["Image", "Class", "Probability", *headings]
    exported = tmp_path / "e.safetensors"
    export(small.store, small.head, small.checkpoint, exported, format="safetensors")
    alone = nolb("predict", exported, small.images).stdout.splitlines()
    assert alone[1].split() == ["Image", "Class", "Probability"]
    assert not any("Of each head" in line for line in alone)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_row_of_the_table_is_one_line_in_any_terminal(width: int) -> None:
    folder, long = "photos/of a whole summer and its birds", "yellow-billed amazon parrot"
    names = ["bee", "[red] cockatoo", long, "\N{CJK UNIFIED IDEOGRAPH-9CE5}" * 30]
    made = [
        Prediction(f"{folder}/{name} {k}.png", (Candidate(name, 0.9, 0.25, 0.95),), long, name)
        for k, name in enumerate(names)
    ]
    console = Console(file=io.StringIO(), width=width)
    console.print(_table(made))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # the StringIO above
    rows = [line for line in lines if "0.900" in line]
    assert len(rows) == len(made)
    assert max(map(cell_len, lines)) <= width
    for k, line in enumerate(rows):
        assert line.lstrip().startswith("pho")
        assert f"{k}.png " in line  # an image is told from its neighbours
        assert "\N{HORIZONTAL ELLIPSIS}" in line or width == 120
    following = [line for line in lines[lines.index(rows[-1]) + 1 :] if line.strip()]
    assert following[0].startswith("Of each head")


def test_a_table_in_a_file_is_whole(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.images, tmp_path / ("a folder of a long name " * 8))
    out = tmp_path / "table.txt"
    nolb("predict", small.folder / "head.safetensors", tmp_path, "--checkpoint", small.checkpoint,
         "--out", out)  # fmt: skip
    lines = out.read_text(encoding="utf-8").splitlines()
    assert sum("a folder of a long name " * 8 in line for line in lines) == 12


def test_wrong_usage_is_told(small: Small, tmp_path: Path) -> None:
    head = small.folder / "head.safetensors"
    (tmp_path / "bad.png").write_bytes(b"no image")
    nolb("predict", head, small.images, code=2)  # no --checkpoint
    nolb("predict", head, tmp_path / "bad.png", "--checkpoint", small.checkpoint, code=1)
    result = export(small.store, small.head, small.checkpoint, tmp_path, format="safetensors")
    told = refused("predict", result.path, small.images, "--t-old", 2)
    assert "are fixed" in told
    nolb("predict", result.path, small.images)
    nolb("predict", tmp_path / "none.onnx", small.images, code=1)


def test_a_file_of_predictions_is_whole_or_not_there(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.csv"
    common = (
        "predict", small.folder / "head.safetensors", small.images, "--checkpoint",
        small.checkpoint, "--format", "csv", "--out", out,
    )  # fmt: skip
    nolb(*common)
    before = out.read_bytes()
    again = nolb(*common, code=1)
    assert again.stderr == f"nolb: {out} exists already: give another name or --overwrite.\n"
    whole = RunningModel.start
    calls: list[int] = []

    def fails_later(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise DatasetError("the disk is gone")
        return whole(*arguments)

    monkeypatch.setattr(image_classifiers, "BATCH", 4)
    monkeypatch.setattr(RunningModel, "start", fails_later)
    told = refused(*common, "--overwrite")
    assert "the disk is gone" in told
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
    monkeypatch.undo()
    shutil.copy(small.checkpoint, tmp_path / "model.pth")
    told = refused(*common[:-1], tmp_path / "model.pth", "--overwrite")
    assert "model.pth is something else than what would replace it" in told
    nolb(*common, "--overwrite")
    for how in ("jsonl", "table", "csv"):  # each takes the place of the one before it
        nolb(*common, "--overwrite", "--format", how)
    for text in ("my notes\n", "image,caption\n", '{"image": "a.png", "caption": "a bee"}\n'):
        out.write_text(text)
        told = refused(*common, "--overwrite")
        assert "p.csv is something else than what would replace it" in told
        assert out.read_text() == text


def test_long_predicting_tells_how_far_it_is(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_classifiers, "BATCH", 4)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    seen: list[Snapshot] = []
    classifier = classifier_of_head(small.head, small.checkpoint, TEMPERATURES)
    list(predict(classifier, find_images([small.images]), on_progress=seen.append))
    assert [(one.done, one.total) for one in seen] == [(k, 12) for k in range(1, 13)]
    done = nolb(
        "predict", small.folder / "head.safetensors", small.images, "--checkpoint",
        small.checkpoint, "--format", "jsonl",
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 12
    assert "predict: 4 of 12 images, " in done.stderr
    assert " images/s, 0:00:0" in done.stderr
