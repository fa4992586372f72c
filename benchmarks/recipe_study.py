"""The study of the recipe for CIFAR-100-LT, docs/recipe.md: choices without a test label.

    python -m benchmarks.recipe_study lists TRAIN_FOLDER --out DIR [--problem whole] [--seed 0]
    nolb pretrain --config cifar100-lt --autocast bfloat16 --root TRAIN_FOLDER
        --train DIR/train.txt --out backbone.pth
    nolb extract --config cifar100-lt-test-views --checkpoint backbone.pth --root TRAIN_FOLDER
        --train DIR/train.txt --test DIR/val.txt --out STORE
    python -m benchmarks.recipe_study table STORE [STORE ...] [--seeds 5]

`lists` makes a long-tailed problem within the training images, whose held-out images judge; the
store calls these `test`. `table` prints the means over the stores. Given a store of the real
problem, whose test images judge, it applies the recipes: once, when they are chosen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import describe
from cache import Store, open_store
from pipeline.balancing.pools import pool_of_store
from pipeline.config import BalanceConfig, FitConfig
from pipeline.datasets import exponential_counts
from pipeline.heads import Head, average_heads
from pipeline.metrics import Scores
from pipeline.stages.balance_head import score_balanced
from pipeline.stages.evaluate import evaluate
from pipeline.stages.fit_head import fit_heads

Lines = dict[str, list[str]]

Scored = Callable[..., Scores]
"""Gives scores with or without `test_views`."""

HALF_CLASSES, HALF_HELD_OUT, HALF_LARGEST, HALF_RATIO = 50, 45, 455, 91
"""455 to 5 images of a class to train on, and 45 to judge; the smallest has 51 in all."""

LARGE, KEPT_LARGE, HELD_OUT = 60, 4, 30
"""Classes of that many images can be judged; the four largest stay large; and of the others that
do, 30 images judge."""

MADE_RARE, RARE, MOST_JUDGES, FEWEST_JUDGES = 16, 45, 150, 40
"""Classes that are cut to 5..45 images, judged by 40 to 150 of the rest."""

RARE_SHARE = 0.48
"""Of the classes of CIFAR-100-LT that have at most 45 images; where only some classes are judged,
the rare ones weigh as much."""

SGD = FitConfig(epochs=30, weight_decay=5e-4)
DROPOUT = FitConfig(epochs=30, weight_decay=5e-4, batch_size=64, lr=0.05, feature_dropout=0.2)
L_BFGS = FitConfig(epochs=20, weight_decay=5e-4, standardize=True, solver="l-bfgs")
CLASS_BALANCED = FitConfig(
    epochs=30, weight_decay=2e-3, lr=0.4, standardize=True, sampler="class-balanced", batch_size=512
)
ADJUSTED = FitConfig(head="logit-adjusted")

RECIPES: Mapping[str, tuple[FitConfig, ...]] = {
    "SGD, as cifar100-lt": (SGD,),
    "standardised, SGD": (replace(SGD, weight_decay=2e-3, lr=0.05, standardize=True),),
    "standardised, class-balanced 512": (CLASS_BALANCED,),
    "standardised, L-BFGS": (L_BFGS,),
    "SGD, batch 64, dropout 0.2": (DROPOUT,),
    "old head, logit-adjusted": (ADJUSTED,),
    "L-BFGS and adjusted": (L_BFGS, ADJUSTED),
    "L-BFGS, dropout and adjusted": (L_BFGS, DROPOUT, ADJUSTED),
}
"""The heads of each recipe; several are an ensemble of equal weights at temperature 1."""

AVERAGED = "the last three as one mean head"
"""As `nolb average-heads` makes it."""

BALANCED = "that head, balanced by folds"
"""As `nolb balance-head --folds 5` scores it, where all classes have as many images that judge."""

REFITTED = "the same with new weights"
"""As `nolb balance-head --refit 0.5 --folds 5` scores it."""


@dataclass(frozen=True)
class Judged:
    """What a recipe reaches, in percent."""

    mean_recall: float
    harmonic_mean: float

    smoothed: float
    """The harmonic mean with half a hit added to every class, so that one does not decide it, and
    with the classes weighed as in the real problem."""

    lowest: float

    lowest_four: float
    """Mean recall of the four lowest classes."""


@click.group()
def main() -> None:
    """Make the problem, or measure recipes on it."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--problem", type=click.Choice(("whole", "half")), default="whole", show_default=True)
