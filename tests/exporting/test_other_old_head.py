"""Heads of a store whose old classifier is not in the checkpoint: none there is, or an adopted one.

The checkpoint's own classifier knows seven classes, the images are of three.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cache import Classifier, Store
from pipeline.checkpoints import TrainedModel
from pipeline.config import ExtractConfig, FitConfig
from pipeline.ensemble import ensemble_probabilities, softmax
from pipeline.errors import ExportError
from pipeline.exporting import Agreement, model_of_identity, open_export
from pipeline.heads import Head, save_head
from pipeline.image_classifiers import classifier_of_export, classifier_of_head, find_images
from pipeline.old_head import is_stand_in
from pipeline.stages.adopt_head import adopt_head
from pipeline.stages.export import export
from pipeline.stages.extract import extract
from pipeline.stages.fit_head import fit_head
from pipeline.stages.predict import predict
from tests.commands import nolb, refused_at_once
from tests.exporting.exported import TEMPERATURES, small_extraction
from tests.small_data import small_checkpoint, small_sources


@dataclass(frozen=True)
class Stores:
    """A store of features and a head of it, and the same with that head as the old classifier."""

    folder: Path
    checkpoint: Path
    images: Path
    features: Store
    first: Head
    adopted: Store
    second: Head


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    folder = tmp_path_factory.mktemp("stores")
    checkpoint = small_checkpoint(folder / "seven.pth", n_classes=7)
    sources = small_sources(folder, (4, 4, 4))
    config = ExtractConfig(features_only=True, device="cpu", workers=0)
    features = extract(checkpoint, sources, folder / "features.zarr", config).store
    first = fit_head(features, FitConfig(loss="cross-entropy", epochs=5)).head
    adopted = adopt_head(features, first, folder / "adopted.zarr")
    second = fit_head(adopted, FitConfig(epochs=5)).head
    save_head(first, folder / "first.safetensors")
    save_head(second, folder / "second.safetensors")
    return Stores(folder, checkpoint, sources["test"], features, first, adopted, second)


def test_the_new_head_alone_classifies_images(stores: Stores) -> None:
    for store, head in ((stores.features, stores.first), (stores.adopted, stores.second)):
        split = store["test"]
        paths = [stores.images / each for each in split.ids]
        found = list(predict(classifier_of_head(head, stores.checkpoint), paths, top=1))
        wanted = softmax(head.logits(split.features()))
        for row, each in enumerate(found):
            assert each.candidates[0].class_name == store.class_names[int(wanted[row].argmax())]
            assert each.candidates[0].probability == pytest.approx(wanted[row].max(), abs=1e-5)
            assert (each.old_class, each.candidates[0].old) == (None, None)


def test_an_ensemble_is_refused_where_its_old_head_is_not_at_hand(stores: Stores) -> None:
    none = r"store keeps no old head.*--t-old, --t-new\) out"
    with pytest.raises(ExportError, match=none):
        classifier_of_head(stores.first, stores.checkpoint, TEMPERATURES)
    for name in ("safetensors", "onnx"):
        with pytest.raises(ExportError, match=none):
            export(
                stores.features, stores.first, stores.checkpoint, stores.folder, format=name,
                temperatures=TEMPERATURES,
            )  # fmt: skip
    with pytest.raises(ExportError, match=r"seven.pth .*another classifier.*nolb export"):
        classifier_of_head(stores.second, stores.checkpoint, TEMPERATURES)


def test_the_store_gives_an_export_its_adopted_head(stores: Stores, tmp_path: Path) -> None:
    result = export(
        stores.adopted, stores.second, stores.checkpoint, tmp_path, format="safetensors",
        temperatures=TEMPERATURES, images=stores.images,
    )  # fmt: skip
    assert result.agreement == Agreement(n_images=12, n_different=0, n_unreadable=0)
    split = stores.adopted["test"]
    old, new = split.logits(), stores.second.logits(split.features())
    wanted = ensemble_probabilities(old, new, *TEMPERATURES)
    paths = [stores.images / each for each in split.ids]
    found = predict(classifier_of_export(open_export(result.path)), paths, top=1)
    for row, each in enumerate(found):
        assert each.candidates[0].probability == pytest.approx(wanted[row].max(), abs=1e-5)
        assert each.old_class == stores.adopted.class_names[int(old[row].argmax())]


@pytest.mark.parametrize("name", ["safetensors", "torch-export"])
def test_an_export_of_the_new_head_alone_needs_no_old_one(
    stores: Stores, tmp_path: Path, name: str
) -> None:
    result = export(
        stores.features, stores.first, stores.checkpoint, tmp_path, format=name,
        images=stores.images,
    )  # fmt: skip
    assert result.agreement == Agreement(n_images=12, n_different=0, n_unreadable=0)
    assert len(list(predict(classifier_of_export(open_export(result.path)), find_images([stores.images])))) == 12  # fmt: skip  # noqa: E501


def test_a_checkpoint_of_other_classes_is_not_patched(stores: Stores, tmp_path: Path) -> None:
    for store, head in ((stores.features, stores.first), (stores.adopted, stores.second)):
        with pytest.raises(
            ExportError, match=r"seven.pth .*another classifier.*another format than checkpoint"
        ):
            export(store, head, stores.checkpoint, tmp_path / "x.pth", format="checkpoint")
    assert not list(tmp_path.iterdir())


def test_cosines_with_a_bias_are_not_exported_without_it(stores: Stores) -> None:
    weight = stores.first.weight
    old = Classifier(weight, bias=np.ones(len(weight), np.float32), normalized=True)
    with pytest.raises(ExportError, match=r"cosines with a bias.*without --t-old and --t-new"):
        _model(stores, old)
    assert _model(stores, Classifier(weight, bias=stores.first.bias)).classifier.bias is not None


def _model(stores: Stores, old: Classifier) -> TrainedModel:
    identity, counts = stores.adopted.identity, stores.second.class_counts
    return model_of_identity(stores.checkpoint, identity, counts, old=old)


def test_a_checkpoint_with_its_own_old_head_keeps_it(tmp_path: Path) -> None:
    small = small_extraction(tmp_path)
    trained = model_of_identity(small.checkpoint, small.store.identity, small.head.class_counts)
    assert trained.classifier.digest() == small.store.classifier.digest()
    assert not is_stand_in(trained.classifier)


def test_the_commands_say_what_to_do(stores: Stores) -> None:
    first = stores.folder / "first.safetensors"
    words = ("predict", first, stores.images, "--checkpoint", stores.checkpoint)
    assert "leave the temperatures" in refused_at_once(*words, "--t-old", 1)
    nolb(*words)
