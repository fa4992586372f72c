"""How often intervals hold a known truth, and how often chance is taken for a difference.

    python -m benchmarks.bootstrap_coverage [--draws 60] [--enough 5] [--only coverage]

Each draw tests N images of each of C classes of known chances, on which two classifiers differ on
three images of ten. The first table has the share of draws in which the 95 % interval holds the
truth, and the interval's median width; the second how often classifiers of equal chances are told
apart, which is an error, and those of which one lifts its worst classes, which is not. The third
has planes of 64 equally good cells: in which share of the draws any is told apart from the best.

`--enough 0` resamples every class from its images, as a plain bootstrap does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
import numpy as np

import pipeline.small_counts as rules
from benchmarks.machine import describe
from pipeline.bootstrap import Estimate, cells_within_noise, paired_bootstrap
from pipeline.metrics import count_per_class, geometric_mean, harmonic_mean, recalls_of_hits
from pipeline.plane import HitPlane

SIZES = ((100, 100), (100, 50), (100, 20), (100, 10), (365, 100), (1000, 50))
"""C and N: CIFAR-100, smaller samples, Places and ImageNet."""

CHANGED, REPLICATES = 0.3, 300
SHOWN = ("geometric_mean", "harmonic_mean", "lowest_recall")


def shapes(n_classes: int) -> Iterator[tuple[str, np.ndarray]]:
    """True recalls of C classes, by name."""
    spread = np.random.default_rng(5).beta(2, 3, n_classes).clip(0.02, 1)
    even, last = np.linspace(0.1, 0.8, n_classes), np.arange(n_classes) < n_classes // 10
    yield "Beta(2, 3)", spread
    yield "10 to 80 %", even
    yield "6 or 60 %", np.where(np.arange(n_classes) < n_classes // 5, 0.06, 0.6)
    yield "tenth at 0", np.where(last, 0, even)
    yield "tenth at 2 %", np.where(last, 0.02, even)
    yield "one at 8 %", np.where(np.arange(n_classes) < 1, 0.08, 0.5)


def truth_of(chances: np.ndarray) -> dict[str, float]:
    """The metrics shown, of true recalls."""
    recalls = 100 * chances
    means = float(geometric_mean(recalls)), float(harmonic_mean(recalls))
    return dict(zip(SHOWN, (*means, float(recalls.min())), strict=True))


def drawn(chances: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows that are right by chance."""
    return np.asarray(rng.random(len(labels)) < chances[labels])


