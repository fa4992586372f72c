"""A study as dots: every head of every configuration, with the interval of their mean.

H configurations, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.figures.canvas import add_legend, colour, save
from pipeline.metrics import IN_PERCENT, METRICS

if TYPE_CHECKING:
    from pipeline.studying.results import Measurement, Study, Variant

SHOWN_UP_TO = 40
"""Configurations up to which a figure shows all; of more, those of the highest harmonic mean."""

DOTS_ABOVE = 0.2
"""How far the dots stand above the interval that would hide them, in lines."""

DOT = {"marker": "o", "markersize": 4.5, "alpha": 0.5, "markeredgewidth": 0, "linestyle": ""}
MEAN = {"marker": "|", "markersize": 13, "markeredgewidth": 2.2, "linestyle": "", "color": "black"}
INTERVAL = {"color": "black", "linewidth": 2.2, "solid_capstyle": "butt"}


def study_dots(study: Study, path: str | Path) -> Path:
    """Draw accuracy, both means and the lowest recall: a line for each configuration.

    Args:
        study: the configurations over their seeds.
        path: where to write; the suffix decides the format (`.png`, `.svg`, `.pdf`).

    Raises:
        EvaluationError: if the format is unknown.
    """
    lines = _lines(study)
    figure = Figure(figsize=(13, 2.6 + 0.34 * max(2, len(lines))), layout="constrained")
    panels = figure.subplots(1, len(IN_PERCENT), sharey=True)
    for axes, metric in zip(panels, IN_PERCENT, strict=True):
        axes.set_title(METRICS[metric].long_name, fontsize=10.5)
        for place, h in enumerate(lines):
            _line(axes, place, study.variants[h].measured, metric, chosen=h == study.chosen)
        axes.set_xlabel("%")
        axes.grid(axis="x", color="0.85", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    names = [study.variants[h].name + " (chosen)" * (h == study.chosen) for h in lines]
    panels[0].set_yticks(range(len(lines)), names, fontsize=9)
    panels[0].set_ylim(len(lines) - 0.5, -0.5)
    for label in panels[0].get_yticklabels():
        label.set_parse_math(False)
    figure.suptitle(_title(study, len(lines)), fontsize=12, fontweight="bold", parse_math=False)
    add_legend(figure, _entries(study), ncols=3)
    return save(figure, path)


def _lines(study: Study) -> list[int]:
    """Indices of the configurations that are shown, in the order of the study."""
    found = range(len(study.variants))
    if len(found) <= SHOWN_UP_TO:
        return list(found)
    best = sorted(found, key=lambda h: -_harmonic_mean(study.variants[h]))[:SHOWN_UP_TO]
    return sorted(best)


def _harmonic_mean(configuration: Variant) -> float:
    """To sort by; below all others where a fit diverged."""
    measured = configuration.measured
    return -1.0 if measured is None else measured.spread("harmonic_mean").mean


def _line(
    axes: Axes, place: int, measured: Measurement | None, metric: str, *, chosen: bool
) -> None:
    """Dots, mean and interval of one configuration."""
    if chosen:
        axes.axhspan(place - 0.5, place + 0.5, color="0.93", zorder=0, linewidth=0)
    if measured is None:
        axes.text(0.5, place, "diverged", transform=axes.get_yaxis_transform(), fontsize=9,
                  color="0.4", ha="center", va="center")  # fmt: skip
        return
    spread = measured.spread(metric)
    axes.add_line(_marks(spread.values, place - DOTS_ABOVE, DOT | {"color": colour(0)}))
    axes.add_line(_marks([spread.mean], place, MEAN))
    if spread.interval is not None:
        axes.add_line(Line2D(spread.interval, [place, place], **_style(INTERVAL)))
    axes.autoscale_view()


def _marks(values: Sequence[float], place: float, style: dict[str, Any]) -> Line2D:
    """Marks at some values of one line."""
    return Line2D(np.asarray(values), np.full(len(values), place), **style)


def _style(style: dict[str, Any]) -> dict[str, Any]:
    """A copy, as matplotlib's types want it."""
    return dict(style)


def _title(study: Study, n_shown: int) -> str:
    """What is shown, where it was measured, and whether it chose."""
    text = f"{study.seeds_told} on the {study.split} split ({study.n_samples:,} images)"
    if n_shown < len(study.variants):
        text += f": the {n_shown} of {len(study.variants)} with the highest harmonic mean"
    if len(study.variants) > 1 and study.chosen is None:
        text += "\nnothing was chosen on this split"
    return text


def _entries(study: Study) -> list[tuple[Line2D, str]]:
    """What dots and lines mean."""
    entries = [
        (_marks([], 0, DOT | {"color": colour(0)}), "one head"),
        (_marks([], 0, MEAN), "mean"),
    ]
    if study.n_seeds > 1:
        words = "95 % interval of the mean over seeds (not over images)"
        entries.append((Line2D([], [], **_style(INTERVAL)), words))
    return entries