@click.option("--seed", default=0, show_default=True)
def lists(folder: Path, out: Path, problem: str, seed: int) -> None:
    """Write train.txt and val.txt, drawn from an image folder."""
    files = {d.name: sorted(f.name for f in d.iterdir()) for d in folder.iterdir()}
    draws = random.Random(seed)  # noqa: S311  # no secret
    lines = _whole(files, draws) if problem == "whole" else _half(files, draws)
    out.mkdir(parents=True, exist_ok=True)
    for split, content in lines.items():
        (out / f"{split}.txt").write_text("\n".join(content) + "\n", encoding="utf-8")
        print(f"{out / split}.txt  {len(content):,} images")


def _whole(files: Mapping[str, list[str]], draws: random.Random) -> Lines:
    """All classes, of which 16 larger ones are made rare, so that many images judge them."""
    large = [name for name in _by_size(files) if len(files[name]) >= LARGE]
    counts = [int(5 * (RARE / 5) ** (k / (MADE_RARE - 1)) + 1e-9) for k in range(MADE_RARE)]
    while True:  # until each is large enough for what it is cut to
        rare = draws.sample(large[KEPT_LARGE:], MADE_RARE)
        draws.shuffle(counts)
        kept = dict(zip(rare, counts, strict=True))
        if all(len(files[name]) - count >= FEWEST_JUDGES for name, count in kept.items()):
            break
    lines: Lines = {"train": [], "val": []}
    for label, name in enumerate(sorted(files)):
        images = files[name][:]
        draws.shuffle(images)
        train, val = images, images[:0]
        if name in kept:
            train, val = images[: kept[name]], images[kept[name] :][:MOST_JUDGES]
        elif name in large:
            train, val = images[HELD_OUT:], images[:HELD_OUT]
        lines["train"] += [f"{name}/{image} {label}" for image in train]
        lines["val"] += [f"{name}/{image} {label}" for image in val]
    return lines


def _half(files: Mapping[str, list[str]], draws: random.Random) -> Lines:
    """The 50 largest classes, cut anew to a long tail."""
    counts = exponential_counts(HALF_LARGEST, HALF_RATIO, HALF_CLASSES)
    lines: Lines = {"train": [], "val": []}
    for label, (name, count) in enumerate(zip(_by_size(files), counts, strict=False)):
        images = files[name][:]
        draws.shuffle(images)
        train, val = images[HALF_HELD_OUT:][:count], images[:HALF_HELD_OUT]
        lines["train"] += [f"{name}/{image} {label}" for image in train]
        lines["val"] += [f"{name}/{image} {label}" for image in val]
    return lines


def _by_size(files: Mapping[str, list[str]]) -> list[str]:
    return sorted(files, key=lambda name: (-len(files[name]), name))


@main.command()
@click.argument("paths", metavar="STORE...", nargs=-1, required=True, type=click.Path())
@click.option("--seeds", default=5, show_default=True)
def table(paths: tuple[str, ...], seeds: int) -> None:
    """Print what each recipe reaches on the held-out images, the mean over stores and seeds."""
    print(describe())
    print("mean recall, harmonic mean, the same smoothed, lowest, mean of the four lowest")
    stores = [open_store(path) for path in paths]
    if len({_judges_equally(store) for store in stores}) > 1:
        raise click.UsageError("Give stores of one problem: whole, half, or the real one.")
    measured = [_measured(store, seeds) for store in stores]
    for name in measured[0]:
        halves = [
            " ".join(f"{value:6.2f}" for value in np.mean([of[name][views] for of in measured], 0))
            for views in (False, True)
        ]
        print(f"{name:34} one image {halves[0]} | test views {halves[1]}")


