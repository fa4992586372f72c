"""The exact plane of two temperatures, against two softmaxes a cell and the bare log-sum-exps.

    python -m benchmarks.sweep_temps [--rows 50000 --classes 1000 --cells 50]
    python -m benchmarks.sweep_temps --store STORE --head HEAD [--cells 200]

Without a store of your own it draws logits on which about half the rows are right and one in three
differs between the heads. What is compared runs on the same logits in turn, every run of the sweep
beside runs of the others, all blocked for the cache and with as many threads. The two softmaxes a
cell are timed on a few rows of every block and a few cells, the log-sum-exps on a few rows, and
both are taken to the whole: they do the same for every row and cell.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.machine import describe, seconds, spread
from cache import open_store
from pipeline.config import Temperatures, parse_temperatures
from pipeline.cores import available_cores
from pipeline.ensemble import LogitBlock, mixture_predictions
from pipeline.heads import load_head
from pipeline.metrics import Floats
from pipeline.plane import Member, collect_hits, plane_members
from pipeline.plane.scores import measure
from pipeline.scored import scored_split

BLOCK_ROWS = 4096
CACHED = 2**15
"""Float64 numbers of a head that are worked on at a time (256 KiB)."""

Blocks = list[LogitBlock]


def drawn_blocks(rows: int, classes: int, *, independent: bool) -> Blocks:
    """Logits in float32 of two heads that are right about half the time."""
    rng = np.random.default_rng(0)
    blocks = []
    for start in range(0, rows, BLOCK_ROWS):
        n = min(BLOCK_ROWS, rows - start)
        labels = rng.integers(0, classes, n)
        own, shared = (1.5, 0.0) if independent else (0.6, 1.5)
        common = shared * rng.standard_normal((n, classes), np.float32)
        # About the largest of so many normal draws: every other label is above all the rest.
        common[np.arange(n), labels] += 1.25 * np.sqrt(np.log(classes) * (own**2 + shared**2))
        heads = [
            common + np.float32(own) * rng.standard_normal((n, classes), np.float32)
            for _ in range(2)
        ]
        blocks.append(LogitBlock(labels, (heads[0], heads[1])))
    return blocks


def few_rows(blocks: Blocks, share: float) -> Blocks:
    """The first rows of every block, about this share of all."""
    taken = []
    for block in blocks:
        n = max(1, round(share * len(block.labels)))
        taken.append(LogitBlock(block.labels[:n], tuple(v[:n] for v in block.logits)))
    return taken


def pieces(blocks: Blocks) -> Iterator[LogitBlock]:
    """Rows whose float64 numbers stay in the cache."""
    for block in blocks:
        step = max(1, CACHED // block.logits[0].shape[1])
        for k in range(0, len(block.labels), step):
            yield LogitBlock(
                block.labels[k : k + step], tuple(v[k : k + step] for v in block.logits)
            )


def cell_by_cell(block: LogitBlock, cells: Sequence[tuple[float, float]]) -> int:
    """The plain way: both softmaxes anew in every cell."""
    return sum(
        int(np.sum(mixture_predictions(block.logits, cell) == block.labels)) for cell in cells
    )


def log_sum_exps(block: LogitBlock, grid: Temperatures, dtype: type[Any]) -> list[Floats]:
    """Of both heads at every temperature: one pass each, and nothing else."""
    sums = []
    for logits in block.logits:
        shifted = logits.astype(dtype)
        shifted -= shifted.max(axis=1, keepdims=True)
        out = np.empty_like(shifted)
        for t in grid:
            np.multiply(shifted, dtype(1 / t), out=out)
            np.exp(out, out=out)
            sums.append(np.log(out.sum(axis=1)))
    return sums


def in_threads(work: Callable[[LogitBlock], object], blocks: Blocks, threads: int) -> None:
    """Do the work on all pieces."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, pieces(blocks)))


