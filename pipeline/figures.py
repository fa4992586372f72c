"""Figures of every class's recall (the paper's Figures 1-3) and of the temperature plane (Table 7).

Figures are made as objects on their own canvas: no global state, no display, safe in threads.
Colours are those of Okabe and Ito (2008) and the map `cividis`, which readers without full colour
vision can tell apart; nothing is said by colour alone.

Legend: C classes, K classifiers, To and Tn temperatures of the old and the new head.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import EvaluationError
from pipeline.metrics import (
    FEW_BELOW,
    MANY_ABOVE,
    Floats,
    Ints,
    Scores,
    group_masks,
    wilson_interval,
)

BAR_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
DPI = 200

GROUPED_UP_TO = 24
"""Classes up to which all classifiers share one panel, side by side (Fig. 2)."""

NAMED_UP_TO = 130
"""Classes up to which every name fits under its bar; above, the axis counts classes."""

ANNOTATED_UP_TO = 100
"""Cells up to which a heat map carries its numbers."""

UPRIGHT_UP_TO = 12
"""Classes up to which names stand upright side by side."""

MARKS_AT = -5.0
"""Where the marks of bars without height stand, in percent: just below the axis."""

MARK_LIFT = 0.22
"""How far a mark stands above, and a number below, the middle of a marked cell."""

MARKS: Mapping[str, Mapping[str, Any]] = {
    "zero": {"marker": "x", "color": "#B2182B", "markeredgewidth": 1.4},
    "absent": {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "0.4"},
    "one": {"marker": "P", "markersize": 9, "color": "white", "markeredgecolor": "black"},
    "chosen": {"marker": "*", "markersize": 15, "color": "white", "markeredgecolor": "black"},
}
"""Zero recall, a class without samples, the temperatures (1, 1), the chosen temperatures."""

WHISKER: Mapping[str, Any] = {"color": "black", "alpha": 0.55, "linewidth": 0.9}

GROUP_TITLES = {
    "many": f"many (> {MANY_ABOVE} images)",
    "medium": f"medium ({FEW_BELOW}-{MANY_ABOVE})",
    "few": f"few (< {FEW_BELOW})",
}


class TemperaturePlane(Protocol):
    """What a heat map needs of a sweep; planes are (To, Tn) in percent."""

    @property
    def split(self) -> str:
        """Split on which the plane was measured."""

    @property
    def n_samples(self) -> int:
        """Samples scored in each cell."""

    @property
    def t_old(self) -> Floats:
        """(To,) ascending temperatures of the old head."""

    @property
    def t_new(self) -> Floats:
        """(Tn,) ascending temperatures of the new head."""

    @property
    def accuracy(self) -> Floats:
        """Share of correct samples."""

    @property
    def geometric_mean(self) -> Floats:
        """Geometric mean of the recalls."""

    @property
    def harmonic_mean(self) -> Floats:
        """Harmonic mean of the recalls."""

    @property
    def lowest_recall(self) -> Floats:
        """Lowest recall of all classes."""

    @property
    def chosen(self) -> tuple[float, float]:
        """(t_old, t_new) to use."""

    @property
    def chosen_on(self) -> str | None:
        """Split that chose them, or None."""


def recall_bars(
    scores_by_name: Mapping[str, Scores], class_counts: ArrayLike, path: str | Path
) -> Path:
    """Draw every class's recall for K classifiers, sorted by training images (Figures 1-3).

    A class of zero recall has no bar, so it gets a cross below the axis; a class without samples
    in the split gets a ring.

    Args:
        scores_by_name: K classifiers' scores of one split, such as `{"CE": ..., "CE + GML": ...}`.
        class_counts: (C,) training images of each class.
        path: where to write; the suffix decides the format (`.png`, `.svg`, `.pdf`).

    Raises:
        EvaluationError: if the scores differ in split or classes, or the format is unknown.
    """
    scores = list(scores_by_name.values())
    if not scores:
        raise EvaluationError("A figure of recalls needs the scores of at least one classifier.")
    if any((s.split, s.class_names) != (scores[0].split, scores[0].class_names) for s in scores):
        raise EvaluationError("A figure of recalls needs scores of one split and the same classes.")
    counts = np.asarray(class_counts, np.int64)
    if counts.shape != (len(scores[0].class_names),):
        raise EvaluationError(
            f"A figure of {len(scores[0].class_names)} classes needs as many training counts, "
            f"not {counts.shape}."
        )
    draw = _grouped_figure if len(counts) <= GROUPED_UP_TO else _stacked_figure
    figure = draw(scores_by_name, counts)
    figure.suptitle(
        f"Recall of each class on the {scores[0].split} split "
        f"({scores[0].n_samples:,} images), most training images first",
        fontsize=12, fontweight="bold", parse_math=False,
    )  # fmt: skip
    return _save(figure, path)


def temperature_heatmaps(plane: TemperaturePlane, path: str | Path) -> Path:
    """Draw accuracy, both means and the lowest recall over the two temperatures.

    Args:
        plane: a sweep, or anything that has its planes (To, Tn).
        path: where to write; the suffix decides the format (`.png`, `.svg`, `.pdf`).

    Raises:
        EvaluationError: if the format is unknown.
    """
    figure = Figure(figsize=(10.5, 9), layout="constrained")
    panels = (
        ("Accuracy", plane.accuracy),
        ("Geometric mean of recalls", plane.geometric_mean),
        ("Harmonic mean of recalls", plane.harmonic_mean),
        ("Lowest recall", plane.lowest_recall),
    )
    for axes, (title, values) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        _heatmap(axes, plane, values, title)
    if plane.chosen_on is None:
        choice = "shown only: nothing is chosen on this split, (1, 1) is kept"
    else:
        choice = "best harmonic mean at t_old = {:.4g}, t_new = {:.4g}".format(*plane.chosen)
    figure.suptitle(
        f"Ensemble of old and new head on the {plane.split} split "
        f"({plane.n_samples:,} images), in %\n{choice}",
        fontsize=12, fontweight="bold", parse_math=False,
    )  # fmt: skip
    marks = _marked_places(plane)
    both = plane.chosen_on is not None and plane.chosen == (1.0, 1.0)
    words = {
        "one": "(1, 1)" if plane.chosen_on else "(1, 1), kept",
        "chosen": "chosen: (1, 1)" if both else "chosen",
    }
    if marks:
        figure.legend([_mark(kind, [], []) for kind in marks], [words[kind] for kind in marks],
                      loc="outside lower center", ncols=2, frameon=False)  # fmt: skip
    return _save(figure, path)


def _grouped_figure(scores_by_name: Mapping[str, Scores], class_counts: Ints) -> Figure:
    """All classifiers side by side in one panel, with names and intervals: few classes (Fig. 2)."""
    order, names = _sorted_classes(scores_by_name, class_counts)
    n_classes, n_bars = len(order), len(scores_by_name)
    upright = n_classes <= UPRIGHT_UP_TO
    figure = Figure(
        figsize=(min(14, 5 + 0.5 * n_classes), 4.6 + 0.2 * n_bars + 0.5 * (not upright)),
        layout="constrained",
    )
    axes = figure.add_subplot()
    width = 0.84 / n_bars
    handles = []
    for k, (name, scores) in enumerate(scores_by_name.items()):
        places = np.arange(n_classes, dtype=np.float64) + (k - (n_bars - 1) / 2) * width
        recalls = _recalls(scores)[order]
        bars = axes.bar(places, np.nan_to_num(recalls), width, color=_colour(k))
        handles.append((bars, _summary(name, scores)))
        _whiskers(axes, places, scores, order)
        _mark_missing(axes, places, recalls, size=6)
    link = "\n" if upright else ", "
    counted = zip(names, class_counts[order], strict=True)
    labels = [f"{name}{link}{count:,}" for name, count in counted]
    _name_ticks(axes, labels, rotation=0 if upright else 45)
    axes.set_xlabel("class and number of its training images")
    _shade_groups(axes, class_counts[order], {})
    _finish_recall_axis(axes, n_classes)
    _legend(figure, [*handles, *_missing_entries(scores_by_name), *_whisker_entry()], ncols=1)
    return figure


def _stacked_figure(scores_by_name: Mapping[str, Scores], class_counts: Ints) -> Figure:
    """A panel for each classifier above one class axis: many classes (Figures 1 and 3)."""
    order, names = _sorted_classes(scores_by_name, class_counts)
    n_classes, n_panels = len(order), len(scores_by_name)
    named = n_classes <= NAMED_UP_TO
    figure = Figure(figsize=(14, 1.5 + 2.5 * n_panels + 0.8 * named), layout="constrained")
    panels = figure.subplots(n_panels, 1, sharex=True, squeeze=False)[:, 0]
    places = np.arange(n_classes, dtype=np.float64)
    for k, (axes, (name, scores)) in enumerate(zip(panels, scores_by_name.items(), strict=True)):
        recalls = _recalls(scores)[order]
        if named:
            axes.bar(places, np.nan_to_num(recalls), 0.8, color=_colour(k))
        else:  # separate bars thinner than a few pixels would blur into stripes
            edges = np.arange(n_classes + 1) - 0.5
            axes.stairs(np.nan_to_num(recalls), edges, fill=True, color=_colour(k))
        _mark_missing(axes, places, recalls, size=5 if named else 4)
        _shade_groups(axes, class_counts[order], scores.groups)
        _finish_recall_axis(axes, n_classes)
        axes.set_title(_summary(name, scores), loc="left", fontsize=10.5, parse_math=False)
    if named:
        _name_ticks(panels[-1], names, rotation=90)
    most, fewest = class_counts[order[[0, -1]]]
    panels[-1].set_xlabel(
        f"{n_classes:,} classes, from {most:,} training images (left) to {fewest:,} (right)"
    )
    _legend(figure, _missing_entries(scores_by_name), ncols=2)
    return figure


def _sorted_classes(
    scores_by_name: Mapping[str, Scores], class_counts: Ints
) -> tuple[NDArray[np.intp], list[str]]:
    """Class indices (C,) from most to fewest training images, and the names in that order."""
    order = np.argsort(-class_counts, kind="stable")
    names = next(iter(scores_by_name.values())).class_names
    return order, [_short(names[c]) for c in order]


def _recalls(scores: Scores) -> Floats:
    """Recalls (C,), NaN for a class without samples."""
    return np.array([np.nan if r is None else r for r in scores.recalls], dtype=np.float64)


def _summary(name: str, scores: Scores) -> str:
    """A classifier's numbers in one line; starred means hold substituted zeros."""
    zeros = scores.substituted_zeros
    star = "*" if zeros else ""
    at_zero = f" ({zeros} class{'es' * (zeros > 1)} at zero)" if zeros else ""
    return (
        f"{name}: accuracy {scores.accuracy:.1f} %, "
        f"geometric mean {scores.geometric_mean:.1f}{star}, "
        f"harmonic mean {scores.harmonic_mean:.1f}{star}, "
        f"lowest recall {scores.lowest_recall:.1f}{at_zero}"
    )


