"""Bars of every class's recall: the paper's Figures 1-3.

Legend: C classes, K classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import EvaluationError
from pipeline.figures.canvas import add_legend, colour, mark, save
from pipeline.metrics import (
    FEW_BELOW,
    MANY_ABOVE,
    Floats,
    Ints,
    Scores,
    group_masks,
    wilson_interval,
)
from pipeline.writing import scores_in_words

GROUPED_UP_TO = 24
"""Classes up to which all classifiers share one panel, side by side (Fig. 2)."""

NAMED_UP_TO = 130
"""Classes up to which every name fits under its bar; above, the axis counts classes."""

UPRIGHT_UP_TO = 12
"""Classes up to which names stand upright side by side."""

MARKS_AT = -5.0
"""Where the marks of bars without height stand, in percent: just below the axis."""

WHISKER: Mapping[str, Any] = {"color": "black", "alpha": 0.55, "linewidth": 0.9}

GROUP_TITLES = {
    "many": f"many (> {MANY_ABOVE} images)",
    "medium": f"medium ({FEW_BELOW}-{MANY_ABOVE})",
    "few": f"few (< {FEW_BELOW})",
}


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
    return save(figure, path)


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
        bars = axes.bar(places, np.nan_to_num(recalls), width, color=colour(k))
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
    add_legend(figure, [*handles, *_missing_entries(scores_by_name), *_whisker_entry()], ncols=1)
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
            axes.bar(places, np.nan_to_num(recalls), 0.8, color=colour(k))
        else:  # separate bars thinner than a few pixels would blur into stripes
            edges = np.arange(n_classes + 1) - 0.5
            axes.stairs(np.nan_to_num(recalls), edges, fill=True, color=colour(k))
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
    add_legend(figure, _missing_entries(scores_by_name), ncols=2)
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
    at_zero = f" ({zeros} class{'es' * (zeros > 1)} at zero)" if zeros else ""
    return f"{name}: {scores_in_words(scores)}{at_zero}"


def _mark_missing(axes: Axes, places: Floats, recalls: Floats, size: float) -> None:
    """A cross under each class of zero recall and a ring under each class without samples."""
    zero, absent = places[recalls == 0], places[np.isnan(recalls)]
    axes.add_line(mark("zero", zero, np.full(len(zero), MARKS_AT), size))
    axes.add_line(mark("absent", absent, np.full(len(absent), MARKS_AT), size))


def _missing_entries(scores_by_name: Mapping[str, Scores]) -> list[tuple[Line2D, str]]:
    """Legend entries for the marks that `_mark_missing` drew."""
    recalls = np.concatenate([_recalls(scores) for scores in scores_by_name.values()])
    entries = []
    if (recalls == 0).any():
        words = "zero recall (* counted as 0.1 % in both means)"
        entries.append((mark("zero", [], [], 6), words))
    if np.isnan(recalls).any():
        entries.append((mark("absent", [], [], 6), "no images in this split"))
    return entries


def _whisker_entry() -> list[tuple[Line2D, str]]:
    """Legend entry for the lines that `_whiskers` drew."""
    return [(Line2D([], [], **WHISKER), "95 % interval of a recall (Wilson)")]


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


def _short(name: str, longest: int = 18) -> str:
    """A class name that fits under its bar."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
