"""How often bootstrap intervals hold the truth, where the truth is known.

    python -m benchmarks.bootstrap_coverage [--draws 200]

True recalls of 100 classes run evenly from 10 % to 80 %; each draw tests 100 images of each class,
as CIFAR-100 does, with a second classifier that is right on the same images but for a twentieth.
"""

from __future__ import annotations

import click
import numpy as np

from benchmarks.machine import describe
from pipeline.bootstrap import COMPARED, Estimate, paired_bootstrap
from pipeline.metrics import geometric_mean, harmonic_mean

N_CLASSES, PER_CLASS, CHANGED = 100, 100, 0.05


def metrics(recalls: np.ndarray) -> np.ndarray:
    """The metrics `COMPARED` of true recalls in percent."""
    return np.array(
        [recalls.mean(), geometric_mean(recalls), harmonic_mean(recalls), recalls.min()]
    )


def holds(estimates: list[Estimate], truth: np.ndarray) -> np.ndarray:
    """Whether basic intervals, and the percentiles that they mirror, hold the truth (2, 4)."""
    ends = np.array([[e.low, e.high] for e in estimates]).T
    values = np.array([e.value for e in estimates])
    mirrored = 2 * values - ends[::-1]
    return np.array([(low <= truth) & (truth <= high) for low, high in (ends, mirrored)])


@click.command()
@click.option("--draws", default=200, show_default=True)
def main(draws: int) -> None:
    """Print the share of draws in which each interval holds the truth."""
    print(describe())
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_CLASSES), PER_CLASS)
    chances = np.linspace(0.1, 0.8, N_CLASSES)
    # A changed image is right with one half instead.
    others = (1 - CHANGED) * chances + CHANGED / 2
    truth, other = metrics(100 * chances), metrics(100 * others)
    found = np.zeros((2, 2, len(COMPARED)))
    for draw in range(draws):
        right = rng.random(len(labels)) < chances[labels]
        changed = rng.random(len(labels)) < CHANGED
        second = np.where(changed, rng.random(len(labels)) < 0.5, right)
        result = paired_bootstrap(
            {"one": right, "other": second}, labels, N_CLASSES, "drawn", replicates=400, seed=draw
        )
        found[0] += holds(list(result.values["one"].values()), truth)
        found[1] += holds(list(result.differences["other"].values()), truth - other)
    print(f"{'share that holds the truth':<28}{'  '.join(COMPARED)}")
    for what, table in zip(("value", "difference"), found / draws, strict=True):
        for kind, row in zip(("basic", "percentile"), table, strict=True):
            print(f"{what + ', ' + kind:<28}{'  '.join(f'{100 * x:5.1f} %' for x in row)}")


if __name__ == "__main__":
    main()
