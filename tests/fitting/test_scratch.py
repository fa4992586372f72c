"""Fitting on features that do not fit the memory: the same head, bit for bit."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cache import Classifier, Store
from pipeline.config import FitConfig, build_config, parse_size
from pipeline.errors import ConfigError, FitError
from pipeline.fitting import fit_head_on_rows, store_rows
from pipeline.fitting.draws import index_batches
from pipeline.fitting.scratch import ScratchRows, buffer_rows
from pipeline.stages.fit_head import fit_head, fit_heads
from tests.processes import python
from tests.training_stores import training_store

N, D, C, V = 300, 8, 4, 2
LABELS = np.repeat(np.arange(C), (200, 75, 20, 5))  # class by class, as folders give them
FAILED = {5: "broken", 299: "broken"}


@pytest.fixture(scope="module")
def features() -> NDArray[np.float32]:
    """(1 + V, N, D) around one point a class."""
    generator = np.random.default_rng(0)
    made = 3 * np.eye(C, D)[LABELS] + generator.normal(0, 0.6, (1 + V, N, D))
    return made.astype(np.float32)


@pytest.fixture(scope="module", params=[".zarr", ".h5"])
def store(request, tmp_path_factory, features) -> Store:
    return made_store(tmp_path_factory.mktemp("s") / f"x{request.param}", features)


def made_store(path: Path, features: NDArray[np.float32]) -> Store:
    old = Classifier(np.zeros((C, D), np.float32))
    return training_store(features, LABELS, FAILED, path=path, old=old, shard_rows=64)


@pytest.mark.parametrize("sampler", ["instance", "class-balanced", "class-aware"])
@pytest.mark.parametrize("views", [True, False])
def test_it_gives_the_head_of_a_fit_in_memory(store, monkeypatch, sampler, views):
    settings = {"epochs": 3, "batch_size": 16, "sampler": sampler, "views": views}
    whole = fit_head(store, build_config(FitConfig, settings))
    monkeypatch.setattr(store_rows, "_fits", lambda *_: False)
    streamed = fit_head(store, build_config(FitConfig, settings | {"memory": "64GiB"}))
    assert streamed.head.weight.tobytes() == whole.head.weight.tobytes()
    assert streamed.head.bias.tobytes() == whole.head.bias.tobytes()
    assert streamed.losses == whole.losses
    assert (streamed.n_samples, streamed.n_views) == (N - len(FAILED), V if views else 0)


def scratch(store: Store, n_views: int = V, buffer: int = 100) -> ScratchRows:
    counts = torch.from_numpy(np.array(store.class_counts))
    return ScratchRows(
        store["train"], range(N), n_views, counts, width=D, device=torch.device("cpu"),
        buffer=buffer,
    )  # fmt: skip


def test_many_heads_are_those_of_fits_in_memory(store, monkeypatch):
    base = build_config(FitConfig, epochs=2, batch_size=16, memory="64GiB")
    configs = [replace(base, seed=seed, lr=lr) for seed in range(3) for lr in (0.1, 0.05)]
    configs += [replace(base, head="nearest-mean"), replace(base, feature_noise=0.5)]
    whole = fit_heads(store, configs)
    monkeypatch.setattr(store_rows, "_fits", lambda *_: False)
    for one, other in zip(fit_heads(store, configs), whole, strict=True):
        assert one.head.weight.tobytes() == other.head.weight.tobytes()
        assert one.head.bias.tobytes() == other.head.bias.tobytes()


def test_the_full_batch_solver_wants_all_rows_in_memory(store, monkeypatch):
    with scratch(store) as rows, pytest.raises(FitError, match="memory of one process"):
        fit_head_on_rows(rows, FitConfig(solver="l-bfgs"))
    # Before a scratch file is written, and also where its head is not the first of several.
    monkeypatch.setattr(store_rows, "ScratchRows", None)
    sgd = build_config(FitConfig, epochs=1, memory="10MiB")
    with pytest.raises(FitError, match=r"--memory must be [0-9,]+ MiB larger.*--solver sgd"):
        fit_heads(store, [sgd, replace(sgd, solver="l-bfgs")])


@pytest.mark.parametrize("buffer", [1, 16, 100, 10_000])
def test_the_size_of_the_buffer_changes_nothing(store, buffer):
    config = FitConfig(batch_size=16, epochs=3)
    with scratch(store) as rows, scratch(store, buffer=buffer) as other:
        drawn = [
            list(of.stream(index_batches(of.labels, 1 + V, config, [0, 1]))) for of in (rows, other)
        ]
    assert len(drawn[0]) == 3 * -(-(N - len(FAILED)) // 16)
    for one, two in zip(*drawn, strict=True):
        assert torch.equal(one.features, two.features)
        assert torch.equal(one.labels, two.labels)


def test_a_part_holds_its_shards_alone(store, features):
    counts = torch.from_numpy(np.array(store.class_counts))
    with ScratchRows(
        store["train"], range(64, 192), V, counts, width=D, device=torch.device("cpu"), buffer=10
    ) as rows:
        assert rows.labels.tolist() == LABELS[64:192].tolist()
        last = np.array([3 * 128 - 1])  # of the last view
        np.testing.assert_array_equal(rows.gather(last), features[V, 191:192])


def test_rows_are_gathered_from_every_version(store, features):
    usable = np.setdiff1d(np.arange(N), list(FAILED))
    whole = features[:, usable].reshape(-1, D)
    chosen = np.random.default_rng(0).integers(0, len(whole), 500)
    with scratch(store) as rows:
        np.testing.assert_array_equal(rows.gather(chosen), whole[chosen])
        assert rows.gather(chosen[:0]).shape == (0, D)


def test_what_fits_is_held_in_memory(store, monkeypatch):
    monkeypatch.setattr(store_rows, "ScratchRows", None)
    result = fit_head(store, build_config(FitConfig, epochs=1, memory="64GiB"))
    assert result.head.provenance.config.memory == "64GiB"


def test_nothing_is_left_in_the_temporary_folder(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch(store, 0):
        assert list(tmp_path.iterdir()) == []  # it has no name that a crash could leave behind


def test_a_full_temporary_folder_is_a_sentence(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(FitError, match=r"GiB of scratch space in .* \(No space left.*set TMPDIR"):
        scratch(store, 0)


def test_a_budget_that_is_too_small_says_how_much_is_missing(store):
    with pytest.raises(FitError, match=r"--memory must be [0-9,]+ MiB larger"):
        fit_head(store, build_config(FitConfig, epochs=1, memory="10MiB"))


def test_a_buffer_stays_inside_its_budget():
    rows = buffer_rows(1 << 30, 2048, 256, 16 << 20)
    assert 256 <= rows < (1 << 30) // (2048 * 4)
    with pytest.raises(FitError, match="MiB larger"):
        buffer_rows(200 << 20, 2048, 256, 16 << 20)
    heads = 64 << 20
    fewer = buffer_rows(1 << 30, 2048, 256, 16 << 20, heads)
    assert rows - fewer == pytest.approx(heads / (2 * 4 * 2048), abs=1)


def test_heads_that_do_not_fit_the_budget_are_refused(store):
    # 64 heads of a pass, each with the logits of a batch: 64 * 4 * 4 * 10^6 * 4 bytes = 4 GiB.
    config = build_config(FitConfig, memory="3GiB", batch_size=10**6, average_seeds=64)
    with pytest.raises(FitError, match="MiB larger"):
        fit_head(store, config)


def test_resident_bytes_grow_with_what_is_held():
    # In a fresh process: a long test run holds freed pages that 128 MiB more would only reuse.
    code = (
        "import numpy as np; from pipeline.fitting.scratch import resident_bytes; "
        "before = resident_bytes(); held = np.ones(1 << 24); "
        "print((resident_bytes() - before) / held.nbytes)"
    )
    assert 0.9 < float(python("-c", code)) < 1.2


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5 KiB", 1536), ("7b", 7), ("3TB", 3 * 10**12)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "2", "GiB", "-1GiB", "0MB", "1e3MB", "2 GiBs"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="is no size"):
        parse_size(text)
    with pytest.raises(ConfigError, match="is no size"):
        FitConfig(memory=text)
