"""Features without an old head, and the head that becomes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cache import Store, open_store, verify_store
from cache.errors import StoreExistsError
from pipeline.config import ExtractConfig, FitConfig
from pipeline.errors import DatasetError, EvaluationError, HeadError
from pipeline.heads import Head, save_head
from pipeline.old_head import has_old_head
from pipeline.progress import Snapshot
from pipeline.stages.adopt_head import adopt_head
from pipeline.stages.evaluate import evaluate
from pipeline.stages.extract import extract
from pipeline.stages.fit_head import fit_head
from pipeline.stages.sweep_temps import sweep_temps
from tests.cache.store_making import tree
from tests.commands import nolb, refused
from tests.small_data import image_folder, small_checkpoint


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {name: image_folder(tmp_path / name, seed=s) for s, name in enumerate(("train", "test"))}


@pytest.fixture
def other_classes(tmp_path: Path) -> Path:
    """A checkpoint with a head for seven classes; the images are of three."""
    return small_checkpoint(tmp_path / "seven.pth", n_classes=7)


@pytest.fixture
def features(folders: dict[str, Path], other_classes: Path, tmp_path: Path) -> Store:
    (folders["train"] / "ant" / "0.png").write_bytes(b"damaged")
    config = ExtractConfig(features_only=True, views=2, shard_rows=4)
    return extract(other_classes, folders, tmp_path / "features.zarr", config).store


@pytest.fixture
def head(features: Store) -> Head:
    return fit_head(features, FitConfig(loss="cross-entropy", epochs=3)).head


def test_a_head_for_other_classes_needs_the_users_word(
    folders: dict[str, Path], other_classes: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"head for 7 classes, .* have 3: .*--features-only"):
        extract(other_classes, folders, tmp_path / "x.zarr")


def test_a_store_of_features_has_no_old_head(features: Store, head: Head) -> None:
    assert not has_old_head(features)
    message = r"holds features and no old head. Make one with: nolb fit-head .*adopt-head"
    for attempt in (
        lambda: evaluate(features),
        lambda: evaluate(features, head, t_old=2),
        lambda: sweep_temps(features, head),
    ):
        with pytest.raises(EvaluationError, match=message):
            attempt()
    assert evaluate(features, head).n_samples == len(features["test"].labels)


def test_new_heads_need_no_old_one_to_be_scored_together(features: Store, head: Head) -> None:
    other = fit_head(features, FitConfig(loss="cross-entropy", epochs=3, seed=1)).head
    together = evaluate(features, [head, other], weights=[0, 1, 2])
    assert together.predictor == "ensemble"
    assert evaluate(features, [head, other], weights=[0, 1, 0]).recalls == (
        evaluate(features, head).recalls
    )
    with pytest.raises(EvaluationError, match="no old head"):
        evaluate(features, [head, other], weights=[1, 1, 2])


@pytest.mark.parametrize("weights", [[0, 0, 0], [0, 1], [0, 1, -1], [0, 1, float("nan")]])
def test_weights_that_mix_no_heads_are_refused(
    features: Store, head: Head, tmp_path: Path, weights: list[float]
) -> None:
    adopted = adopt_head(features, head, tmp_path / "adopted.zarr")
    new = fit_head(adopted, FitConfig(epochs=1)).head
    with pytest.raises(EvaluationError, match="at least one above 0, not"):
        evaluate(adopted, [new, new], weights=weights)


def test_the_weights_that_are_left_mix_as_if_alone(
    features: Store, head: Head, tmp_path: Path
) -> None:
    adopted = adopt_head(features, head, tmp_path / "adopted.zarr")
    one, other = (fit_head(adopted, FitConfig(epochs=3, seed=seed)).head for seed in range(2))
    three = evaluate(adopted, [one, other], t_old=2, weights=[3, 1, 0])
    assert three.recalls == evaluate(adopted, one, t_old=2, weights=[3, 1]).recalls


@pytest.mark.parametrize("name", ["adopted.zarr", "adopted.h5"])
def test_the_adopted_head_is_the_old_classifier(
    features: Store, head: Head, tmp_path: Path, name: str
) -> None:
    adopted = adopt_head(features, head, tmp_path / name)
    assert has_old_head(adopted)
    assert evaluate(adopted).recalls == evaluate(features, head).recalls
    for split in features.splits:
        before, after = features[split], adopted[split]
        assert np.array_equal(before.features(), after.features(), equal_nan=True)
        assert (tuple(before.ids), before.failed) == (tuple(after.ids), after.failed)
        assert np.array_equal(before.labels, after.labels)
    views = [store["train"].views(0, features["train"].n_samples) for store in (features, adopted)]
    assert np.array_equal(*views, equal_nan=True)
    usable = features["test"].features()
    assert np.array_equal(adopted["test"].logits(), head.logits(usable))
    assert adopted.header.shard_rows == features.header.shard_rows == 4
    assert not verify_store(tmp_path / name)


@pytest.mark.parametrize("name", ["adopted.zarr", "adopted.h5"])
def test_an_interrupted_copy_is_gone_on_with(
    features: Store, head: Head, tmp_path: Path, name: str
) -> None:
    out, whole, head_file = tmp_path / name, tmp_path / f"whole-{name}", tmp_path / "h.safetensors"

    def stop(snapshot: Snapshot) -> None:
        if snapshot.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopt_head(features, head, out, on_progress=stop)
    save_head(head, head_file)
    words = ("adopt-head", features.path, head_file, "--out", out)
    assert "go on with --resume" in refused(*words)
    nolb(*words, "--resume")
    adopt_head(features, head, whole).close()
    assert tree(out) == tree(whole)
    assert "contradict each other" in refused(*words, "--resume", "--overwrite", code=2)


def test_identities_keep_the_two_stores_apart(features: Store, head: Head, tmp_path: Path) -> None:
    adopted = adopt_head(features, head, tmp_path / "adopted.zarr")
    differing = features.identity.feature_space_differences(adopted.identity)
    assert [line.partition(":")[0] for line in differing] == ["classifier"]
    with pytest.raises(HeadError, match="another extraction"):
        evaluate(adopted, head)
    with pytest.raises(HeadError, match="another extraction"):
        adopt_head(adopted, head, tmp_path / "again.zarr")
    with pytest.raises(StoreExistsError):
        adopt_head(features, head, tmp_path / "adopted.zarr")


def test_the_whole_path_from_the_command_line(
    folders: dict[str, Path], other_classes: Path, tmp_path: Path
) -> None:
    store, old, adopted = (tmp_path / name for name in ("f.zarr", "old.safetensors", "data.zarr"))
    said = nolb(
        "extract", "--checkpoint", other_classes, "--train", folders["train"], "--test", "0.3",
        "--split-seed", "4", "--features-only", "--out", store,
    ).output  # fmt: skip
    assert f"nolb adopt-head {store} old.safetensors" in said
    said = nolb("fit-head", store, "--loss", "cross-entropy", "--out", old, "--epochs", "2").output
    assert f"next           nolb adopt-head {store} {old}" in said
    said = nolb("adopt-head", store, old, "--out", adopted).output
    assert f"next           nolb fit-head {adopted}" in said
    new = tmp_path / "new.safetensors"
    nolb("fit-head", adopted, "--out", new, "--epochs", "2")
    nolb("sweep-temps", adopted, new, "--out", tmp_path / "sweep", "--t-old", "1,2", "--t-new", "1")
    with open_store(adopted) as opened:
        # 7, 4 and 2 images: round(2.1) = 2, round(1.2) = 1 and one of each at least.
        assert np.bincount(opened["test"].labels).tolist() == [2, 1, 1]
        assert opened["train"].n_samples == 9


def test_extract_needs_a_model(folders: dict[str, Path], tmp_path: Path) -> None:
    words = ("extract", "--train", folders["train"], "--test", 0.3, "--out", tmp_path / "x.zarr")
    assert "Give --checkpoint FILE, or --model NAME" in refused(*words, code=2)
    told = refused(*words, "--model", "resnet50", code=2)
    assert "names no model that has weights of its own" in told


def test_a_cosine_head_is_adopted_with_its_scale(features: Store, tmp_path: Path) -> None:
    config = FitConfig(head="cosine", cosine_scale=5, loss="cross-entropy", epochs=3)
    head = fit_head(features, config).head
    adopted = adopt_head(features, head, tmp_path / "adopted.zarr")
    assert adopted.classifier.normalized
    assert adopted.classifier.scale == pytest.approx(5)
    rows = adopted["test"].features()
    np.testing.assert_allclose(adopted["test"].logits(), head.logits(rows), atol=1e-4)
    assert evaluate(adopted).recalls == evaluate(features, head).recalls


def test_a_normalised_head_that_is_no_cosine_is_refused(features: Store, tmp_path: Path) -> None:
    head = fit_head(features, FitConfig(normalize=True, epochs=3)).head
    with pytest.raises(HeadError, match=r"different lengths.*--head cosine"):
        adopt_head(features, head, tmp_path / "adopted.zarr")
    assert not (tmp_path / "adopted.zarr").exists()
