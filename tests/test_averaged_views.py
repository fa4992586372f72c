"""Test views from images to reports: extracted, kept whole, and averaged wherever one scores."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cache import Store, StoreError, convert_store, open_store, verify_store
from cache.errors import IdentityMismatchError
from pipeline.cli import main
from pipeline.config import ExtractConfig, SweepConfig
from pipeline.datasets import ShiftedViews, ViewSpec, open_source
from pipeline.ensemble import logit_blocks, mixture_probabilities
from pipeline.errors import EvaluationError
from pipeline.heads import Head, save_head
from pipeline.progress import Snapshot
from pipeline.stages.evaluate import evaluate
from pipeline.stages.extract import extract, prepare_model
from pipeline.stages.report import make_report
from pipeline.stages.sweep_temps import save_sweep, sweep_temps
from tests.cache.store_making import tree
from tests.measured_stores import planted_head, planted_store
from tests.small_data import image_folder, small_checkpoint

CONFIG = ExtractConfig(
    device="cpu", workers=0, views=1, test_views=3, test_view_shift=1, batch_size=3, shard_rows=5
)
GRID = SweepConfig(t_old=(1.0, 2.0), t_new=(1.0, 2.0), replicates=20, threads=1)


def run(folder: Path, out: str, config: ExtractConfig = CONFIG, **how: Any) -> Store:
    sources = {name: folder / name for name in ("train", "test", "val")}
    return extract(folder / "m.pth", sources, folder / out, config, **how).store


def nolb(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint, images of which one test image is broken, and a store with three test views."""
    folder = tmp_path_factory.mktemp("made")
    small_checkpoint(folder / "m.pth")
    image_folder(folder / "train")
    image_folder(folder / "val", (2, 1, 1), seed=2)
    image_folder(folder / "test", (3, 3, 3), seed=1)
    (folder / "test/bee/1.png").write_bytes(b"no image")
    run(folder, "s.zarr").close()
    return folder


@pytest.fixture
def store(made: Path) -> Store:
    return open_store(made / "s.zarr")


def some_head(store: Store) -> Head:
    """A head that predicts all classes, and often otherwise than the old one."""
    split = store["test"]
    weight = np.random.default_rng(0).normal(0, 3, store.classifier.weight.shape)
    return planted_head(store, weight, -weight @ split.features()[split.usable].mean(axis=0))


def test_every_split_but_train_has_the_features_of_its_test_views(made: Path, store: Store) -> None:
    model = prepare_model(made / "m.pth")
    views = ShiftedViews(3, shift=1)
    for name in ("test", "val"):
        source, split = open_source(made / name), store[name]
        assert split.views().shape == (3, split.n_samples, store.classifier.weight.shape[1])
        for row in np.flatnonzero(split.usable):
            pixels = views.make_all(source.read(row), source.ids[row], model.preprocessing)
            with torch.inference_mode():
                logits = model.module(model.preprocessing.normalize(torch.from_numpy(pixels)))
            found = np.stack([split.version(v, row, row + 1)[0] for v in range(4)])
            np.testing.assert_allclose(store.classifier.logits(found), logits.numpy(), atol=1e-5)
    assert store["train"].n_views == 1
    assert store.identity.views == (
        f"{ViewSpec(1).describe()}; 3 test views, mirror images, moves by 1, mean padding"
    )


def test_a_row_whose_image_failed_has_no_views_and_no_part(store: Store) -> None:
    (row,) = store["test"].failed
    assert np.isnan(store["test"].views()[:, row]).all()
    scores = evaluate(store)
    assert (scores.n_samples, scores.n_failed, scores.test_views) == (8, 1, 3)