def _mark_missing(axes: Axes, places: Floats, recalls: Floats, size: float) -> None:
    """A cross under each class of zero recall and a ring under each class without samples."""
    zero, absent = places[recalls == 0], places[np.isnan(recalls)]
    axes.add_line(_mark("zero", zero, np.full(len(zero), MARKS_AT), size))
    axes.add_line(_mark("absent", absent, np.full(len(absent), MARKS_AT), size))


def _missing_entries(scores_by_name: Mapping[str, Scores]) -> list[tuple[Line2D, str]]:
    """Legend entries for the marks that `_mark_missing` drew."""
    recalls = np.concatenate([_recalls(scores) for scores in scores_by_name.values()])
    entries = []
    if (recalls == 0).any():
        words = "zero recall (* counted as 0.1 % in both means)"
        entries.append((_mark("zero", [], [], 6), words))
    if np.isnan(recalls).any():
        entries.append((_mark("absent", [], [], 6), "no images in this split"))
    return entries


def _whisker_entry() -> list[tuple[Line2D, str]]:
    """Legend entry for the lines that `_whiskers` drew."""
    return [(Line2D([], [], **WHISKER), "95 % interval of a recall (Wilson)")]


def _legend(figure: Figure, entries: Sequence[tuple[Artist | Container, str]], ncols: int) -> None:
    """What colours and marks mean, below the panels; nothing without entries."""
    if entries:
        handles, labels = zip(*entries, strict=True)
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=ncols, fontsize=9, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def _whiskers(axes: Axes, places: Floats, scores: Scores, order: NDArray[np.intp]) -> None:
    """95 % Wilson interval of each recall."""
    for place, c in zip(places, order, strict=True):
        recall, n = scores.recalls[c], scores.class_samples[c]
        if recall is not None:
            interval = wilson_interval(round(recall * n / 100), n)
            axes.plot([place, place], interval, **WHISKER)


