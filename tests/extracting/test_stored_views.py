"""Test views in a store: extracted, kept whole through interruptions, damage and conversion."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import Store, StoreError, convert_store, open_store, verify_store
from cache.errors import IdentityMismatchError
from pipeline.datasets import ShiftedViews, ViewSpec, open_source
from pipeline.extracting.plan import prepare_model
from pipeline.progress import Snapshot
from pipeline.stages.evaluate import evaluate
from tests.cache.store_making import tree
from tests.commands import nolb
from tests.small_extractions import Interrupted
from tests.viewed_images import CONFIG, made_store, run, some_head


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_store(tmp_path_factory.mktemp("made"))


@pytest.fixture
def store(made: Path) -> Store:
    return open_store(made / "s.zarr")


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
    assert store.identity.views == {
        "train": ViewSpec(1).to_json(),
        "test": {"count": 3, "shift": 1, "fill": "mean", "flip": True},
    }


def test_a_row_whose_image_failed_has_no_views_and_no_part(store: Store) -> None:
    (row,) = store["test"].failed
    assert np.isnan(store["test"].views()[:, row]).all()
    scores = evaluate(store)
    assert (scores.n_samples, scores.n_failed, scores.test_views) == (8, 1, 3)


def test_without_test_views_a_store_is_what_it_was(made: Path, store: Store) -> None:
    plain = run(made, "plain.zarr", dataclasses.replace(CONFIG, test_views=0))
    assert plain.identity.views == {"train": ViewSpec(1).to_json(), "test": None}
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
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run(made, "again.zarr", on_progress=Interrupted(8))
    for change, differing in (
        ({"test_views": 2}, "count: this 2"),
        ({"test_view_shift": 2}, "shift: this 2"),
    ):
        with pytest.raises(IdentityMismatchError, match=rf"views\.test\.{differing}, that"):
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
    nolb(
        "store", "repair", path, "--checkpoint", made / "m.pth", "--train", made / "train",
        "--test", made / "test", "--val", made / "val",
    )  # fmt: skip
    assert tree(path) == before


def test_conversion_keeps_test_views(made: Path, store: Store) -> None:
    half = convert_store(made / "s.zarr", made / "half.h5", dtype="float16", shard_rows=4)
    for name in store.splits:
        expected = store[name].views().astype(np.float16)
        assert np.array_equal(half[name].views(), expected, equal_nan=True)
    wanted = evaluate(store, test_views=True)
    assert evaluate(half).recalls == wanted.recalls  # averaged in float32 all the same
    assert nolb("store", "info", made / "half.h5").output.count("| 3 |") == 2
