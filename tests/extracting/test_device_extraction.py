"""Whole extractions whose images a device decodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import Store
from cache.errors import IdentityMismatchError
from pipeline.config import ExtractConfig
from pipeline.errors import ExtractionError
from pipeline.extracting.device_decoding import (
    Decoder,
)
from pipeline.progress import Snapshot
from tests import small_extractions
from tests.extracting.played_device import (
    BY_READER,
    CONFIG,
    CPU,
    FAILED,
    ON_DEVICE,
    Fake,
    jpeg_folder,
)
from tests.small_data import small_checkpoint


@dataclasses.dataclass(frozen=True)
class Run(small_extractions.Run):
    """Extractions whose device, a CPU, decodes."""

    decoder: Fake = dataclasses.field(kw_only=True)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    decoder = Fake()

    def on_cpu(config: ExtractConfig, device: torch.device) -> Decoder | None:
        return None if config.decode == "cpu" else decoder

    monkeypatch.setattr("pipeline.extracting.plan.choose_device", lambda *_: CPU)
    monkeypatch.setattr("pipeline.extracting.plan.jpeg_decoder", on_cpu)
    small_checkpoint(tmp_path / "m.pth")
    jpeg_folder(tmp_path / "train")
    jpeg_folder(tmp_path / "test")
    return Run(tmp_path, CONFIG, decoder=decoder)


def arrays(store: Store) -> dict[str, bytes]:
    found = {}
    for name in store.splits:
        found[f"{name}/features"] = store[name].features().tobytes()
        found[f"{name}/logits"] = store[name].logits().tobytes()
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_features_are_those_of_the_readers_but_for_rounding(run: Run, workers: int) -> None:
    ours = run("ours.zarr", dataclasses.replace(CONFIG, workers=workers)).store
    assert sum(run.decoder.calls) == 2 * len(ON_DEVICE)
    theirs = run("theirs.zarr", dataclasses.replace(CONFIG, decode="cpu")).store
    assert sum(run.decoder.calls) == 2 * len(ON_DEVICE)
    for name in ("train", "test"):
        assert ours[name].failed == theirs[name].failed
        assert list(ours[name].failed) == FAILED
        a, b = ours[name].features(), theirs[name].features()
        np.testing.assert_allclose(a, b, atol=0.02)
        np.testing.assert_allclose(a[BY_READER], b[BY_READER], atol=1e-5)


def test_the_store_says_so_and_takes_no_other_shards(run: Run) -> None:
    store = run("ours.zarr").store
    assert store.identity.compute["decode"] == "device"
    with pytest.raises(IdentityMismatchError, match=r"compute.decode: this 'cpu', that 'device'"):
        run("ours.zarr", dataclasses.replace(CONFIG, decode="cpu"), resume=True)


def test_an_interrupted_extraction_resumes_to_the_same_bytes(run: Run) -> None:
    def stop(snapshot: Snapshot) -> None:
        if snapshot.done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run("broken.zarr", on_progress=stop)
    resumed = run("broken.zarr", resume=True)
    assert 0 < resumed.computed < 18
    assert arrays(resumed.store) == arrays(run("whole.zarr").store)


def test_strict_stops_at_a_file_that_nobody_can_decode(run: Run) -> None:
    with pytest.raises(ExtractionError, match=r"cat/0-cut.jpg cannot be read .*--strict"):
        run("strict.zarr", dataclasses.replace(CONFIG, strict=True))