def test_without_test_views_a_store_is_what_it_was(made: Path, store: Store) -> None:
    plain = run(made, "plain.zarr", dataclasses.replace(CONFIG, test_views=0))
    assert plain.identity.views == ViewSpec(1).describe()
    assert plain["test"].n_views == plain["val"].n_views == 0
    for name in store.splits:
        assert plain[name].features().tobytes() == store[name].features().tobytes()
        assert plain[name].logits().tobytes() == store[name].logits().tobytes()
    assert plain["train"].views().tobytes() == store["train"].views().tobytes()
    head = some_head(store)
    assert evaluate(plain, head, t_old=2.0) == evaluate(store, head, t_old=2.0, test_views=False)
    with pytest.raises(StoreError, match="extract with --test-views"):
        plain["test"].views()


def test_interrupted_among_test_views_it_resumes_to_equal_bytes(made: Path) -> None:
    # 13 + 9 + 4 rows in shards of 5 and batches of 3: the eighth batch is the second shard's of
    # test, so that its first shard is kept.
    left = [8]

    def interrupt(_: Snapshot) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run(made, "again.zarr", on_progress=interrupt)
    for change in ({"test_views": 2}, {"test_view_shift": 2}):
        with pytest.raises(IdentityMismatchError, match="3 test views"):
            run(made, "again.zarr", dataclasses.replace(CONFIG, **change), resume=True)  # type: ignore[arg-type]  # a table of cases
    run(made, "again.zarr", resume=True).close()
    assert tree(made / "again.zarr") == tree(made / "s.zarr")


def test_the_time_left_knows_that_images_with_more_views_take_longer(made: Path) -> None:
    # 13 training images with one view, 13 others with three: 26 and 52 passes.
    seen: list[Snapshot] = []
    run(made, "timed.zarr", on_progress=seen.append).close()
    ends_of_train = next(snapshot for snapshot in seen if snapshot.done == 13)
    assert ends_of_train.work_left == 52 / 26
    assert seen[-1].seconds_left == 0


