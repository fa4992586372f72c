"""Heads of models with weights of their own: predicted and exported without a checkpoint file.

Two such models, both with random weights that come out the same each time: one of torchvision,
whose loading is replaced, so that nothing is fetched, and a factory in the working folder.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from cache import Store
from pipeline.config import ExtractConfig, FitConfig
from pipeline.ensemble import ensemble_probabilities, softmax
from pipeline.errors import ConfigError, ExportError
from pipeline.exporting import Agreement, model_of_identity, open_export
from pipeline.extracting.identities import ModelRecord, record_of_identity
from pipeline.extracting.recalibration import Recalibration
from pipeline.heads import Head, save_head
from pipeline.image_classifiers import classifier_of_export, classifier_of_head
from pipeline.pretrained import FAMILY, load_pretrained
from pipeline.stages.adopt_head import adopt_head
from pipeline.stages.export import export
from pipeline.stages.extract import extract
from pipeline.stages.fit_head import fit_head
from pipeline.stages.predict import Prediction, predict
from tests.commands import nolb, refused_at_once
from tests.exporting.exported import TEMPERATURES, small_extraction
from tests.small_data import small_sources

FACTORY = "named_nets:three"
LIBRARY = "torchvision/squeezenet1_1"
LIBRARY_WEIGHTS = f"{LIBRARY}.IMAGENET1K_V1"
"""As identities call it."""

NETS = """
import torch
from torch import nn

SEED = 0

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.last = nn.Linear(5, num_classes)

    def forward(self, x):
        return self.last(self.norm(self.body(x)).relu().mean((2, 3)))

class Mapped(Net):
    def __init__(self):
        super().__init__(3)
        self.last = nn.Conv2d(5, 4, 1)

    def forward(self, x):
        return self.last(self.norm(self.body(x)).relu().mean((2, 3), keepdim=True)).flatten(1)

def mapped():
    return Mapped()

