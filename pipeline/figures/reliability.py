"""Reliability diagrams (Guo et al. 2017, Figure 1): accuracy against confidence, before and after.

Legend: M bins of confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pipeline.calibration import Calibration, Reliability
from pipeline.figures.canvas import add_legend, colour, save

GAP: Mapping[str, Any] = {
    "facecolor": "none",
    "edgecolor": "#B2182B",
    "hatch": "////",
    "linewidth": 0.0,
}
"""What accuracy lacks of confidence, or has more: hatched, so that it shows without colour."""


def reliability_diagrams(calibration: Calibration, path: str | Path) -> Path:
    """Draw every head and the ensemble, before temperature scaling (above) and after (below).

    Args:
        calibration: of `measure_calibration`.
        path: where to write; the suffix decides the format (`.png`, `.svg`, `.pdf`).

    Raises:
        EvaluationError: if the format is unknown.
    """
    names = list(calibration.before)
    figure = Figure(figsize=(1.2 + 3.1 * len(names), 7.2), layout="constrained")
    rows = figure.subplots(2, len(names), sharex=True, sharey=True, squeeze=False)
    for axes_row, diagrams in zip(rows, (calibration.before, calibration.after), strict=True):
        for axes, name in zip(axes_row, names, strict=True):
            _diagram(axes, name, diagrams[name])
    for axes in rows[1]:
        axes.set_xlabel("confidence [%]")
    for axes, when in zip(rows[:, 0], ("before", "after"), strict=True):
        axes.set_ylabel(f"{when}: accuracy [%]")
    fitted = f"temperatures fitted on {calibration.fitted_on}" if calibration.fitted_on else "given"
    figure.suptitle(
        f"Calibration on the {calibration.split} split, {fitted}",
        fontsize=12, fontweight="bold", parse_math=False,
    )  # fmt: skip
    entries = [
        (Patch(color=colour(0)), "accuracy of the images in a bin of confidence"),
        (Patch(**GAP), "its distance from their mean confidence"),
        (Patch(color="0.75"), "share of the images, on the same axis"),
    ]
    add_legend(figure, entries, ncols=3)
    return save(figure, path)


def _diagram(axes: Axes, name: str, one: Reliability) -> None:
    """One classifier: bars of accuracy, hatched gaps to confidence, and how many images where."""
    edges = np.linspace(0, 100, len(one.counts) + 1)
    width = edges[1]
    filled = np.flatnonzero(one.counts)
    accuracy = np.array([one.accuracy[m] for m in filled], np.float64)
    confidence = np.array([one.confidence[m] for m in filled], np.float64)
    left = edges[filled]
    shares = 100 * np.array(one.counts)[filled] / sum(one.counts)
    axes.bar(left, accuracy, width, align="edge", color=colour(0), edgecolor="white")
    axes.bar(left, confidence - accuracy, width, accuracy, align="edge", **GAP)
    axes.bar(left + 0.3 * width, shares, 0.4 * width, align="edge", color="0.75")
    axes.plot([0, 100], [0, 100], color="black", linewidth=0.9, linestyle="--")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    used = one.temperatures
    temperatures = ", ".join(f"{t:.3g}" for t in used)
    axes.set_title(
        f"{name}, t = {temperatures}\nECE {one.ece:.1f} %, NLL {one.nll:.3f}",
        fontsize=10, parse_math=False,
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
