"""The stage and the command `export`, with every format on real small images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import export_formats, progress
from pipeline.backbones import BACKBONES
from pipeline.checkpoints import load_checkpoint
from pipeline.ensemble import ensemble_probabilities, softmax
from pipeline.errors import EvaluationError, ExportError, HeadError, OutputExistsError
from pipeline.exporting import FORMATS, Agreement, checking, open_export
from pipeline.heads import save_head
from pipeline.mixture import Mixture
from pipeline.scored import ScoredSplit
from pipeline.stages.evaluate import evaluate
from pipeline.stages.export import export
from tests.commands import nolb
from tests.exporting.exported import TEMPERATURES, Small, inputs_of_test, small_extraction


def needs(name: str) -> None:
    if name == "onnx":
        pytest.importorskip("onnx", reason="the extra `export` is not installed")
        pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
        pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small_extraction(tmp_path_factory.mktemp("small"))


@pytest.mark.parametrize(
    ("name", "temperatures"),
    [
        ("safetensors", TEMPERATURES),
        ("safetensors", None),
        ("torch-export", TEMPERATURES),
        ("onnx", TEMPERATURES),  # takes seconds, so the rest is shown on the others
    ],
)
def test_an_exported_file_gives_the_stores_predictions(
    small: Small, tmp_path: Path, name: str, temperatures: tuple[float, float] | None
) -> None:
    needs(name)
    result = export(
        small.store, small.head, small.checkpoint, tmp_path, format=name,
        temperatures=temperatures, images=small.images, n_checked=None,
    )  # fmt: skip
    assert result.agreement == Agreement(n_images=12, n_different=0, n_unreadable=0)
    exported = open_export(result.path)
    assert exported.description == result.description
    assert exported.description.class_names == ("ant", "bee", "cat")
    split = small.store["test"]
    images = inputs_of_test(small, exported.description)
    old, new = split.logits(), small.head.logits(split.features())
    wanted = (
        softmax(new) if temperatures is None else ensemble_probabilities(old, new, *TEMPERATURES)
    )
    for batch in (images, images[:1]):  # any number of images
        found = softmax(exported.run(batch))
        np.testing.assert_allclose(found, wanted[: len(batch)], atol=2e-6)


def test_an_old_head_of_cosines_keeps_them(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = BACKBONES["cifar-resnet20"].build(3).state_dict()
    del state["linear.bias"]
    state["linear.weight"] = state["linear.weight"].T.contiguous()  # LDAM keeps (D, C)
    content = {"epoch": 1, "arch": "resnet20", "state_dict": state, "best_acc1": 0.0}
    torch.save(content, tmp_path / "ldam.pth")
    small = small_extraction(tmp_path, tmp_path / "ldam.pth")
    assert small.store.classifier.normalized
    result = export(
        small.store, small.head, small.checkpoint, tmp_path, format="safetensors",
        temperatures=(0.05, 4.0), images=small.images,
    )  # fmt: skip
    assert result.agreement == Agreement(12, 0, 0)
    exported = open_export(result.path)
    split = small.store["test"]
    old, new = split.logits(), small.head.logits(split.features())
    found = softmax(exported.run(inputs_of_test(small, exported.description)))
    np.testing.assert_allclose(found, ensemble_probabilities(old, new, 0.05, 4.0), atol=1e-5)


@pytest.mark.parametrize("name", ["safetensors", "torch-export"])
def test_normalisation_can_be_left_to_the_caller(small: Small, tmp_path: Path, name: str) -> None:
    result = export(
        small.store, small.head, small.checkpoint, tmp_path, format=name,
        normalization="outside", images=small.images,
    )  # fmt: skip
    assert result.agreement is not None
    assert result.agreement.n_different == 0
    assert result.description is not None
    assert "normalised as (x/255" in result.description.input_text()


def test_a_mistaken_file_would_be_seen(small: Small, tmp_path: Path) -> None:
    # The same images in another order: most predictions must differ, or the check checks nothing.
    predictions = ScoredSplit(small.store, "test").predictions([small.head])
    assert len(set(predictions.tolist())) > 1
    shuffled = tmp_path / "images"
    for name, other in (("ant", "bee"), ("bee", "cat"), ("cat", "ant")):
        (shuffled / name).mkdir(parents=True)
        for image in (small.images / other).iterdir():
            (shuffled / name / image.name).write_bytes(image.read_bytes())
    result = export(
        small.store, small.head, small.checkpoint, tmp_path, format="safetensors", images=shuffled
    )
    assert result.agreement is not None
    assert result.agreement.n_different > 0


def test_without_temperatures_a_file_holds_what_evaluate_scores(
    small: Small, tmp_path: Path
) -> None:
    path, out = tmp_path / "head.safetensors", tmp_path / "m.safetensors"
    save_head(small.head, path)
    done = nolb(
        "export", small.store.path, path, "--checkpoint", small.checkpoint, "--format",
        "safetensors", "--out", out, "--images", small.images, "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert "logits of the new head" in done.output
    content = json.loads((tmp_path / "r.json").read_text())
    assert (content["classifier"], content["temperatures"]) == ("new", None)
    exported = open_export(out)
    predictions = exported.run(inputs_of_test(small, exported.description)).argmax(axis=1)
    alone = ScoredSplit(small.store, "test").predictions([small.head])
    both = ScoredSplit(small.store, "test").predictions([small.head], Mixture((1.0, 1.0)))
    np.testing.assert_array_equal(predictions, alone)
    assert (alone != both).any()  # or the two could not be told apart
    accuracy = evaluate(small.store, small.head).accuracy
    assert accuracy == pytest.approx(100 * (predictions == small.store["test"].labels).mean())


def test_unreadable_images_are_counted_and_stop_nothing(small: Small, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("ant", "bee"):
        (images / name).mkdir(parents=True)
        for image in (small.images / name).iterdir():
            (images / name / image.name).write_bytes(image.read_bytes())
    (images / "ant" / "0.png").write_bytes(b"no image")
    result = export(
        small.store, small.head, small.checkpoint, tmp_path, format="safetensors", images=images
    )
    assert result.agreement == Agreement(n_images=7, n_different=0, n_unreadable=5)


@pytest.mark.parametrize("temperatures", [None, TEMPERATURES])
@pytest.mark.parametrize("name", ["safetensors", "torch-export"])
def test_a_head_on_normalised_features_normalises_them(
    small: Small, tmp_path: Path, name: str, temperatures: tuple[float, float] | None
) -> None:
    head = replace(small.head, normalized=True, bias=np.zeros_like(small.head.bias))
    result = export(
        small.store, head, small.checkpoint, tmp_path, format=name, temperatures=temperatures,
        images=small.images, side=small.side,
    )  # fmt: skip
    assert result.agreement is not None
    assert (result.agreement.n_images, result.agreement.n_different) == (12, 0)
    assert open_export(result.path).description.normalized


def test_a_head_on_normalised_features_is_no_linear_layer(small: Small, tmp_path: Path) -> None:
    head = replace(small.head, normalized=True)
    with pytest.raises(ExportError, match=r"length 1 first.*Export another format"):
        export(small.store, head, small.checkpoint, tmp_path / "x.pth", format="checkpoint")


def test_a_patched_checkpoint_classifies_with_the_new_head(small: Small, tmp_path: Path) -> None:
    result = export(small.store, small.head, small.checkpoint, tmp_path / "mended.pth", format="checkpoint")  # fmt: skip  # noqa: E501
    assert result.replaced == ("state_dict.linear.weight", "state_dict.linear.bias")
    mended = load_checkpoint(result.path)
    features = small.store["test"].features()
    np.testing.assert_array_equal(
        mended.classifier.logits(features).argmax(1), small.head.logits(features).argmax(1)
    )
    assert evaluate(small.store, small.head).n_samples == 12


def test_what_does_not_belong_together_is_refused(small: Small, tmp_path: Path) -> None:
    content = torch.load(small.checkpoint, weights_only=True)
    content["state_dict"]["linear.bias"] += 1
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ExportError, match="classifier"):
        export(
            small.store, small.head, tmp_path / "other.pth", tmp_path, format="safetensors",
            temperatures=TEMPERATURES,
        )  # fmt: skip
    with pytest.raises(EvaluationError, match="above 0, not -1"):
        export(
            small.store, small.head, small.checkpoint, tmp_path, format="safetensors",
            temperatures=(1.0, -1.0),
        )  # fmt: skip
    with pytest.raises(ExportError, match="has room for one head"):
        export(
            small.store, small.head, small.checkpoint, tmp_path, format="checkpoint",
            temperatures=TEMPERATURES,
        )  # fmt: skip
    with pytest.raises(ExportError, match="give --size"):
        export(small.store, small.head, small.checkpoint, tmp_path, format="torch-export")
    with pytest.raises(ExportError, match=r"should end in \.pt2"):
        export(
            small.store, small.head, small.checkpoint, tmp_path / "a.onnx", format="torch-export"
        )
    (tmp_path / "there.safetensors").write_text("")
    with pytest.raises(OutputExistsError, match="exists"):
        export(small.store, small.head, small.checkpoint, tmp_path / "there.safetensors", format="safetensors")  # fmt: skip  # noqa: E501
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.pth", "there.safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt2", ".onnx", ".txt"])
def test_files_that_nolb_did_not_export_are_refused(tmp_path: Path, suffix: str) -> None:
    if suffix == ".onnx":
        needs("onnx")
    path = tmp_path / f"m{suffix}"
    with pytest.raises(ExportError):
        open_export(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ExportError, match=r"m\.\w+"):
        open_export(path)


def test_a_head_is_no_export(small: Small, tmp_path: Path) -> None:
    save_head(small.head, tmp_path / "head.safetensors")
    with pytest.raises(ExportError, match="lacks its description"):
        open_export(tmp_path / "head.safetensors")


def test_the_command_says_what_goes_in_and_what_comes_out(small: Small, tmp_path: Path) -> None:
    save_head(small.head, tmp_path / "head.safetensors")
    common = ("export", small.store.path, tmp_path / "head.safetensors", "--checkpoint", small.checkpoint)  # fmt: skip  # noqa: E501
    done = nolb(
        *common, "--format", "safetensors", "--out", tmp_path / "out", "--t-old", 2,
        "--images", small.images, "--check", "all", "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert "RGB in 0..1; normalisation is inside" in done.output
    assert "12 of 12 test images" in done.output
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["temperatures"] == [2.0, 1.0]
    assert content["checked"] == {"n_images": 12, "n_different": 0, "n_unreadable": 0}
    for wrong in (
        ("--format", "checkpoint", "--t-old", 2),
        ("--format", "onnx", "--t-old", 0),
        ("--format", "onnx", "--t-new", -1),
        ("--format", "onnx", "--check", "some"),
    ):
        nolb(*common, "--out", tmp_path / "no", *wrong, code=2)


def test_long_checking_tells_how_far_it_is(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "BATCH", 5)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    save_head(small.head, tmp_path / "head.safetensors")
    done = nolb(
        "export", small.store.path, tmp_path / "head.safetensors", "--checkpoint", small.checkpoint,
        "--format", "safetensors", "--out", tmp_path / "m.safetensors", "--images", small.images,
        "--check", "all",
    )  # fmt: skip
    told = [line.split(" images, ")[0] for line in done.stderr.splitlines()]
    assert told == [f"export, checking: {k} of 12" for k in (5, 10, 12)]
    assert "images/s" in done.stderr


def test_the_own_file_is_never_patched_in_place(small: Small, tmp_path: Path) -> None:
    own = tmp_path / "model.pth"
    own.write_bytes(small.checkpoint.read_bytes())
    with pytest.raises(ExportError, match="is the checkpoint itself"):
        export(small.store, small.head, own, own, format="checkpoint", overwrite=True)
    assert own.read_bytes() == small.checkpoint.read_bytes()


def test_what_an_export_is_made_of_is_never_replaced(small: Small, tmp_path: Path) -> None:
    own = tmp_path / "model.safetensors"
    own.write_bytes(small.checkpoint.read_bytes())
    head = tmp_path / "head.safetensors"
    save_head(small.head, head)
    for out, told in ((own, "is the checkpoint itself"), (head, "something else than what")):
        before = out.read_bytes()
        with pytest.raises(OutputExistsError, match=told):
            export(small.store, small.head, own, out, format="safetensors", overwrite=True)
        assert out.read_bytes() == before


def test_the_formats_have_one_source() -> None:
    assert {name: each.suffix for name, each in FORMATS.items()} == dict(export_formats.SUFFIXES)
    assert "|".join(export_formats.FORMATS) in nolb("export", "--help").output


def test_a_head_of_another_store_is_refused(small: Small, tmp_path: Path) -> None:
    other = small_extraction(tmp_path)
    head = other.head
    object.__setattr__(head, "identity", other.store.identity)
    object.__setattr__(head, "class_names", ("ant", "bee", "dog"))
    with pytest.raises(HeadError, match="class_names"):
        export(small.store, head, small.checkpoint, tmp_path / "x", format="safetensors")
