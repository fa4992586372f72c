"""The plane of two temperatures, against two softmaxes in every cell.

    python -m benchmarks.sweep_temps [--store STORE --head HEAD] [--cells 20] [--runs 3]

Without a store of your own it draws random features of CIFAR-100's test size: 10,000 x 64, 100
classes. Times are without process start.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from benchmarks.machine import describe, seconds, spread
from benchmarks.synthetic import random_store
from cache import Store, open_store
from pipeline.config import FitConfig, Grid, SweepConfig, parse_grid
from pipeline.ensemble import ensemble_predictions
from pipeline.heads import Head, load_head
from pipeline.stages.fit_head import fit_head
from pipeline.stages.sweep_temps import sweep_temps


def cell_by_cell(store: Store, head: Head, grid: Grid, rows: int) -> int:
    """The plain way, on some rows: both softmaxes anew in every cell."""
    split = store["test"]
    old, new = split.logits(0, rows), head.logits(split.features(0, rows))
    labels = split.labels[:rows]
    return sum(
        int(np.sum(ensemble_predictions(old, new, t_old, t_new) == labels))
        for t_old in grid
        for t_new in grid
    )


@click.command()
@click.option("--store", "path", type=click.Path(path_type=Path))
@click.option("--head", "head_path", type=click.Path(path_type=Path))
@click.option("--cells", default=20, show_default=True, help="Temperatures of each head.")
@click.option("--runs", default=3, show_default=True)
def main(path: Path | None, head_path: Path | None, cells: int, runs: int) -> None:
    """Print the time of a sweep and of the plain way."""
    print(describe())
    store = open_store(path) if path is not None else random_store()
    head = load_head(head_path) if head_path else fit_head(store, FitConfig(epochs=1)).head
    grid = parse_grid(f"0.25:16:{cells}")
    config = SweepConfig(t_old=grid, t_new=grid, split="test")
    n_rows = store["test"].n_samples
    part = max(1, n_rows // 10)  # the plain way is slow: a tenth of the rows tells its rate
    sweeps, plain = [], []
    for _ in range(runs):
        sweeps.append(seconds(lambda: sweep_temps(store, head, config)))
        plain.append(seconds(lambda: cell_by_cell(store, head, grid, part)) * n_rows / part)
    print(f"cells, rows, classes     {cells} x {cells}, {n_rows:,}, {len(store.class_names)}")
    print(f"sweep_temps              {spread(sweeps)}")
    print(f"two softmaxes a cell     {spread(plain)} (from a tenth of the rows)")
    print(f"two softmaxes / sweep    {spread([a / b for a, b in zip(plain, sweeps, strict=True)], 'x')}")  # fmt: skip  # noqa: E501


if __name__ == "__main__":
    main()
