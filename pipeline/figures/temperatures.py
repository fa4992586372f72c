"""Heat maps of the temperature plane (Table 7).

Legend: To and Tn temperatures of the old and the new head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from pipeline.figures.canvas import mark, save
from pipeline.metrics import IN_PERCENT, METRICS, Floats
from pipeline.sweeping.selection import NoiseRegion, log_edges
from pipeline.sweeping.sweep import Sweep

ANNOTATED_UP_TO = 100
"""Cells up to which a heat map carries its numbers."""

MARK_LIFT = 0.22
"""How far a mark stands above, and a number below, the middle of a marked cell, in its heights."""

OUTLINE: Sequence[Mapping[str, Any]] = [
    {"color": "black", "linewidth": 3.4}, {"color": "white", "linewidth": 1.6},
]  # fmt: skip
"""The border of the region within the noise: white inside black shows on every colour."""

Point = tuple[float, float]


def temperature_heatmaps(sweep: Sweep, path: str | Path) -> Path:
    """Draw accuracy, both means and the lowest recall over the two temperatures.

    Args:
        sweep: the plane, with its choice.
        path: where to write; the suffix decides the format (`.png`, `.svg`, `.pdf`).

    Raises:
        EvaluationError: if the format is unknown.
    """
    figure = Figure(figsize=(10.5, 9), layout="constrained")
    for axes, name in zip(figure.subplots(2, 2).flat, IN_PERCENT, strict=True):
        title = METRICS[name].long_name
        _heatmap(axes, sweep, getattr(sweep, name), title)
        if sweep.noise is not None and name == "harmonic_mean":
            _outline(axes, sweep, sweep.noise)
            axes.set_title(f"{title}\noutlined: {_share(sweep.noise)}", fontsize=11)
    figure.suptitle(
        f"Ensemble of old and new head on the {sweep.split} split "
        f"({sweep.n_samples:,} images), in %\n{_choice(sweep)}",
        fontsize=12, fontweight="bold", parse_math=False,
    )  # fmt: skip
    marks = _marked_places(sweep)
    both = sweep.chosen_on is not None and sweep.chosen == (1.0, 1.0)
    words = {
        "one": "(1, 1)" if sweep.chosen_on else "(1, 1), kept",
        "chosen": "chosen: (1, 1)" if both else "chosen",
    }
    if marks:
        figure.legend([mark(kind, [], []) for kind in marks], [words[kind] for kind in marks],
                      loc="outside lower center", ncols=2, frameon=False)  # fmt: skip
    return save(figure, path)


def _choice(sweep: Sweep) -> str:
    """What was chosen, and how."""
    if sweep.chosen_on is None:
        return "shown only: nothing is chosen on this split, (1, 1) is kept"
    best = "best likelihood of each head" if sweep.chosen_by == "nll" else "best harmonic mean"
    folds = 0 if sweep.cross_fit is None else len(sweep.cross_fit.folds)
    judged = f", judged by {folds}-fold cross-fitting" if folds else ""
    return f"{best} at t_old = {sweep.chosen[0]:.4g}, t_new = {sweep.chosen[1]:.4g}{judged}"


def _share(region: NoiseRegion) -> str:
    """How much of the plane the samples cannot tell from the best cell."""
    return f"within the noise of the best, {region.share:.0f} % of the plane"


def _heatmap(axes: Axes, sweep: Sweep, values: Floats, title: str) -> None:
    """One plane (To, Tn) with its marks; cells are as wide as their step in log temperature."""
    x, y = log_edges(sweep.t_new), log_edges(sweep.t_old)
    image = axes.pcolormesh(x, y, values, cmap="cividis", rasterized=True)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    axes.set_title(title, fontsize=11)
    _temperature_ticks(axes, "x", sweep.t_new)
    _temperature_ticks(axes, "y", sweep.t_old)
    axes.set_xlabel("temperature of the new head, $t_{new}$")
    axes.set_ylabel("temperature of the old head, $t_{old}$")
    marks = _marked_places(sweep)
    annotated = values.size <= ANNOTATED_UP_TO
    heights = np.diff(y)
    if annotated:
        _write_numbers(axes, sweep, values, heights, marks)
    for kind, (across, up) in marks.items():
        row = int(np.clip(np.searchsorted(y, up) - 1, 0, len(heights) - 1))
        axes.add_line(mark(kind, [across], [up + MARK_LIFT * heights[row] * annotated]))


def _write_numbers(
    axes: Axes, sweep: Sweep, values: Floats, heights: Floats, marks: dict[str, Point]
) -> None:
    """Every cell's number, below the middle where a mark stands."""
    middle = (values.min() + values.max()) / 2
    for (i, j), value in np.ndenumerate(values):
        place = _position(float(sweep.t_new[j])), _position(float(sweep.t_old[i]))
        lift = MARK_LIFT * float(heights[i]) if place in marks.values() else 0.0
        axes.text(place[0], place[1] - lift, f"{value:.1f}", ha="center", va="center", fontsize=8,
                  color="black" if value > middle else "white")  # fmt: skip


def _outline(axes: Axes, sweep: Sweep, region: NoiseRegion) -> None:
    """The border of the cells within the noise of the best one."""
    x, y = log_edges(sweep.t_new), log_edges(sweep.t_old)
    inside = np.pad(region.mask, 1)
    lines = [
        [(x[j], y[i]), (x[j], y[i + 1])]
        for i, j in np.argwhere(inside[1:-1, 1:] != inside[1:-1, :-1])
    ] + [
        [(x[j], y[i]), (x[j + 1], y[i])]
        for i, j in np.argwhere(inside[1:, 1:-1] != inside[:-1, 1:-1])
    ]
    for style in OUTLINE:
        axes.add_collection(LineCollection(lines, capstyle="projecting", **style))


def _marked_places(sweep: Sweep) -> dict[str, Point]:
    """Where (1, 1) and the chosen cell lie, as (x, y); the chosen cell's mark wins."""
    old, new = sweep.chosen
    marks = {"one": (_position(1.0), _position(1.0))}
    if sweep.chosen_on is not None:
        marks["chosen"] = _position(new), _position(old)
    x, y = log_edges(sweep.t_new), log_edges(sweep.t_old)
    inside = x[0] <= marks["one"][0] <= x[-1] and y[0] <= marks["one"][1] <= y[-1]
    if marks.get("chosen") == marks["one"] or not inside:
        del marks["one"]
    return marks


def _temperature_ticks(axes: Axes, which: str, grid: Floats) -> None:
    """Each temperature of a small grid, or powers of two at their places, as plain numbers."""
    values = list(grid)
    if len(grid) > 10:  # noqa: PLR2004  # as many labels fit
        low, high = math.ceil(math.log2(grid[0])), math.floor(math.log2(grid[-1]))
        step = max(1, math.ceil((high - low) / 8))
        powers = [2.0**k for k in range(low, high + 1) if k % step == 0]
        values = powers if len(powers) > 1 else list(grid[:: math.ceil(len(grid) / 8)])
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks([_position(value) for value in values], [f"{value:.3g}" for value in values])


def _position(temperature: float) -> float:
    """Position of a temperature on an axis."""
    return math.log2(temperature)
