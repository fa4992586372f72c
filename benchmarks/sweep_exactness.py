"""Predictions of the plane against float64 softmaxes in every cell, on planted trouble.

    python -m benchmarks.sweep_exactness [--cases 900] [--seed 0]

Counts predictions that differ (there must be none) over random logits of 2 to 10,000 classes with
ties, equal and mirrored heads, twins, masked classes (-inf), constant rows and logits one bit
apart, of two to four heads with weights, at temperatures from 1e-300 to 1e300.
"""

from __future__ import annotations

import sys
from collections import Counter

import click
import numpy as np
import torch

from pipeline.ensemble import Logits, mixture_predictions
from pipeline.metrics import Floats
from pipeline.plane import Member, plane_members, plane_predictions
from pipeline.plane.on_torch import torch_chunks
from pipeline.plane.partitions import NumpyChunk

EXTREME = (1e-300, 1e-8, 0.01, 0.25, 0.5, 1.0, 2.0, 3.0, 16.0, 1e3, 1e6, 1e9, 1e15, 1e300)
KINDS = ("none", "ties", "equal", "mirrored", "masked", "constant", "twins", "close", "last bit")
NUMBERS = 8_000
"""Logits of one head in a case."""


def planted(rng: np.random.Generator, kind: str, n_classes: int, n_heads: int) -> list[Logits]:
    """Logits (N, C) of each head."""
    shape = (int(min(100, max(2, NUMBERS // n_classes))), n_classes)
    scale = rng.choice([1e-6, 0.1, 1.0, 5.0, 30.0, 1e4])
    dtype = (np.float32, np.float64)[rng.integers(2)]
    logits: list[Logits] = [(scale * rng.normal(size=shape)).astype(dtype) for _ in range(n_heads)]
    if kind == "ties":
        logits = [np.round(v / scale) for v in logits]
    elif kind == "equal":
        logits = [logits[0]] * n_heads
    elif kind == "mirrored":
        logits[1] = logits[0][:, ::-1].copy()
    elif kind == "close":
        logits[1] = logits[0] + (scale / 10 * rng.normal(size=shape)).astype(dtype)
    elif kind == "last bit":
        logits[1] = np.nextafter(logits[0], 2 * logits[0])
    one, other = rng.integers(0, n_classes, 2)
    for v in logits:
        if kind == "masked":
            v[:, rng.integers(0, n_classes, n_classes // 3)] = -np.inf
            v[np.isinf(v).all(axis=1), 0] = 0
        elif kind == "constant":
            v[rng.random(len(v)) < 0.5] = 3.25
        elif kind == "twins":
            v[:, other] = v[:, one]
    return logits


def grid(rng: np.random.Generator) -> Floats:
    """Temperatures, extreme ones half the time."""
    if rng.random() < 0.5:
        return np.geomspace(0.2, 20, int(rng.integers(1, 7)))
    return np.sort(rng.choice(EXTREME, int(rng.integers(1, 6)), replace=False))


def mismatches(logits: list[Logits], members: tuple[Member, ...], found: np.ndarray) -> int:
    """How many predictions are not those of the direct evaluation."""
    wrong = 0
    for cell in np.ndindex(*found.shape[1:]):
        temperatures = [float(m.temperatures[cell[m.axis]]) for m in members]
        direct = mixture_predictions(logits, temperatures, [m.weight for m in members])
        wrong += int(np.sum(found[:, *cell] != direct))
    return wrong


@click.command()
@click.option("--cases", default=900, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(cases: int, seed: int) -> None:
    """Print mismatches by kind of trouble, and fail if there is one."""
    rng = np.random.default_rng(seed)
    on_torch = torch_chunks(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    compared: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for case in range(cases):
        kind = KINDS[case % len(KINDS)]
        n_classes = int(
            rng.choice([2, 3, 10, 100, 1000, 10_000], p=[0.2, 0.2, 0.2, 0.2, 0.15, 0.05])
        )
        n_heads = int(rng.choice([2, 2, 3, 4]))
        logits = planted(rng, kind, n_classes, n_heads)
        weights = rng.uniform(0.1, 3, n_heads).tolist() if rng.random() < 0.5 else None
        members = plane_members(grid(rng), grid(rng), n_heads - 1, weights=weights)
        for make_chunk in (NumpyChunk, on_torch) if case % 4 == 0 else (NumpyChunk,):
            found = plane_predictions(logits, members, make_chunk)
            compared[kind] += found.size
            wrong[kind] += mismatches(logits, members, found)
    for kind in KINDS:
        print(f"{kind:<10} {wrong[kind]} mismatches of {compared[kind]:,} predictions")
    print(f"{'all':<10} {wrong.total()} mismatches of {compared.total():,} predictions")
    sys.exit(bool(wrong.total()))


if __name__ == "__main__":
    main()
