"""Choosing a cell of the temperature plane: the best, finer grids, folds, and the region around it.

Legend: N rows, C classes, To and Tn temperatures of the old and the new head; planes are (To, Tn).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy import ndimage

from cache.records import Check, Positive, Result
from pipeline.metrics import Bools, Floats, Ints

Cell = tuple[int, int]

Bit = Annotated[int, Check("0 or 1", lambda value: value in (0, 1))]

FINER_BETWEEN = 3
"""Temperatures that one round of refinement puts between the best one and each neighbour."""

BEYOND_THE_EDGE = 2
"""Temperatures that it adds beyond an edge on which the best one lies."""


def best_cell(t_old: Floats, t_new: Floats, harmonic_mean: Floats, lowest_recall: Floats) -> Cell:
    """The cell of the best harmonic mean.

    Ties go to the higher lowest recall, then to the nearest to (1, 1) in log temperature.
    """
    log_old, log_new = np.meshgrid(np.log(t_old), np.log(t_new), indexing="ij")
    distance = log_old**2 + log_new**2
    # Equal recalls in another order of classes may differ in the last bits of their mean.
    keys = (distance.ravel(), -lowest_recall.ravel(), -harmonic_mean.ravel().round(9))
    i, j = np.unravel_index(np.lexsort(keys)[0], distance.shape)
    return int(i), int(j)


def finer_grid(grid: Floats, at: int) -> Floats:
    """The grid (T,) with more temperatures around one of its own, evenly in their logarithm.

    On an edge it also goes on beyond, at the distance of the last step.
    """
    logs = np.log(grid)
    added = [
        logs[k] + (logs[k + 1] - logs[k]) * np.arange(1, FINER_BETWEEN + 1) / (FINER_BETWEEN + 1)
        for k in (at - 1, at)
        if 0 <= k < len(grid) - 1
    ]
    if len(grid) > 1:
        further = np.arange(1, BEYOND_THE_EDGE + 1)
        if at == 0:
            added.append(logs[0] - (logs[1] - logs[0]) * further)
        if at == len(grid) - 1:
            added.append(logs[-1] + (logs[-1] - logs[-2]) * further)
    # Four digits name a temperature well enough, and can be typed.
    new = [float(f"{math.exp(value):.4g}") for values in added for value in values]
    return np.unique(np.concatenate([grid, [t for t in new if 0 < t < math.inf]]))


def stratified_folds(labels: Ints, n_folds: int, seed: int) -> Ints:
    """Fold (N,) of each row, from 0 to n_folds - 1, every class spread as evenly as can be."""
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % n_folds
    return folds


@dataclass(frozen=True)
class NoiseRegion(Result):
    """The cells around the best one that this many samples cannot tell from it."""

    best: tuple[Positive, Positive]
    """(t_old, t_new) of the best harmonic mean."""

    share: float
    """Percent of the plane that it covers, by area in log temperature."""

    t_old: tuple[Positive, Positive]
    """Lowest and highest t_old of the largest rectangle in the region that holds the best cell."""

    t_new: tuple[Positive, Positive]
    """Lowest and highest t_new of that rectangle."""

    cells: tuple[tuple[Bit, ...], ...]
    """(To, Tn) 1 in the region, which hangs together and holds the best cell."""

    @property
    def mask(self) -> Bools:
        """(To, Tn) cells of the region."""
        return np.array(self.cells, np.bool_)


def range_in_words(ends: tuple[float, float]) -> str:
    """Lowest and highest to three digits, as `from 1 to 2`, or the one value that they are."""
    low, high = (f"{end:.3g}" for end in ends)
    return f"= {low}" if low == high else f"from {low} to {high}"


def noise_region(t_old: Floats, t_new: Floats, best: Cell, within: Bools) -> NoiseRegion:
    """The part of the cells within the noise that hangs together with the best cell.

    Args:
        t_old: (To,) ascending.
        t_new: (Tn,) ascending.
        best: indices of the best cell.
        within: (To, Tn) cells whose harmonic mean cannot be told from the best cell's.
    """
    mask = _connected(within, best)
    old, new = _log_widths(t_old), _log_widths(t_new)
    (top, bottom), (left, right) = _largest_rectangle(mask, best, old, new)
    return NoiseRegion(
        best=(float(t_old[best[0]]), float(t_new[best[1]])),
        share=float(100 * (old @ mask @ new) / (old.sum() * new.sum())),
        t_old=(float(t_old[top]), float(t_old[bottom])),
        t_new=(float(t_new[left]), float(t_new[right])),
        cells=tuple(map(tuple, mask.astype(int).tolist())),
    )


def log_edges(grid: Floats) -> Floats:
    """Edges (T + 1,) of the cells in log2 temperature, halfway between neighbours."""
    logs = np.log2(grid)
    if len(logs) == 1:
        return np.array([logs[0] - 0.5, logs[0] + 0.5])
    middles = (logs[1:] + logs[:-1]) / 2
    first, last = 2 * logs[0] - middles[0], 2 * logs[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])


def _log_widths(grid: Floats) -> Floats:
    """Width (T,) of each cell in log temperature."""
    return np.diff(log_edges(grid))


def _connected(within: Bools, best: Cell) -> Bools:
    """Cells that can be reached from the best one without leaving `within`."""
    cells = within.copy()
    cells[best] = True
    parts, _ = ndimage.label(cells)
    return np.asarray(parts == parts[best])


def _largest_rectangle(mask: Bools, best: Cell, old: Floats, new: Floats) -> tuple[Cell, Cell]:
    """First and last index on either axis of the largest all-true rectangle around a cell."""
    most, found = 0.0, ((best[0], best[0]), (best[1], best[1]))
    for top in range(best[0], -1, -1):
        if not mask[top, best[1]]:
            break
        for bottom in range(best[0], len(mask)):
            free: Bools = np.logical_and.reduce(mask[top : bottom + 1], axis=0)
            if not free[best[1]]:
                break
            walls = np.flatnonzero(~free)
            after = int(np.searchsorted(walls, best[1]))
            left = int(walls[after - 1]) + 1 if after else 0
            right = int(walls[after]) - 1 if after < len(walls) else len(free) - 1
            area = float(old[top : bottom + 1].sum() * new[left : right + 1].sum())
            if area > most:
                most, found = area, ((top, bottom), (left, right))
    return found
