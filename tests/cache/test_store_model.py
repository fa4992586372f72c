"""Any order of writing, leaving, resuming and sealing agrees with a plain dictionary."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from cache import (
    IncompleteStoreError,
    StoreExistsError,
    create_store,
    open_store,
    resume_store,
    verify_store,
)
from tests.cache.store_making import N_TEST, N_TRAIN, make_spec

ROWS = {"train": N_TRAIN, "test": N_TEST}
SIZES = {"train": 3, "test": 2}  # shards of 8 rows


class StoreMachine(RuleBasedStateMachine):
    suffix: str

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / f"x{self.suffix}"
        self.spec = make_spec(dtype="float16", n_views=1)
        self.writer = create_store(self.path, self.spec)
        self.model: dict[tuple[str, int], tuple[np.ndarray, int | None]] = {}
        self.sealed = False

    def teardown(self) -> None:
        self.writer.close()
        shutil.rmtree(self.folder)

    @precondition(lambda self: not self.sealed)
    @rule(split=st.sampled_from(["train", "test"]), index=st.integers(0, 2), data=st.data())
    def write(self, split, index, data):
        index = min(index, SIZES[split] - 1)
        shard = next(s for s in self.writer._draft.header.shards(split) if s.index == index)
        value = data.draw(st.integers(-100, 100))
        failed = data.draw(st.none() | st.integers(0, shard.n_rows - 1))
        features = np.full((shard.n_rows, 4), value, np.float32)
        self.writer.write_shard(
            shard,
            features=features,
            logits=-features[:, :3],
            views=features[None] if split == "train" else None,
            failures={} if failed is None else {shard.start + failed: "drawn"},
        )
        if failed is not None:
            features[failed] = np.nan
        self.model[split, index] = (features, failed)

    @precondition(lambda self: not self.sealed)
    @rule()
    def leave_and_resume(self):
        self.writer.close()
        self.writer = resume_store(self.path, self.spec)

    @precondition(lambda self: not self.sealed)
    @rule()
    def count(self):
        missing = {(shard.split, shard.index) for shard in self.writer.missing()}
        expected = {(split, index) for split in SIZES for index in range(SIZES[split])}
        assert missing == expected - set(self.model)

    @precondition(lambda self: not self.sealed)
    @rule()
    def seal(self):
        if len(self.model) < sum(SIZES.values()):
            with pytest.raises(IncompleteStoreError):
                self.writer.seal()
            return
        self.writer.seal().close()
        self.sealed = True

    @precondition(lambda self: self.sealed)
    @rule()
    def read(self):
        assert verify_store(self.path) == []
        with open_store(self.path) as store:
            for split, n_shards in SIZES.items():
                parts = [self.model[split, index] for index in range(n_shards)]
                features = np.concatenate([part for part, _ in parts])
                np.testing.assert_array_equal(store[split].features(), features)
                np.testing.assert_array_equal(store[split].logits(), -features[:, :3])
                failed = {8 * i + row for i, (_, row) in enumerate(parts) if row is not None}
                assert set(store[split].failed) == failed
            np.testing.assert_array_equal(store["train"].views()[0], store["train"].features())

    @precondition(lambda self: self.sealed)
    @rule()
    def overwrite(self):
        with pytest.raises(StoreExistsError):
            resume_store(self.path, self.spec)
        self.writer = create_store(self.path, self.spec, overwrite=True)
        self.model.clear()
        self.sealed = False


QUICK = settings(max_examples=12, stateful_step_count=20, deadline=None)


class MemoryMachine(StoreMachine):
    suffix = ".memory"


class ZarrMachine(StoreMachine):
    suffix = ".zarr"


class Hdf5Machine(StoreMachine):
    suffix = ".h5"


TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = QUICK
TestZarrModel = ZarrMachine.TestCase
TestZarrModel.settings = QUICK
TestHdf5Model = Hdf5Machine.TestCase
TestHdf5Model.settings = QUICK