def _shade_groups(axes: Axes, sorted_counts: Ints, means: Mapping[str, float | None]) -> None:
    """A band for each of the many, medium and few classes; title and mean where they fit."""
    for name, mask in group_masks(sorted_counts).items():
        if not mask.any():
            continue
        start, stop = np.flatnonzero(mask)[[0, -1]] + (-0.5, 0.5)
        if name == "medium":
            axes.axvspan(start, stop, color="0.93", zorder=0, linewidth=0)
        roomy = (stop - start) / len(mask) > 0.15  # noqa: PLR2004  # of the width: a title fits
        title = GROUP_TITLES[name] if roomy else name
        mean = means.get(name)
        if roomy and mean is not None:
            title += f": mean {mean:.1f} %"
        axes.text((start + stop) / 2, 106, title, ha="center", va="center", fontsize=8.5,
                  color="0.25", clip_on=True)  # fmt: skip


def _finish_recall_axis(axes: Axes, n_classes: int) -> None:
    """Percent from just below zero, where the marks stand, to 100."""
    axes.set_ylim(2 * MARKS_AT, 112)
    axes.set_xlim(-0.5, n_classes - 0.5)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("recall [%]")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.grid(axis="y", color="0.8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _name_ticks(axes: Axes, labels: list[str], rotation: float) -> None:
    """Class names as they are, also with characters that mean something to matplotlib."""
    size = 9.0 if len(labels) <= GROUPED_UP_TO else max(5.0, 7.5 - len(labels) / 60)
    # A slanted name ends under its bar, not below its middle.
    anchor: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"} if rotation == 45 else {}  # noqa: PLR2004
    axes.set_xticks(range(len(labels)), labels, fontsize=size, rotation=rotation, **anchor)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)


