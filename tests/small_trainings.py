"""Small trainings, and what ends them like a crash would."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from pipeline.config import PretrainConfig
from pipeline.datasets import Preprocessing
from pipeline.progress import Snapshot
from pipeline.stages.pretrain import Callbacks, Pretraining, pretrain
from tests.small_data import COUNTS, small_sources

SMALL = PretrainConfig(
    model="small-cnn", epochs=3, batch_size=4, lr=0.05, padding=1, device="cpu", workers=0
)

COUNTS_IN_ALL = sum(COUNTS)
"""Training images, which an epoch shows once each."""


CPU = torch.device("cpu")
HALF = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 6, side: int = 5, seed: int = 0) -> torch.Tensor:
    """Square images (N, S, S, 3) of noise."""
    return torch.randint(0, 256, (n, side, side, 3), generator=generator(seed), dtype=torch.uint8)


@dataclasses.dataclass(frozen=True)
class Run:
    """Two folders of images; calling it trains."""

    folder: Path

    def __call__(self, out: str = "m.pth", config: PretrainConfig = SMALL, **kw: object) -> Pretraining:  # fmt: skip  # noqa: E501
        sources = kw.pop("sources", {"train": self.folder / "train"})
        return pretrain(sources, self.folder / out, config, **kw)  # type: ignore[arg-type]  # any keyword


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path, weights_only=True)
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


def assert_same_weights(a: Path, b: Path) -> None:
    others = weights_of(b)
    found = weights_of(a)
    assert found.keys() == others.keys()
    for name, weight in found.items():
        assert torch.equal(weight, others[name]), name


class StopError(Exception):
    """Ends a training like a crash would."""


def stop_after(batches: int, error: type[BaseException] = StopError) -> Callbacks:
    seen: list[Snapshot] = []

    def on_progress(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        if len(seen) == batches:
            raise error

    return Callbacks(on_progress=on_progress)


def run_in(folder: Path) -> Run:
    """The run of a folder, with images drawn for it."""
    small_sources(folder)
    return Run(folder)
