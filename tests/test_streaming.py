"""Fitting on features that stay in their store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cache import Classifier, Identity, SplitSpec, Store, StoreSpec, create_store, samples_digest
from pipeline.config import FitConfig, build_config, parse_size
from pipeline.errors import ConfigError, FitError
from pipeline.solvers import TrainingRows, fit_sgd, fit_sgd_batches
from pipeline.stages import fit_head as stage
from pipeline.stages.fit_head import fit_head
from pipeline.streaming import Plan, StreamedRows, plan_for, resident_bytes

N, D, C, V = 600, 8, 4, 2
COUNTS = (400, 150, 40, 10)
LABELS = np.repeat(np.arange(C), COUNTS)  # in the order of the classes, as folders give them
FAILED = {5: "broken", 599: "broken"}
USABLE = N - len(FAILED)


@pytest.fixture(scope="module")
def features() -> NDArray[np.float32]:
    """(1 + V, N, D) around one point a class; the last two numbers tell row and version."""
    generator = np.random.default_rng(0)
    made = 3 * np.eye(C, D)[LABELS] + generator.normal(0, 0.6, (1 + V, N, D))
    made[..., D - 2] = np.arange(N)
    made[..., D - 1] = np.arange(1 + V)[:, None]
    return made.astype(np.float32)


@pytest.fixture(scope="module", params=[".zarr", ".h5"])
def store(request, tmp_path_factory, features) -> Store:
    return made_store(tmp_path_factory.mktemp("s") / f"x{request.param}", features)


def made_store(path: Path, features: NDArray[np.float32]) -> Store:
    ids = [f"{i}.png" for i in range(N)]
    classifier = Classifier(np.zeros((C, D), np.float32))
    words = dict.fromkeys(
        ("model", "checkpoint", "backbone", "preprocessing", "compute", "views"), "x"
    )
    identity = Identity(
        **words, classifier=classifier.digest(), dtype="float32", device="cpu",
        samples={"train": samples_digest(ids, LABELS)},
    )  # fmt: skip
    spec = StoreSpec(
        identity, ("a", "b", "c", "d"), classifier, (SplitSpec("train", ids, LABELS, V),),
        "float32", store_logits=False, shard_rows=64,
    )  # fmt: skip
    with create_store(path, spec) as writer:
        for shard in writer.missing():
            failed = {row: why for row, why in FAILED.items() if shard.start <= row < shard.stop}
            writer.write_shard(
                shard, features=features[0, shard.rows], views=features[1:, shard.rows],
                failures=failed,
            )  # fmt: skip
        return writer.seal()


def streamed(store: Store, plan: Plan, n_views: int = V, **settings: object) -> StreamedRows:
    config = build_config(FitConfig, {"batch_size": 16} | settings)
    return StreamedRows(store["train"], n_views, C, D, plan, config, torch.device("cpu"))


def test_an_epoch_is_every_usable_row_once_in_even_batches(store, features):
    rows = streamed(store, Plan(100, 0, 20))
    orders = []
    for _ in range(2):
        batches = list(rows.epoch())
        assert [len(labels) for _, labels in batches] == [16] * 28 + [15] * 10  # 598 in 38 steps
        drawn = torch.cat([x for x, _ in batches]).numpy()
        row, version = drawn[:, D - 2].astype(int), drawn[:, D - 1].astype(int)
        assert sorted(row) == sorted(set(range(N)) - set(FAILED))
        np.testing.assert_array_equal(drawn, features[version, row])
        np.testing.assert_array_equal(torch.cat([y for _, y in batches]).numpy(), LABELS[row])
        orders.append(row.tolist())
    assert orders[0] != orders[1]


def test_every_version_is_drawn_and_views_may_be_left_out(store):
    rows = streamed(store, Plan(100, 0, 20))
    seen = Counter(int(x[D - 1]) for _ in range(20) for batch, _ in rows.epoch() for x in batch)
    for version in range(1 + V):
        assert 0.2 < seen[version] / (20 * USABLE) < 0.5  # a third, by pieces of 20 rows
    clean = streamed(store, Plan(100, 0, 20), n_views=0)
    assert {float(x[D - 1]) for batch, _ in clean.epoch() for x in batch} == {0.0}


@pytest.mark.parametrize("sampler", ["class-balanced", "class-aware"])
def test_every_class_is_drawn_alike_though_the_buffer_holds_a_few(store, features, sampler):
    rows = streamed(store, Plan(60, 80, 10), sampler=sampler, samples_per_class=4)
    drawn, seen = [], set()
    for _ in range(12):
        batches = list(rows.epoch())
        assert len(batches) == 38
        assert all(len(labels) == 16 for _, labels in batches)
        for x, y in batches:
            row, version = x[:, D - 2].long(), x[:, D - 1].long()
            np.testing.assert_array_equal(x.numpy(), features[version, row])
            np.testing.assert_array_equal(y.numpy(), LABELS[row])
            drawn.append(y.bincount(minlength=C))
            seen.update(row.tolist())
    shares = torch.stack(drawn).sum(0) / (12 * 38 * 16)
    torch.testing.assert_close(shares, torch.full((C,), 0.25), atol=0.03, rtol=0)
    assert len(seen) > 0.9 * USABLE
    assert not seen & set(FAILED)
    assert set(np.flatnonzero(LABELS == 3)) - {599} <= seen  # the smallest class, all of it


def test_the_same_seed_draws_the_same(store):
    for sampler in ("instance", "class-aware"):
        plan = Plan(60, 0 if sampler == "instance" else 80, 10)
        one, same, other = (
            torch.cat([x for x, _ in streamed(store, plan, sampler=sampler, seed=seed).epoch()])
            for seed in (0, 0, 1)
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_a_streamed_fit_is_as_good_as_one_in_memory(store, features):
    usable = store["train"].usable
    scaled = features.copy()
    scaled[..., D - 2 :] = 0  # row and version are no features to learn from
    labels = torch.from_numpy(LABELS[usable])
    config = FitConfig(epochs=10, batch_size=16)
    whole = TrainingRows(torch.from_numpy(scaled[:, usable]), labels, labels.bincount())
    reference = fit_sgd(whole, config)
    rows = StreamedRows(
        store["train"], V, C, D, Plan(100, 0, 20), config, torch.device("cpu")
    )  # fmt: skip

    def batches():
        for x, y in rows.epoch():
            x[:, D - 2 :] = 0
            yield x, y

    fit = fit_sgd_batches(batches, torch.empty(0, D), rows.n_rows, labels.bincount(), config)
    recalls = []
    for each in (fit, reference):
        made = (torch.from_numpy(scaled[0]) @ each.weight.T + each.bias).argmax(1).numpy()
        recalls.append([(made[c == LABELS] == c).mean() for c in range(C)])
    np.testing.assert_allclose(recalls[0], recalls[1], atol=0.06)
    assert min(recalls[0]) > 0.9


def test_what_fits_is_held_in_memory_and_gives_the_same_head(store):
    config = FitConfig(epochs=1)
    whole = fit_head(store, config).head.weight
    with_room = fit_head(store, build_config(FitConfig, epochs=1, memory="64GiB")).head.weight
    assert whole.tobytes() == with_room.tobytes()


@pytest.mark.parametrize("sampler", ["instance", "class-aware"])
def test_the_stage_streams_what_does_not_fit(store, monkeypatch, sampler):
    monkeypatch.setattr(stage, "_fits", lambda *_: False)
    config = build_config(FitConfig, epochs=2, memory="64GiB", sampler=sampler)
    result = fit_head(store, config)
    assert result.n_samples == USABLE
    assert result.n_views == V
    assert result.head.config["memory"] == "64GiB"
    assert np.isfinite(result.head.weight).all()


def test_a_budget_that_is_too_small_says_how_much_is_missing(store):
    config = build_config(FitConfig, epochs=1, memory="10MiB")
    with pytest.raises(FitError, match=r"--memory must be at least [0-9,]+ MiB larger"):
        fit_head(store, config)
    with pytest.raises(FitError, match="MiB larger"):
        plan_for(200 << 20, store["train"], 4096, 1000, config, 20 << 20)


def test_a_plan_stays_inside_its_budget(store):
    for sampler in ("instance", "class-balanced"):
        config = build_config(FitConfig, sampler=sampler)
        plan = plan_for(1 << 30, store["train"], 2048, 1000, config, 16 << 20)
        assert (plan.buffer_rows + plan.reserve_rows) * 2048 * 4 < 1 << 30
        assert bool(plan.reserve_rows) == (sampler != "instance")


def test_resident_bytes_grow_with_what_is_held():
    before = resident_bytes()
    held = np.ones(1 << 24)  # 128 MiB
    assert resident_bytes() - before > held.nbytes // 2


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5 KiB", 1536), ("7b", 7), ("3TB", 3 * 10**12)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "2", "GiB", "-1GiB", "0MB", "1e3MB", "2 GiBs", "9" * 99 + "B"]
)
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="is no size"):
        parse_size(text)
    with pytest.raises(ConfigError, match="is no size"):
        FitConfig(memory=text)