def test_a_lost_test_view_is_noticed_and_repaired(made: Path) -> None:
    path = made / "lost.zarr"
    run(made, path.name).close()
    before = tree(path)
    (path / "test/views/c.2.1.0").unlink()
    assert [problem.shard.name for problem in verify_store(path) if problem.shard] == ["test-00001"]
    done = nolb(
        "store", "repair", path, "--checkpoint", made / "m.pth", "--train", made / "train",
        "--test", made / "test", "--val", made / "val",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert tree(path) == before


def test_conversion_keeps_test_views(made: Path, store: Store) -> None:
    half = convert_store(made / "s.zarr", made / "half.h5", dtype="float16", shard_rows=4)
    for name in store.splits:
        expected = store[name].views().astype(np.float16)
        assert np.array_equal(half[name].views(), expected, equal_nan=True)
    wanted = evaluate(store, test_views=True)
    assert evaluate(half).recalls == wanted.recalls  # averaged in float32 all the same
    assert nolb("store", "info", made / "half.h5").output.count("| 3 |") == 2


def test_every_command_averages_and_says_so(made: Path, store: Store, tmp_path: Path) -> None:
    head, out = some_head(store), tmp_path / "sweep"
    path = tmp_path / "h.safetensors"
    save_head(head, path)
    words = "mean feature of 4 views each"
    pairs = [(["--test-views"], 3), ([], 3), (["--no-test-views"], 0)]
    for options, n_views in pairs:
        done = nolb("evaluate", made / "s.zarr", path, "--json", tmp_path / "e.json", "--overwrite",
                    *options)  # fmt: skip
        assert done.exit_code == 0, done.output
        assert (words in done.output) == bool(n_views)
        content = json.loads((tmp_path / "e.json").read_text())
        assert content == evaluate(store, head, test_views=n_views > 0).to_json()
        assert content["test_views"] == n_views
    swept = nolb("sweep-temps", made / "s.zarr", path, "--out", out, "--t-old", "1,2", "--t-new", 1,
                 "--split", "test")  # fmt: skip
    assert swept.exit_code == 0, swept.output
    assert words in swept.output
    assert words in (out / "sweep.md").read_text()
    page = tmp_path / "r.html"
    shown = nolb("report", made / "s.zarr", path, "--out", page, "--sweep", out, "--no-test-views")
    assert shown.exit_code == 1
    assert "mean of 4 views of each image" in shown.output
    shown = nolb("report", made / "s.zarr", path, "--out", page, "--sweep", out)
    assert shown.exit_code == 0, shown.output
    assert words in page.read_text(encoding="utf-8")
    refused = nolb("evaluate", made / "s.zarr", "--split", "train", "--test-views")
    assert refused.exit_code == 1
    assert "no test views of 'train'" in refused.output


def test_a_sweep_s_cells_are_those_of_the_mean_feature(store: Store, tmp_path: Path) -> None:
    head = some_head(store)
    for how, n_views in ((None, 3), (False, 0)):
        sweep = sweep_temps(store, head, dataclasses.replace(GRID, split="test", test_views=how))
        assert (sweep.test_views, sweep.to_json()["test_views"]) == (n_views, n_views)
        cell = evaluate(store, head, t_old=2.0, t_new=1.0, test_views=how)
        assert sweep.accuracy[1, 0] == cell.accuracy
        assert sweep.test_scores is not None
        assert sweep.test_scores.test_views == n_views
        report = make_report(store, head, sweep=sweep.to_json(), test_views=how)
        assert report.to_json()["test_views"] == n_views
        assert report.grid is not None
        assert report.grid.hits is not None  # its own count agrees with the sweep's
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
    assert done.exit_code == 0, done.output
    assert "old, test views: the mean feature of 2 views of each image." in done.output
    content = json.loads((tmp_path / "x.json").read_text())
    with open_store(tmp_path / "x.zarr") as store:
        assert content["old"] == evaluate(store, test_views=False).to_json()
        assert content["old_test_views"] == evaluate(store).to_json()
        assert store.identity.views == "1 test views, mirror images"


def test_predict_averages_like_the_store_and_an_export_does_not(
    made: Path, store: Store, tmp_path: Path
) -> None:
    head = some_head(store)
    save_head(head, tmp_path / "h.safetensors")
    common = ("predict", tmp_path / "h.safetensors", made / "test", "--checkpoint", made / "m.pth",
              "--format", "jsonl", "--t-old", 2)  # fmt: skip
    usable = np.flatnonzero(store["test"].usable)
    for options, averaged in (((), False), (("--test-views", 3, "--test-view-shift", 1), True)):
        lines = nolb(*common, *options).stdout.splitlines()
        found = {Path(p["image"]): p for p in map(json.loads, lines) if "class" in p}
        (block,) = logit_blocks(store, "test", [None, head], averaged)
        wanted = mixture_probabilities(block.logits, (2.0, 1.0))
        assert len(found) == len(usable)
        for row, probabilities in zip(usable, wanted, strict=True):
            best = found[made / "test" / store["test"].ids[row]]
            assert best["class"] == store.class_names[probabilities.argmax()]
            assert best["probability"] == pytest.approx(probabilities.max(), abs=1e-5)
    exported = nolb(
        "export", made / "s.zarr", tmp_path / "h.safetensors", "--checkpoint", made / "m.pth",
        "--format", "safetensors", "--out", tmp_path / "e.safetensors", "--images", made / "test",
        "--check", "all", "--json", tmp_path / "e.json",
    )  # fmt: skip
    assert exported.exit_code == 0, exported.output  # it agrees with the clean images' predictions
    assert "not of the mean of 4 views" in exported.output
    assert json.loads((tmp_path / "e.json").read_text())["views_left_out"] == 3
    refused = nolb("predict", tmp_path / "e.safetensors", made / "test", "--test-views", 3)
    assert refused.exit_code == 1
    assert "sees the clean image alone" in refused.output
    wrong = nolb(*common, "--test-views", 18)
    assert wrong.exit_code == 2
    assert "test_views must be 0 to 17" in wrong.output