def three(num_classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Net(num_classes)
"""


@dataclass(frozen=True)
class Made:
    """A store of the old head that the model has or has adopted, and a head of it in a file."""

    store: Store
    head: Head
    file: Path
    images: Path
    option: tuple[str, ...]
    """What the commands need for it."""

    @property
    def model(self) -> str:
        """As the library's functions take it."""
        return self.option[1] if self.option else "auto"

    def paths(self) -> list[Path]:
        """The test images, in the order of the store."""
        return [self.images / each for each in self.store["test"].ids]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: a module with a factory, images, and a torchvision that fetches nothing."""  # noqa: E501
    folder = tmp_path_factory.mktemp("named")
    (folder / "named_nets.py").write_text(NETS)
    small_sources(folder, (4, 4, 4))
    build = torchvision.models.get_model

    def get_model(name: str, weights: object = None, **settings: Any) -> nn.Module:
        if weights is None:
            return build(name, **settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(name, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "get_model", get_model)
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder
    sys.modules.pop("named_nets", None)


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Made]:
    """By the name that `extract` got; the factory's classes are the images', torchvision's not."""
    return {FACTORY: _factorys(folder), LIBRARY: _librarys(folder)}


def _sources(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in ("train", "test")}


def _factorys(folder: Path) -> Made:
    config = ExtractConfig(model=FACTORY, device="cpu", workers=0)
    store = extract(None, _sources(folder), folder / "own.zarr", config).store
    head = fit_head(store, FitConfig(epochs=5)).head
    file = folder / "own.safetensors"
    save_head(head, file)
    return Made(store, head, file, folder / "test", ("--model", FACTORY))


def _librarys(folder: Path) -> Made:
    config = ExtractConfig(
        model=LIBRARY, device="cpu", workers=0, features_only=True, resize=32, crop=32
    )
    features = extract(None, _sources(folder), folder / "features.zarr", config).store
    old = fit_head(features, FitConfig(loss="cross-entropy", epochs=5)).head
    store = adopt_head(features, old, folder / "adopted.zarr")
    head = fit_head(store, FitConfig(epochs=5)).head
    file = folder / "library.safetensors"
    save_head(head, file)
    return Made(store, head, file, folder / "test", ())


def _wanted(made: Made) -> Any:
    """(N, C) probabilities of the ensemble, from the store."""
    split = made.store["test"]
    return ensemble_probabilities(split.logits(), made.head.logits(split.features()), *TEMPERATURES)


def _same(found: list[Prediction], wanted: Any, names: tuple[str, ...]) -> None:
    for each, row in zip(found, wanted, strict=True):
        assert each.candidates[0].class_name == names[int(row.argmax())]
        assert each.candidates[0].probability == pytest.approx(row.max(), abs=1e-5)


def test_a_model_is_built_again_from_its_name(made: dict[str, Made]) -> None:
    of_library = made[LIBRARY]
    model = model_of_identity(None, of_library.store.identity, of_library.head.class_counts)
    assert model.backbone == LIBRARY_WEIGHTS
    assert model.backbone_digest() == of_library.store.identity.backbone
    assert (model.preprocessing.resize, model.preprocessing.crop) == (32, 32)
    own = made[FACTORY]
    model = model_of_identity(None, own.store.identity, own.head.class_counts, model=FACTORY)
    assert model.classifier.digest() == own.store.identity.classifier


def test_both_heads_predict_without_a_checkpoint(made: dict[str, Made]) -> None:
    own = made[FACTORY]
    classifier = classifier_of_head(own.head, None, TEMPERATURES, model=FACTORY)
    found = list(predict(classifier, own.paths()))
    _same(found, _wanted(own), own.store.class_names)
    old = own.store["test"].logits().argmax(axis=1)
    assert [each.old_class for each in found] == [own.store.class_names[c] for c in old.tolist()]


def test_an_adopted_head_leaves_the_new_one_to_predict_alone(made: dict[str, Made]) -> None:
    of_library = made[LIBRARY]
    found = list(predict(classifier_of_head(of_library.head), of_library.paths()))
    wanted = softmax(of_library.head.logits(of_library.store["test"].features()))
    _same(found, wanted, of_library.store.class_names)
    with pytest.raises(ExportError, match=rf"{LIBRARY_WEIGHTS} has .*--t-old, --t-new.* out"):
        classifier_of_head(of_library.head, temperatures=TEMPERATURES)


@pytest.mark.parametrize("name", [FACTORY, LIBRARY])
@pytest.mark.parametrize("format_name", ["safetensors", "torch-export", "onnx"])
def test_every_format_of_both_heads(
    made: dict[str, Made], tmp_path: Path, name: str, format_name: str
) -> None:
    if format_name == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    one = made[name]
    result = export(
        one.store, one.head, None, tmp_path, format=format_name, model=one.model,
        temperatures=TEMPERATURES, images=one.images,
    )  # fmt: skip
    assert result.agreement == Agreement(n_images=12, n_different=0, n_unreadable=0)
    if name == LIBRARY:  # read back by its own name
        found = list(predict(classifier_of_export(open_export(result.path)), one.paths()))
        _same(found, _wanted(one), one.store.class_names)


@pytest.mark.parametrize("format_name", ["safetensors", "torch-export"])
def test_heads_in_the_place_of_a_convolution(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    network = importlib.import_module("named_nets").mapped()
    monkeypatch.setattr("named_nets.mapped", lambda: network)
    name = "named_nets:mapped"
    config = ExtractConfig(model=name, device="cpu", workers=0, features_only=True)
    features = extract(None, _sources(folder), tmp_path / "features.zarr", config).store
    old = fit_head(features, FitConfig(loss="cross-entropy", epochs=5)).head
    store = adopt_head(features, old, tmp_path / "adopted.zarr")
    head = fit_head(store, FitConfig(epochs=5)).head
    one = Made(store, head, tmp_path, folder / "test", ("--model", name))
    alone = list(predict(classifier_of_head(head, model=name), one.paths()))
    _same(alone, softmax(head.logits(store["test"].features())), store.class_names)
    result = export(
        store, head, None, tmp_path, format=format_name, model=name, temperatures=TEMPERATURES,
        images=one.images,
    )  # fmt: skip
    assert result.agreement == Agreement(n_images=12, n_different=0, n_unreadable=0)


def test_the_commands_go_to_the_end_without_a_checkpoint(
    made: dict[str, Made], tmp_path: Path
) -> None:
    for name, suffix in ((FACTORY, "own"), (LIBRARY, "library")):
        one = made[name]
        done = nolb("predict", one.file, one.images, "--format", "csv", *one.option)
        out = tmp_path / f"{suffix}.safetensors"
        nolb(
            "export", one.store.path, one.file, *one.option, "--format", "safetensors", "--out", out
        )  # fmt: skip
        again = nolb("predict", out, one.images, "--format", "csv", *one.option)
        assert _classes(again.output) == _classes(done.output)


def _classes(csv: str) -> list[tuple[str, str, str]]:
    rows = [line.split(",") for line in csv.splitlines()[1:]]
    return [(image, rank, name) for image, rank, name, *_ in rows]


def _refused(words: tuple[object, ...], code: int, *told: str) -> None:
    said = refused_at_once(*words, code=code)
    for each in told:
        assert each in said


def test_a_function_runs_only_where_the_user_names_it(
    made: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = made[FACTORY]
    weights = export(
        own.store, own.head, None, tmp_path, format="safetensors", model=FACTORY, side=10
    )
    state = load_pretrained(FACTORY).module.state_dict()
    torch.save(state, tmp_path / "own.pth")
    monkeypatch.delitem(sys.modules, "named_nets")
    remedy = f"give --model {FACTORY}"
    _refused(("predict", own.file, own.images), 2, remedy)
    common = ("export", own.store.path, own.file, "--format", "onnx", "--out", tmp_path / "x.onnx")
    _refused(common, 2, remedy)
    _refused(("predict", weights.path, own.images), 1, remedy)
    with_file = ("predict", own.file, own.images, "--checkpoint", tmp_path / "own.pth")
    _refused(with_file, 2, remedy)
    module, _, function = FACTORY.partition(":")
    for family, variant, backbone in (
        ("lade", "ce", FACTORY),
        ("lade", FACTORY, "cifar-resnet32"),
        (module, "", function),
        (FACTORY, "", "cifar-resnet32"),
    ):
        said = ModelRecord(family, variant, backbone, None)
        identity = dataclasses.replace(own.head.identity, model=said.to_json())
        with pytest.raises(ConfigError, match=remedy):
            model_of_identity(tmp_path / "own.pth", identity, own.head.class_counts)
        assert "named_nets" not in sys.modules
    nolb(*with_file, "--model", FACTORY)


def test_other_weights_of_the_same_name_are_refused(
    made: dict[str, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = made[FACTORY]
    monkeypatch.setattr(importlib.import_module("named_nets"), "SEED", 1)
    _refused(
        ("predict", own.file, own.images, "--model", FACTORY),
        1,
        f"{FACTORY} has other weights here",
        "extract again",
    )


def test_another_model_is_refused(made: dict[str, Made]) -> None:
    of_library, own = made[LIBRARY], made[FACTORY]
    _refused(("predict", of_library.file, of_library.images, "--model", FACTORY), 1, f"{FACTORY} is not the model", f"that is {LIBRARY_WEIGHTS}", "leave --checkpoint and --model out")  # fmt: skip  # noqa: E501
    _refused(
        ("predict", own.file, own.images, "--model", LIBRARY),
        1,
        f"give --model {FACTORY} and no --checkpoint",
    )


def test_models_that_cannot_be_built_here(
    made: dict[str, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = made[LIBRARY]
    common = ("predict", one.file, one.images, "--model")
    _refused((*common, "nonsense"), 2, "names no model", "--checkpoint")
    _refused((*common, "torchvision/resnet5"), 2, "no classification model 'resnet5'")
    _refused((*common, "no_such.module:net"), 2, "cannot be imported")
    monkeypatch.setattr(
        "pipeline.backbones.efficientnet_lite.find_spec",
        lambda name: None if name.startswith("efficientnet") else find_spec(name),
    )
    said = ModelRecord(FAMILY, "", "efficientnet-lite0", None)
    identity = dataclasses.replace(one.head.identity, model=said.to_json())
    save_head(dataclasses.replace(one.head, identity=identity), tmp_path / "h.safetensors")
    _refused(
        ("predict", tmp_path / "h.safetensors", one.images),
        2,
        "pip install 'nolb[efficientnet-lite]'",
    )
    monkeypatch.setitem(sys.modules, "timm", None)
    _refused((*common, "timm/resnet10t"), 2, "pip install 'nolb[timm]'")


def test_there_is_no_file_to_patch(made: dict[str, Made], tmp_path: Path) -> None:
    one = made[LIBRARY]
    common = ("export", one.store.path, one.file, "--format", "checkpoint", "--out", tmp_path / "x")
    _refused(common, 1, f"{LIBRARY_WEIGHTS} are in no checkpoint", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_head_of_a_file_asks_for_it(folder: Path, tmp_path: Path) -> None:
    small = small_extraction(tmp_path)
    save_head(small.head, tmp_path / "head.safetensors")
    asked = "give the one that was extracted with --checkpoint FILE"
    _refused(("predict", tmp_path / "head.safetensors", small.images), 2, "plain:small-cnn", asked)  # fmt: skip  # noqa: E501
    common = ("export", small.store.path, tmp_path / "head.safetensors", "--out", tmp_path / "x")
    _refused((*common, "--format", "onnx"), 2, asked)
    _refused((*common, "--format", "checkpoint"), 2, "give it with --checkpoint FILE")
    _refused(
        (*common, "--format", "onnx", "--model", LIBRARY),
        1,
        f"{LIBRARY_WEIGHTS} is not the model",
        "give the checkpoint",
    )


def test_a_file_of_the_same_weights_serves_and_of_others_not(
    made: dict[str, Made], tmp_path: Path
) -> None:
    one = made[LIBRARY]
    network = load_pretrained(LIBRARY).module
    torch.save(network.state_dict(), tmp_path / "same.pth")
    model = model_of_identity(tmp_path / "same.pth", one.store.identity, one.head.class_counts)
    assert model.backbone_digest() == one.store.identity.backbone
    state = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "other.pth")
    _refused(("predict", one.file, one.images, "--checkpoint", tmp_path / "other.pth"), 1, "other.pth is not the model", f"that is {LIBRARY_WEIGHTS} with weights of its own")  # fmt: skip  # noqa: E501


def test_statistics_that_no_library_holds_are_told(folder: Path) -> None:
    config = ExtractConfig(model=FACTORY, device="cpu", workers=0, recalibrate_bn=6)
    store = extract(None, _sources(folder), folder / "bn.zarr", config).store
    said = record_of_identity(store.identity)
    assert said.own_weights == FACTORY
    assert said.recalibrated == Recalibration.of(config)
    with pytest.raises(ExportError, match=rf"which gave {FACTORY} other statistics"):
        model_of_identity(None, store.identity, store.class_counts.tolist(), model=FACTORY)


def test_a_family_is_no_model_with_weights_of_its_own() -> None:
    with pytest.raises(ConfigError, match="names no model"):
        load_pretrained("plain:small-cnn")