@click.command()
@click.option("--store", "path", type=click.Path(path_type=Path))
@click.option("--head", "head_path", type=click.Path(path_type=Path))
@click.option("--rows", default=10_000, show_default=True)
@click.option("--classes", default=100, show_default=True)
@click.option("--cells", default=50, show_default=True, help="Temperatures of each head.")
@click.option("--runs", default=3, show_default=True)
@click.option("--threads", default=0, help="0: one for each core.")
@click.option("--independent", is_flag=True, help="Heads that have only the label in common.")
def main(
    path: Path | None, head_path: Path | None, rows: int, classes: int, cells: int, runs: int,
    threads: int, independent: bool,
) -> None:  # fmt: skip
    """Print times and their ratios."""
    threads = threads or available_cores()
    print(describe())
    if path is not None and head_path is not None:
        with open_store(path) as store:
            blocks = list(scored_split(store, "test").blocks([None, load_head(head_path)]))
    else:
        blocks = drawn_blocks(rows, classes, independent=independent)
    n, n_classes = sum(len(b.labels) for b in blocks), blocks[0].logits[0].shape[1]
    grid = parse_temperatures(f"0.25:16:{cells}")
    members = plane_members(np.array(grid), np.array(grid))
    print(f"cells, rows, classes     {cells} x {cells}, {n:,}, {n_classes:,}; {threads} threads")
    compare(blocks, grid, members, threads=threads, runs=runs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held = sum(v.nbytes for b in blocks for v in b.logits) / 2**20
    print(f"peak memory              {peak:,.0f} MiB, {held:,.0f} MiB of them the logits")


def compare(
    blocks: Blocks, grid: Temperatures, members: tuple[Member, ...], *, threads: int, runs: int
) -> None:
    """Time all in turn and check the cells that the plain way looked at."""
    n, n_classes = sum(len(b.labels) for b in blocks), blocks[0].logits[0].shape[1]
    cells = list(product(grid, grid))
    some_cells = cells[:: max(1, len(cells) // 12)]
    share = min(1.0, 2e6 / (n * n_classes))
    part, lse_part = few_rows(blocks, share), few_rows(blocks, min(1.0, 5 * share))
    n_part, n_lse = (sum(len(b.labels) for b in some) for some in (part, lse_part))
    scale = n / n_part * len(cells) / len(some_cells)
    collect_hits(blocks[:1], members, n_classes, threads=threads)  # warm
    works: dict[str, tuple[Callable[[], object], float]] = {
        "sweep": (lambda: collect_hits(blocks, members, n_classes, threads=threads), 1.0),
        "f64": (lambda: in_threads(partial(log_sum_exps, grid=grid, dtype=np.float64),
                                   lse_part, threads), n / n_lse),
        "f32": (lambda: in_threads(partial(log_sum_exps, grid=grid, dtype=np.float32),
                                   lse_part, threads), n / n_lse),
        "two": (lambda: in_threads(partial(cell_by_cell, cells=some_cells), part, threads), scale),
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, (work, whole) in works.items():
            times[name].append(seconds(work) * whole)
    plane = collect_hits(blocks, members, n_classes, threads=threads)
    metrics = [seconds(lambda: measure(plane, np.full(n_classes, 50))) for _ in range(runs)]
    n_always, n_varying = int(plane.always.sum()), len(plane.varying)
    print(f"rows always right        {n_always:,}; right in some cells {n_varying:,}")
    print(f"sweep                    {spread(times['sweep'])}")
    print(f"metrics of all cells     {spread(metrics)}")
    print(f"log-sum-exps, float64    {spread(times['f64'])} (from {n_lse:,} rows)")
    print(f"log-sum-exps, float32    {spread(times['f32'])} (from {n_lse:,} rows)")
    print(f"two softmaxes a cell     {spread(times['two'])} (from {n_part:,} rows, {len(some_cells)} cells)")  # fmt: skip  # noqa: E501
    for label, over, under in (
        ("two softmaxes / sweep", "two", "sweep"),
        ("sweep / float64 sums", "sweep", "f64"),
        ("sweep / float32 sums", "sweep", "f32"),
    ):
        ratios = [a / b for a, b in zip(times[over], times[under], strict=True)]
        print(f"{label:<24} {spread(ratios, 'x')}")
    wrong = sum(
        int(np.sum(plane_rows(part, blocks, plane.rows(*divmod(k, len(grid)))) != right))
        for k, right in right_rows(part, cells, some_cells)
    )
    print(f"mismatches               {wrong} of {n_part * len(some_cells):,} predictions compared")


def right_rows(
    part: Blocks, cells: Sequence[tuple[float, float]], some: Sequence[tuple[float, float]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Number of a cell, and which rows it gets right, directly."""
    for cell in some:
        right = [mixture_predictions(b.logits, cell) == b.labels for b in part]
        yield cells.index(cell), np.concatenate(right)


def plane_rows(part: Blocks, blocks: Blocks, right: np.ndarray) -> np.ndarray:
    """Of all rows' hits those of the rows in `part`."""
    starts = np.cumsum([0, *(len(b.labels) for b in blocks)])
    ends = zip(starts[:-1], part, strict=True)
    return np.concatenate([right[start : start + len(b.labels)] for start, b in ends])


if __name__ == "__main__":
    main()
