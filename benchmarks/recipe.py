"""What a recipe reaches on a store's test split, over several seeds.

python -m benchmarks.recipe STORE [--config NAME|FILE] [--seeds 5]
"""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import click

from benchmarks.machine import describe
from cache import open_store
from pipeline.config import FitConfig, build_config
from pipeline.metrics import IN_PERCENT
from pipeline.recipes import load_recipe
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fit_head import fit_head


@click.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@click.option("--config", "recipe", help="A recipe; the defaults of fit-head where not given.")
@click.option("--seeds", default=5, show_default=True)
def main(path: Path, recipe: str | None, seeds: int) -> None:
    """Print every seed's scores and their mean."""
    print(describe())
    config = build_config(FitConfig, load_recipe(recipe).fit_head if recipe else None)
    print(f"{path}, {config}")
    with open_store(path) as store:
        old = evaluate(store)
        rows = []
        for seed in range(seeds):
            result = fit_head(store, dataclasses.replace(config, seed=seed))
            scores = evaluate(store, result.head)
            rows.append([getattr(scores, name) for name in IN_PERCENT])
            print(f"seed {seed:<5} {_line(rows[-1])}   {result.seconds:.2f} s")
    print(f"mean       {_line([statistics.fmean(column) for column in zip(*rows, strict=True)])}")
    print(f"old head   {_line([getattr(old, name) for name in IN_PERCENT])}   "
          f"{old.substituted_zeros} classes at zero")  # fmt: skip


def _line(values: list[float]) -> str:
    """Accuracy, geometric mean, harmonic mean and lowest recall, in percent."""
    accuracy, geometric, harmonic, lowest = values
    return f"accuracy {accuracy:.2f}   GM {geometric:.2f}   HM {harmonic:.2f}   lowest {lowest:.1f}"


if __name__ == "__main__":
    main()