def compare(
    first: np.ndarray, second: np.ndarray, n: int, seed: int
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """The first classifier's metrics, and its lead, on n drawn images of each class."""
    rng, labels = np.random.default_rng(seed), np.repeat(np.arange(len(first)), n)
    # One number a row decides for both classifiers but where a row is changed.
    number = rng.random(len(labels))
    other = np.where(rng.random(len(labels)) < CHANGED, rng.random(len(labels)), number)
    pair = {"one": number < first[labels], "other": other < second[labels]}
    found = paired_bootstrap(pair, labels, len(first), "drawn", replicates=REPLICATES, seed=seed)
    return dict(found.values["one"]), dict(found.differences["other"])


def held(estimate: Estimate, truth: float) -> bool:
    """Whether an interval holds the truth, but for rounding."""
    return estimate.low - 1e-9 <= truth <= estimate.high + 1e-9


def coverage(draws: int) -> None:
    """Print how often values and differences of equal classifiers hold the truth."""
    print("share that holds the truth (median width)")
    head = "".join(f"{name.replace('_', ' '):>16}" for name in SHOWN)
    print(f"{'C x N':>9} {'recalls':<13}{head}   of a difference:{head}")
    for n_classes, n in SIZES:
        few = max(40, draws * 100 // n_classes)
        for name, chances in shapes(n_classes):
            truth = truth_of(chances)
            found = [compare(chances, chances, n, seed) for seed in range(few)]
            texts = [
                f"{np.mean([held(one[part][m], goal) for one in found]):8.2f} "
                f"({np.median([one[part][m].high - one[part][m].low for one in found]):4.1f})"
                for part, goals in ((0, truth), (1, dict.fromkeys(SHOWN, 0.0)))
                for m, goal in goals.items()
            ]
            print(f"{n_classes:>4} x {n:>3} {name:<13}{''.join(f'{text:>16}' for text in texts)}")


def told_apart(draws: int) -> None:
    """Print how often two classifiers are told apart: equal ones, and one whose worst rise."""
    print("share told apart: equal classifiers, and the lowest recalls lifted to 30 %")
    print(f"{'C x N':>9} {'recalls':<13}" + "".join(f"{m.replace('_', ' '):>22}" for m in SHOWN))
    for n_classes, n in SIZES[:5]:
        seeds = range(max(40, draws * 100 // n_classes))
        for name, chances in list(shapes(n_classes))[:4]:
            lifted = np.maximum(chances, 0.3)
            texts = []
            found = [
                [compare(first, chances, n, seed)[1] for seed in seeds]
                for first in (chances, lifted)
            ]  # fmt: skip
            for m in SHOWN:
                luck = np.mean([one[m].low > 0 or one[m].high < 0 for one in found[0]])
                right = np.mean([one[m].low > 0 for one in found[1]])
                texts.append(f"{luck:.2f}, {right:.2f}")
            print(f"{n_classes:>4} x {n:>3} {name:<13}{''.join(f'{text:>22}' for text in texts)}")


def planes(draws: int) -> None:
    """Print how often any of 64 equally good cells is told apart from the best."""
    print("64 equally good cells: share of the draws in which any is told apart from the best")
    for n_classes, n in SIZES[:4]:
        for changed in (0.1, 1.0):
            lost = []
            for seed in range(draws):
                rng = np.random.default_rng(seed)
                chances = rng.beta(2, 3, n_classes).clip(0.03, 1)
                labels = np.repeat(np.arange(n_classes), n)
                shared = drawn(chances, labels, rng)
                cells = [
                    np.where(rng.random(len(labels)) < changed, drawn(chances, labels, rng), shared)
                    for _ in range(64)
                ]
                plane = plane_of(np.stack(cells, axis=1), labels, n_classes)
                within = cells_within_noise(plane, best_of(plane), replicates=200, seed=seed)
                lost.append(not within.all())
            print(f"{n_classes:>4} x {n:>3}, {100 * changed:.0f} % drawn anew: {np.mean(lost):.2f}")


def plane_of(hits: np.ndarray, labels: np.ndarray, n_classes: int) -> HitPlane:
    """A plane of 8 x 8 cells whose hits (N, 64) are given."""
    always = np.asarray(hits.all(axis=1))
    rows = np.flatnonzero(hits.any(axis=1) & ~always)
    bits = np.packbits(hits[rows], axis=1)
    return HitPlane((8, 8), labels, n_classes, always, rows, bits)


def best_of(plane: HitPlane) -> tuple[int, int]:
    """The cell of the best harmonic mean."""
    samples = count_per_class(plane.labels, plane.n_classes)
    means = [harmonic_mean(recalls_of_hits(hits, samples)) for _, hits in plane.counts()]
    i, j = divmod(int(np.concatenate(means).argmax()), plane.shape[1])
    return i, j


PARTS: dict[str, Callable[[int], None]] = {
    "coverage": coverage, "told-apart": told_apart, "planes": planes,
}  # fmt: skip


@click.command()
@click.option("--draws", default=60, show_default=True)
@click.option(
    "--enough", default=rules.ENOUGH_HITS, show_default=True, help="Hits to be resampled."
)
@click.option("--only", type=click.Choice(list(PARTS)), help="One table.")
def main(draws: int, enough: int, only: str | None) -> None:
    """Print the tables."""
    print(describe())
    rules.ENOUGH_HITS = enough
    for name, part in PARTS.items():
        if only in (None, name):
            part(draws)


if __name__ == "__main__":
    main()
