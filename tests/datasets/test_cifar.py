"""CIFAR as torchvision keeps it, and the long-tailed subsets that others published."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.datasets import (
    ArraySource,
    cifar_source,
    open_source,
    published_rows,
)
from pipeline.errors import DatasetError


class TestCifar:
    """The subset that LDAM-DRW's code draws, on a stand-in of the same form."""

    @pytest.fixture
    def fake(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        generator = np.random.default_rng(5)
        labels = generator.permutation(np.repeat(np.arange(10), 50))
        data = SimpleNamespace(
            data=generator.integers(0, 256, (500, 32, 32, 3), np.uint8),
            targets=labels.tolist(),
            classes=[f"class {c}" for c in range(10)],
        )
        monkeypatch.setattr("pipeline.datasets.cifar._torchvision", lambda *_, **__: data)
        return data

    @pytest.mark.parametrize("kind", ["exp", "step"])
    @pytest.mark.parametrize("imbalance", [10, 50])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_is_the_published_subset(
        self, fake: SimpleNamespace, kind: str, imbalance: int, seed: int
    ) -> None:
        spec = f"cifar10-lt:train,imbalance={imbalance},type={kind},seed={seed}"
        source = open_source(spec)
        assert isinstance(source, ArraySource)
        expected = published(fake.targets, kind, 1 / imbalance, seed)
        assert source.ids == tuple(f"train/{row:05d}" for row in sorted(expected))
        assert source.labels.tolist() == [fake.targets[row] for row in sorted(expected)]
        assert np.array_equal(np.asarray(source.read(3)), fake.data[sorted(expected)[3]])

    def test_the_test_split_is_whole(self, fake: SimpleNamespace) -> None:
        assert len(open_source("cifar10-lt:test")) == len(open_source("cifar10:train")) == 500

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("cifar10:val", "has the splits train and test, not 'val'"),
            ("cifar10-lt:train,type=linear", "exp or step, not 'linear'"),
            ("cifar10-lt:train,imbalance=much", "imbalance and seed are numbers"),
            ("cifar10-lt:train,imbalance=51", "leaves a class empty"),
            ("cifar10-lt:train,type=step,imbalance=51", "leaves classes empty"),
            ("cifar10:train,imbalance=10", "no setting 'imbalance' of such a source"),
        ],
    )
    def test_says_what_is_wrong(self, fake: SimpleNamespace, spec: str, message: str) -> None:
        with pytest.raises(DatasetError, match=message):
            open_source(spec)

    def test_a_missing_copy(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"holds no whole copy of cifar100 .*download=yes"):
            cifar_source("cifar100", "train", root=tmp_path)


def published(targets: list[int], kind: str, factor: float, seed: int) -> list[int]:
    """The rule of LDAM-DRW's `imbalance_cifar.py`, with numpy's global generator as there."""
    labels = np.array(targets)
    n_classes, largest = 10, len(targets) / 10
    if kind == "exp":
        counts = [int(largest * factor ** (c / (n_classes - 1.0))) for c in range(n_classes)]
    else:
        counts = [int(largest)] * 5 + [int(largest * factor)] * 5
    state = np.random.get_state()  # noqa: NPY002  the published code seeds the global one
    try:
        np.random.seed(seed)  # noqa: NPY002
        rows: list[int] = []
        for label, count in zip(np.unique(labels), counts, strict=True):
            index = np.where(labels == label)[0]
            np.random.shuffle(index)  # noqa: NPY002
            rows += index[:count].tolist()
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return rows


def test_published_rows_of_a_small_case() -> None:
    # RandomState(0) shuffles 0..4 to [2 0 1 3 4] and then 5..9 to [5 7 6 9 8].
    assert published_rows(np.repeat([0, 1], 5), (3, 2), 0).tolist() == [0, 1, 2, 5, 7]
