"""Small studies, fitted and made up, for the tests of what is done with them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from cache import Store
from pipeline import FitConfig
from pipeline.metrics import score_hits
from pipeline.studying import (
    Measurement,
    Study,
    Variant,
    judged,
)
from tests.measured_stores import planted_store

CONFIG = FitConfig(epochs=4, batch_size=16)
N_CLASSES = 3


def store_with(folder: Path, *splits: str, shuffled: str | None = None) -> Store:
    """Noisy features around a corner for each class, some rows failed; one split may lie."""
    rng = np.random.default_rng(0)
    planted = {}
    for name in ("train", *splits):
        labels = np.repeat(np.arange(N_CLASSES), [50, 20, 10] if name == "train" else [20] * 3)
        features = 1.5 * np.eye(N_CLASSES, 5)[labels] + rng.normal(0, 0.7, (len(labels), 5))
        shown = rng.permutation(labels) if name == shuffled else labels
        planted[name] = (features, shown)
    failures = {name: {3: "torn"} for name in planted}
    return planted_store(folder, planted, weight=np.eye(N_CLASSES, 5), failures=failures)


def study_of(
    values: dict[Any, Sequence[tuple[int, int]]], split: str = "val", field: str = "lr"
) -> Study:
    """A study of heads that get so many of 100 samples of each of two classes right, by setting."""
    head: Any = object()  # one that nobody looks into
    variants = tuple(
        Variant(
            settings={field: value} if len(values) > 1 else {},
            seeds=tuple(range(len(hits))),
            heads=(head,) * len(hits),
            measured=Measurement(
                tuple(score_hits(h, (100, 100), (9, 9), ("ant", "bee"), split) for h in hits)
            ),
        )
        for value, hits in values.items()
    )
    return judged(
        Study(
            split=split, config=FitConfig(), variants=variants, n_samples=200, n_failed=0,
            n_rows=18, seconds=1.0,
        )
    )  # fmt: skip


def text_of(table: Any) -> str:
    """Its text with single spaces, wherever lines were broken."""
    console = Console(width=110, file=io.StringIO())
    console.print(table)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]  # a StringIO