def _heatmap(axes: Axes, plane: TemperaturePlane, values: Floats, title: str) -> None:
    """One plane (To, Tn) with its marks; cells stand side by side, whatever their spacing."""
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="cividis")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    axes.set_title(title, fontsize=11)
    _temperature_ticks(axes, "x", plane.t_new)
    _temperature_ticks(axes, "y", plane.t_old)
    axes.set_xlabel("temperature of the new head, $t_{new}$")
    axes.set_ylabel("temperature of the old head, $t_{old}$")
    marks = _marked_places(plane)
    annotated = values.size <= ANNOTATED_UP_TO
    if annotated:
        middle = (values.min() + values.max()) / 2
        for (i, j), value in np.ndenumerate(values):
            lift = MARK_LIFT if (j, i) in marks.values() else 0.0
            axes.text(j, i - lift, f"{value:.1f}", ha="center", va="center", fontsize=8,
                      color="black" if value > middle else "white")  # fmt: skip
    for kind, (x, y) in marks.items():
        axes.add_line(_mark(kind, [x], [y + MARK_LIFT * annotated]))


def _marked_places(plane: TemperaturePlane) -> dict[str, tuple[float, float]]:
    """Where (1, 1) and the chosen cell lie, as (x, y); the chosen cell's mark wins."""
    old, new = plane.chosen
    marks = {"one": (_position(plane.t_new, 1.0), _position(plane.t_old, 1.0))}
    if plane.chosen_on is not None:
        marks["chosen"] = _position(plane.t_new, new), _position(plane.t_old, old)
    if marks.get("chosen") == marks["one"] or any(map(math.isnan, marks["one"])):
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
    ticks = [_position(grid, value) for value in values]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks, [f"{value:.3g}" for value in values])


def _position(grid: Floats, temperature: float) -> float:
    """Place of a temperature among the cells, in between by its logarithm; NaN outside."""
    logs = np.log(grid)
    return float(np.interp(math.log(temperature), logs, np.arange(len(grid)), np.nan, np.nan))


def _colour(k: int) -> str:
    """Colour of the k-th classifier."""
    return BAR_COLOURS[k % len(BAR_COLOURS)]


def _short(name: str, longest: int = 18) -> str:
    """A class name that fits under its bar."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _mark(kind: str, x: ArrayLike, y: ArrayLike, size: float | None = None) -> Line2D:
    """Marks of one kind at places (x, y), or the sample of it that a legend shows."""
    style = dict(MARKS[kind])
    if size is not None:
        style["markersize"] = size
    return Line2D(np.asarray(x), np.asarray(y), linestyle="", **style)


def _save(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of its suffix."""
    target = Path(path)
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the figure still serves.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        try:
            figure.savefig(target, dpi=DPI)
        except ValueError as error:
            raise EvaluationError(f"{target} cannot be written as a figure: {error}.") from None
    return target
