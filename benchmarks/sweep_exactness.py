"""Hits of the plane against float64 softmaxes in every cell, on planted trouble.

    python -m benchmarks.sweep_exactness [--cases 900] [--seed 0]

Counts hits that differ (there must be none) over random logits of 2 to 10,000 classes with
ties, equal and mirrored heads, twins, masked classes (-inf), constant rows and logits one bit
apart, of two to four heads with weights, at temperatures from 1e-300 to 1e300.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import click
import numpy as np
import torch

from pipeline.ensemble import LogitBlock, Logits, mixture_predictions
from pipeline.metrics import Floats, Ints
from pipeline.plane import Member, collect_hits, plane_members
from pipeline.plane.on_torch import torch_chunks
from pipeline.plane.partitions import MakeChunk, NumpyChunk

EXTREME = (1e-300, 1e-8, 0.01, 0.25, 0.5, 1.0, 2.0, 3.0, 16.0, 1e3, 1e6, 1e9, 1e15, 1e300)
KINDS = ("none", "ties", "equal", "mirrored", "masked", "constant", "twins", "close", "last bit")
NUMBERS = 8_000
"""Logits of one head in a case."""


def planted(
    rng: np.random.Generator, kind: str, n_rows: int, n_classes: int, n_heads: int
) -> list[Logits]:
    """Logits (N, C) of each head."""
    shape = (n_rows, n_classes)
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


def direct_predictions(logits: Sequence[Logits], members: Sequence[Member]) -> Ints:
    """Predicted class (N, To, Tn) in every cell, by the definition, cell by cell."""
    old, new = (next(m.temperatures for m in members if m.axis == axis) for axis in (0, 1))
    found = np.empty((len(logits[0]), len(old), len(new)), np.int64)
    for cell in np.ndindex(*found.shape[1:]):
        temperatures = [float(m.temperatures[cell[m.axis]]) for m in members]
        found[:, *cell] = mixture_predictions(logits, temperatures, [m.weight for m in members])
    return found


def wrong_hits(
    logits: Sequence[Logits],
    members: Sequence[Member],
    direct: Ints,
    make_chunk: MakeChunk = NumpyChunk,
) -> tuple[int, int]:
    """How many hits of the plane are not those of the direct predictions, and of how many.

    Every row is asked about with each class that wins one of its cells as its label, so that no
    cell can go to another class unseen, and with one more class.

    Args:
        logits: (N, C) of each head, the old one first.
        members: of `plane_members`.
        direct: of `direct_predictions`.
        make_chunk: the arithmetic.
    """
    n_classes = logits[0].shape[1]
    other = np.arange(len(direct)) % n_classes
    asked = [np.union1d(cells, one) for cells, one in zip(direct, other, strict=True)]
    rows = np.repeat(np.arange(len(direct)), [len(classes) for classes in asked])
    labels = np.concatenate(asked)
    block = LogitBlock(labels, tuple(values[rows] for values in logits))
    plane = collect_hits([block], members, n_classes, make_chunk=make_chunk, threads=1)
    expected = direct[rows] == labels[:, None, None]
    wrong = sum(
        int(np.sum(plane.rows(*cell) != expected[:, *cell])) for cell in np.ndindex(plane.shape)
    )
    return wrong, expected.size


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
        n_rows = min(100, max(2, NUMBERS // n_classes))
        logits = planted(rng, kind, n_rows, n_classes, n_heads)
        weights = rng.uniform(0.1, 3, n_heads).tolist() if rng.random() < 0.5 else None
        members = plane_members(grid(rng), grid(rng), n_heads - 1, weights=weights)
        direct = direct_predictions(logits, members)
        for make_chunk in (NumpyChunk, on_torch) if case % 4 == 0 else (NumpyChunk,):
            differing, of = wrong_hits(logits, members, direct, make_chunk)
            wrong[kind] += differing
            compared[kind] += of
    for kind in KINDS:
        print(f"{kind:<10} {wrong[kind]} mismatches of {compared[kind]:,} hits")
    print(f"{'all':<10} {wrong.total()} mismatches of {compared.total():,} hits")
    sys.exit(bool(wrong.total()))


if __name__ == "__main__":
    main()