def _measured(store: Store, seeds: int) -> dict[str, dict[bool, list[float]]]:
    """Means over seeds of what each recipe reaches without and with test views."""
    members = {config for recipe in RECIPES.values() for config in recipe}
    wanted = [replace(config, seed=seed) for config in members for seed in range(_n(config, seeds))]
    fits = zip(wanted, fit_heads(store, wanted), strict=True)
    heads = {config: fit.head for config, fit in fits if fit is not None}
    reached: dict[str, dict[bool, list[float]]] = {}
    for name, recipe in RECIPES.items():
        ensembles = [
            [heads[replace(config, seed=min(seed, _n(config, seeds) - 1))] for config in recipe]
            for seed in range(max(_n(config, seeds) for config in recipe))
        ]
        reached[name] = _over_seeds(
            store, [partial(_together, store, heads) for heads in ensembles]
        )
    means = [average_heads(heads) for heads in ensembles]
    reached[AVERAGED] = _over_seeds(store, [partial(_together, store, [head]) for head in means])
    if _judges_equally(store):
        for row, config in ((BALANCED, BalanceConfig()), (REFITTED, BalanceConfig(refit=0.5))):
            balanced = [partial(_balanced, store, head, config) for head in means]
            reached[row] = _over_seeds(store, balanced)
    return reached


def _balanced(store: Store, head: Head, config: BalanceConfig, *, test_views: bool) -> Scores:
    """Scores of a head balanced on the test images, cross-fitted."""
    pool = pool_of_store(store, head, test_views=test_views)
    return score_balanced(store, head, pool, config).balanced


def _over_seeds(store: Store, scored: Sequence[Scored]) -> dict[bool, list[float]]:
    """Means over the seeds, without and with test views."""
    return {
        views: np.mean([_judged(store, one(test_views=views)) for one in scored], axis=0).tolist()
        for views in (False, True)
    }


def _judges_equally(store: Store) -> bool:
    """Whether every class has as many images that judge: then it is a pool to balance on."""
    return len(set(np.bincount(store["test"].labels, minlength=len(store.class_names)))) == 1


def _n(config: FitConfig, seeds: int) -> int:
    """Seeds that a head has: one, where it does not depend on them."""
    return 1 if config.solver == "l-bfgs" or config.head == "logit-adjusted" else seeds


def _together(store: Store, heads: Sequence[Head], *, test_views: bool) -> Scores:
    """Scores of one head, or of several of equal weight without the old one."""
    if len(heads) == 1:
        return evaluate(store, heads[0], test_views=test_views)
    weights = [0.0, *[1.0] * len(heads)]
    return evaluate(store, heads, weights=weights, test_views=test_views)


def _judged(store: Store, scores: Scores) -> tuple[float, ...]:
    """What scores come to."""
    recalls = np.array([recall for recall in scores.recalls if recall is not None])
    judged = Judged(
        scores.mean_recall, scores.harmonic_mean, _smoothed(scores, store.class_counts),
        scores.lowest_recall, float(np.sort(recalls)[:4].mean()),
    )  # fmt: skip
    return tuple(vars(judged).values())


def _smoothed(scores: Scores, class_counts: np.ndarray) -> float:
    """Harmonic mean with half a hit added to every class, rare ones weighed as in the problem."""
    samples = np.array(scores.class_samples)
    judged = samples > 0
    hits = np.array([0.0 if recall is None else recall / 100 for recall in scores.recalls])
    recalls = (hits * samples + 0.5)[judged] / (samples[judged] + 1)
    weights = np.full(len(recalls), 1 / len(recalls))
    if not judged.all():
        rare = class_counts[judged] <= RARE
        weights = np.where(rare, RARE_SHARE / rare.sum(), (1 - RARE_SHARE) / (~rare).sum())
    return float(100 / (weights / recalls).sum())


if __name__ == "__main__":
    main()
