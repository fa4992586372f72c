"""The study of the recipe for CIFAR-100-LT, docs/recipe.md: choices without a test label.

    python -m benchmarks.recipe_study lists TRAIN_FOLDER --out DIR [--seed 0]
    nolb pretrain --config cifar100-lt --autocast bfloat16 --root TRAIN_FOLDER
        --train DIR/train.txt --val DIR/val.txt --out backbone.pth
    nolb extract --config cifar100-lt-test-views --checkpoint backbone.pth --root TRAIN_FOLDER
        --train DIR/train.txt --test DIR/val.txt --out STORE
    python -m benchmarks.recipe_study table STORE [STORE ...] [--seeds 5]

`lists` makes a long-tailed problem within the training images, whose held-out images judge; the
store calls these `test`. `table` prints the means over the stores.
"""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import describe
from cache import Store, open_store
from pipeline.config import FitConfig
from pipeline.datasets import exponential_counts
from pipeline.metrics import Scores
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fit_head import fit_heads

N_CLASSES, HELD_OUT, LARGEST, RATIO = 50, 45, 455, 91
"""455 to 5 images of a class to train on, and 45 to judge; the smallest has 51 in all."""

RECIPES = {
    "SGD, as cifar100-lt": FitConfig(epochs=30, weight_decay=5e-4),
    "standardised, SGD": FitConfig(epochs=30, weight_decay=2e-3, lr=0.05, standardize=True),
    "standardised, L-BFGS": FitConfig(
        epochs=20, weight_decay=5e-4, standardize=True, solver="l-bfgs"
    ),
    "standardised, class-balanced 512": FitConfig(
        epochs=30, weight_decay=2e-3, lr=0.4, standardize=True, sampler="class-balanced",
        batch_size=512,
    ),
}  # fmt: skip


@click.group()
def main() -> None:
    """Make the problem, or measure recipes on it."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--seed", default=0, show_default=True)
def lists(folder: Path, out: Path, seed: int) -> None:
    """Write train.txt and val.txt, drawn from an image folder."""
    files = {d.name: sorted(f.name for f in d.iterdir()) for d in folder.iterdir()}
    names = sorted(files, key=lambda name: (-len(files[name]), name))[:N_CLASSES]
    draws = random.Random(seed)  # noqa: S311  # no secret
    counts = exponential_counts(LARGEST, RATIO, N_CLASSES)
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for label, (name, count) in enumerate(zip(names, counts, strict=True)):
        shuffled = files[name][:]
        draws.shuffle(shuffled)
        parts = {"val": shuffled[:HELD_OUT], "train": shuffled[HELD_OUT : HELD_OUT + count]}
        for split, images in parts.items():
            lines[split] += [f"{name}/{image} {label}" for image in images]
    out.mkdir(parents=True, exist_ok=True)
    for split, content in lines.items():
        (out / f"{split}.txt").write_text("\n".join(content) + "\n", encoding="utf-8")
        print(f"{out / split}.txt  {len(content):,} images of {N_CLASSES} classes")


@main.command()
@click.argument("paths", metavar="STORE...", nargs=-1, required=True, type=click.Path())
@click.option("--seeds", default=5, show_default=True)
def table(paths: tuple[str, ...], seeds: int) -> None:
    """Print what each recipe reaches on the held-out images, the mean over stores and seeds."""
    print(describe())
    print("accuracy, harmonic mean, the same with half a hit added, lowest recall; clean | views")
    stores = [open_store(path) for path in paths]
    for name, config in RECIPES.items():
        clean, views = (
            np.mean([_measured(store, config, seeds, averaged) for store in stores], axis=0)
            for averaged in (False, True)
        )
        print(f"{name:36} {_line(clean)} | {_line(views)}")


def _measured(store: Store, config: FitConfig, seeds: int, averaged: bool) -> list[float]:
    """Mean over seeds of accuracy, harmonic mean, the smoothed one and the lowest recall."""
    n_seeds = 1 if config.solver == "l-bfgs" else seeds  # which does not depend on the seed
    configs = [dataclasses.replace(config, seed=seed) for seed in range(n_seeds)]
    test_views = averaged and store["test"].n_views > 0
    scores = [
        evaluate(store, result.head, test_views=test_views)
        for result in fit_heads(store, configs)
        if result is not None
    ]
    rows = [[s.accuracy, s.harmonic_mean, _smoothed(s), s.lowest_recall] for s in scores]
    return [float(mean) for mean in np.mean(rows, axis=0)]


def _smoothed(scores: Scores) -> float:
    """Harmonic mean with half a hit added to every class, so that one class does not decide it."""
    recalls = (np.asarray(scores.recalls, np.float64) / 100 * HELD_OUT + 0.5) / (HELD_OUT + 1)
    return float(100 / np.mean(1 / recalls))


def _line(values: np.ndarray) -> str:
    return " ".join(f"{value:6.2f}" for value in values)


if __name__ == "__main__":
    main()
