"""Extraction: what lands in the store, whatever the batches, workers and interruptions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import Store, open_store, verify_store
from cache.errors import (
    IdentityMismatchError,
    IncompleteStoreError,
    NonFiniteError,
    StoreError,
    StoreExistsError,
)
from pipeline.config import ExtractConfig, FitConfig
from pipeline.datasets import ViewSpec, open_source
from pipeline.errors import CheckpointError, ConfigError, DatasetError, ExtractionError
from pipeline.extracting.plan import prepare_model
from pipeline.progress import Snapshot
from pipeline.stages.extract import extract
from pipeline.stages.fit_head import fit_head
from tests.small_data import COUNTS, image_folder, small_checkpoint, small_inputs
from tests.small_extractions import Interrupted, Run

CONFIG = ExtractConfig(device="cpu", workers=0, views=2, batch_size=3, shard_rows=5)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(small_inputs(tmp_path), CONFIG)


def arrays(store: Store) -> dict[str, np.ndarray]:
    found = {"train/views": store["train"].views()}
    for name in store.splits:
        split = store[name]
        found |= {f"{name}/features": split.features(), f"{name}/logits": split.logits()}
        found |= {f"{name}/labels": split.labels, f"{name}/ids": np.array(split.ids)}
    return found


def assert_equal(a: Store, b: Store) -> None:
    others = arrays(b)
    for name, array in arrays(a).items():
        assert array.dtype == others[name].dtype
        assert array.tobytes() == others[name].tobytes(), name


def test_features_and_logits_are_the_model_s_own_image_by_image(run: Run) -> None:
    store = run().store
    model = prepare_model(run.folder / "m.pth")
    for name in ("train", "test"):
        source = open_source(run.folder / name)
        for row in range(len(source)):
            pixels = torch.from_numpy(model.preprocessing.to_uint8(source.read(row)).copy())
            x = model.preprocessing.normalize(pixels[None])
            with torch.inference_mode():
                logits = model.module(x)[0].numpy()
            np.testing.assert_allclose(store[name].logits()[row], logits, atol=1e-5)
            feature = store[name].features()[row]
            np.testing.assert_allclose(
                feature @ model.classifier.weight.T + model.classifier.bias, logits, atol=1e-5
            )
        assert store[name].ids == source.ids
        assert store[name].labels.tolist() == source.labels.tolist()
    assert store.class_counts.tolist() == list(COUNTS)


def test_views_are_the_features_of_the_seeded_crops(run: Run) -> None:
    store = run().store
    model = prepare_model(run.folder / "m.pth")
    source, views = open_source(run.folder / "train"), ViewSpec(count=2)
    for view in range(2):
        for row, name in enumerate(source.ids):
            crop = views.make(source.read(row), name, view, model.preprocessing)
            x = model.preprocessing.normalize(torch.from_numpy(crop.copy())[None])
            with torch.inference_mode():
                logits = model.module(x)[0].numpy()
            made = model.classifier.logits(store["train"].views()[view, row][None])[0]
            np.testing.assert_allclose(made, logits, atol=1e-5)
    assert store["test"].n_views == 0


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 100, "shard_rows": 100},
        {"batch_size": 1, "shard_rows": 2},
        {"workers": 2},
        {"channels_last": True},
    ],
)
def test_batches_and_workers_change_nothing_but_rounding(run: Run, change: dict[str, int]) -> None:
    one = run("one.zarr").store
    other = run("other.zarr", dataclasses.replace(CONFIG, **change)).store
    for name, array in arrays(other).items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, arrays(one)[name], atol=1e-5, err_msg=name)


def test_zarr_and_hdf5_hold_equal_bytes_and_give_equal_heads(run: Run) -> None:
    zarr, hdf5 = run("a.zarr").store, run("a.h5").store
    assert_equal(zarr, hdf5)
    heads = [fit_head(store, FitConfig(epochs=2)).head for store in (zarr, hdf5)]
    assert heads[0].weight.tobytes() == heads[1].weight.tobytes()
    assert heads[0].identity == heads[1].identity


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("batches", [1, 3, 5])
def test_an_interrupted_extraction_resumes_to_equal_bytes(
    run: Run, suffix: str, batches: int
) -> None:
    # 13 + 6 rows in shards of 5 and batches of 3: 2, 2 and 1 batches for train, 2 and 1 for test.
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run(f"x.{suffix}", on_progress=Interrupted(batches))
    with pytest.raises(IncompleteStoreError, match=r"x\..*: .* are not written.*--resume"):
        open_store(run.folder / f"x.{suffix}")
    resumed = run(f"x.{suffix}", resume=True)
    assert resumed.computed == 19 - {1: 0, 3: 5, 5: 10}[batches]
    assert_equal(resumed.store, run(f"y.{suffix}").store)
    assert not list(run.folder.glob("*.partial"))


def test_resume_begins_where_nothing_is_and_leaves_what_is_complete(run: Run) -> None:
    assert run(resume=True).computed == 19
    again = run(resume=True)
    assert again.computed == 0
    assert not verify_store(run.folder / "store.zarr")


def test_what_exists_is_not_touched(run: Run) -> None:
    first = arrays(run().store)
    with pytest.raises(StoreExistsError):
        run()
    other = dataclasses.replace(CONFIG, view_seed=1)
    with pytest.raises(IdentityMismatchError, match="views"):
        run(config=other, resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(config=other, overwrite=True, on_progress=Interrupted(1))
    kept = arrays(open_store(run.folder / "store.zarr"))
    assert all(np.array_equal(first[name], kept[name]) for name in first)
    replaced = arrays(run(config=other, overwrite=True).store)
    assert not np.array_equal(first["train/views"], replaced["train/views"])


def test_an_unfinished_store_of_another_extraction_is_not_mixed(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(on_progress=Interrupted(3))
    for change in ({"dtype": "float16"}, {"view_seed": 1}, {"mean": (0.1, 0.2, 0.3)}):
        config = dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]  # a table of cases
        with pytest.raises(IdentityMismatchError):
            run(config=config, resume=True)
    assert run(resume=True).computed == 14


def test_an_unreadable_image_is_marked_and_left_out(run: Run) -> None:
    (run.folder / "train/ant/1.png").write_bytes(b"no image")
    result = run()
    train = result.store["train"]
    assert list(train.failed) == [1]
    assert result.failed["train"][1] == train.failed[1] != ""
    assert np.isnan(train.features()[1]).all()
    assert np.isnan(train.views()[:, 1]).all()
    assert np.isfinite(train.features()[train.usable]).all()
    assert result.store.class_counts.tolist() == [6, 4, 2]
    assert fit_head(result.store, FitConfig(epochs=1)).n_samples == 12


def test_strict_stops_at_the_first_unreadable_image(run: Run) -> None:
    (run.folder / "train/bee/3.png").write_bytes(b"no image")
    with pytest.raises(ExtractionError, match=r"bee/3\.png .*--strict") as caught:
        run(config=dataclasses.replace(CONFIG, strict=True))
    assert "\n" not in str(caught.value)


def test_images_that_are_all_unreadable_stop_the_run(run: Run) -> None:
    for path in (run.folder / "train").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="None of 13 images tried of 'train'"):
        run()


def test_an_unreadable_test_split_stops_the_run_before_the_others_are_computed(run: Run) -> None:
    for path in (run.folder / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    seen: list[Snapshot] = []
    with pytest.raises(DatasetError, match="None of 6 images tried of 'test'"):
        run(on_progress=seen.append)
    assert not seen


def test_a_model_that_cannot_take_the_size_says_so(run: Run) -> None:
    with pytest.raises(ExtractionError, match=r"cannot take .*1, 1.*--resize and --crop") as caught:
        run(config=dataclasses.replace(CONFIG, resize=1, views=0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_different_sizes_name_two_and_the_remedy(run: Run, workers: int) -> None:
    image_folder(run.folder / "big", side=12)
    (run.folder / "big/ant/0.png").rename(run.folder / "train/ant/0.png")
    with pytest.raises(DatasetError, match=r"10 x 10|12 x 12") as caught:
        run(config=dataclasses.replace(CONFIG, workers=workers))
    assert "--resize and --crop" in str(caught.value)
    assert "\n" not in str(caught.value)
    cropped = dataclasses.replace(CONFIG, crop=8)
    assert run("cropped.zarr", cropped).computed == 19


def test_a_head_for_other_classes_is_refused(run: Run) -> None:
    small_checkpoint(run.folder / "m.pth", n_classes=5)
    with pytest.raises(DatasetError, match="a head for 5 classes, but the training images have 3"):
        run()


@pytest.mark.parametrize("missing", ["train", "test"])
def test_both_splits_are_needed(run: Run, missing: str) -> None:
    sources = {"train": run.folder / "train", "test": run.folder / "test"}
    del sources[missing]
    with pytest.raises(DatasetError, match=f"needs images for {missing}"):
        run(sources=sources)


def test_a_validation_split_is_stored(run: Run) -> None:
    image_folder(run.folder / "val", (1, 1, 1), seed=2)
    sources = {name: run.folder / name for name in ("train", "test", "val")}
    store = run(sources=sources).store
    assert store.splits == ("train", "test", "val")
    assert store["val"].n_samples == 3


def test_features_beyond_float16_name_the_remedy(run: Run) -> None:
    small_checkpoint(run.folder / "m.pth", scale=1e4)
    with pytest.raises(NonFiniteError, match=r"float16.*float32"):
        run(config=dataclasses.replace(CONFIG, dtype="float16"))


def test_float16_halves_the_features_and_keeps_the_logits(run: Run) -> None:
    half = run("half.zarr", dataclasses.replace(CONFIG, dtype="float16")).store
    full = run("full.zarr").store
    assert half["train"].features().dtype == half["train"].views().dtype == np.float16
    assert half["train"].logits().tobytes() == full["train"].logits().tobytes()


def test_recomputed_logits_take_no_room_and_agree(run: Run) -> None:
    store = run("r.zarr", dataclasses.replace(CONFIG, logits="recompute")).store
    assert not (run.folder / "r.zarr/test/logits").exists()
    np.testing.assert_allclose(
        store["test"].logits(), run("f.zarr").store["test"].logits(), atol=1e-5
    )


def test_bfloat16_runs_where_it_is_asked_for_and_is_another_identity(run: Run) -> None:
    full = run("full.zarr").store
    mixed = run("mixed.zarr", dataclasses.replace(CONFIG, autocast="bfloat16")).store
    np.testing.assert_allclose(mixed["test"].logits(), full["test"].logits(), rtol=0.1, atol=0.05)
    assert mixed.identity.differences(full.identity)


def test_a_head_that_is_not_linear_in_the_tapped_features_is_noticed(run: Run) -> None:
    model = prepare_model(run.folder / "m.pth")
    weight = model.classifier.weight * np.float32(1.5)
    wrong = dataclasses.replace(
        model, classifier=dataclasses.replace(model.classifier, weight=weight)
    )
    sources = {"train": run.folder / "train", "test": run.folder / "test"}
    with pytest.raises(CheckpointError, match="miss the model's own logits"):
        extract(wrong, sources, run.folder / "x.zarr", CONFIG)


def test_progress_counts_to_the_end_and_splits_the_time(run: Run) -> None:
    seen: list[Snapshot] = []
    result = run(on_progress=seen.append)
    assert [s.done for s in seen] == [3, 5, 8, 10, 13, 16, 18, 19]
    assert all(s.total == 19 for s in seen)
    assert set(result.shares) == {"reading", "forward", "writing"}
    assert sum(result.shares.values()) == pytest.approx(1)


def test_a_disk_that_refuses_stops_the_run_and_it_resumes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cache.writer import StoreWriter

    write = StoreWriter.write_shard
    calls: list[int] = []

    def full_disk(self: StoreWriter, *args: object, **kw: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise StoreError("no space left")
        return write(self, *args, **kw)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(StoreWriter, "write_shard", full_disk)
    with pytest.raises(StoreError, match="no space left"):
        run()
    monkeypatch.undo()
    resumed = run(resume=True)
    assert resumed.computed < 19
    assert_equal(resumed.store, run("other.zarr").store)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="choose --device cpu"):
        run(config=dataclasses.replace(CONFIG, device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")
def test_a_gpu_gives_the_cpu_s_features_to_rounding(run: Run) -> None:
    cpu = run("cpu.zarr").store
    cuda = run("cuda.zarr", dataclasses.replace(CONFIG, device="cuda")).store
    for name, array in arrays(cuda).items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, arrays(cpu)[name], atol=1e-3, err_msg=name)
