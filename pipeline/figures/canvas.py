"""What all figures share: colours, marks, names, and the way to a file.

Figures are made as objects on their own canvas: no global state, no display, safe in threads.
Colours are those of Okabe and Ito (2008) and the map `cividis`, which readers without full colour
vision can tell apart; nothing is said by colour alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from pipeline.errors import EvaluationError
from pipeline.files import whole_file

BAR_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
DPI = 200

FORMATS = (".png", ".svg", ".pdf")
"""Suffixes of the files that figures are written to."""

MARKS: Mapping[str, Mapping[str, Any]] = {
    "zero": {"marker": "x", "color": "#B2182B", "markeredgewidth": 1.4},
    "absent": {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "0.4"},
    "one": {"marker": "P", "markersize": 9, "color": "white", "markeredgecolor": "black"},
    "chosen": {"marker": "*", "markersize": 15, "color": "white", "markeredgecolor": "black"},
}
"""Zero recall, a class without samples, the temperatures (1, 1), the chosen temperatures."""


def colour(k: int) -> str:
    """Colour of the k-th classifier."""
    return BAR_COLOURS[k % len(BAR_COLOURS)]


def mark(kind: str, x: ArrayLike, y: ArrayLike, size: float | None = None) -> Line2D:
    """Marks of one kind at places (x, y), or the sample of it that a legend shows."""
    style = dict(MARKS[kind])
    if size is not None:
        style["markersize"] = size
    return Line2D(np.asarray(x), np.asarray(y), linestyle="", **style)


def add_legend(
    figure: Figure, entries: Sequence[tuple[Artist | Container, str]], ncols: int
) -> None:
    """What colours and marks mean, below the panels; nothing without entries."""
    if entries:
        handles, labels = zip(*entries, strict=True)
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=ncols, fontsize=9, frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


def require_figure_format(path: str | Path) -> None:
    """Refuse a file that no figure is written to; a command asks before its work.

    Raises:
        EvaluationError: if its suffix is not that of a format we write.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise EvaluationError(
            f"{path} cannot be written as a figure: give a name that ends in "
            f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
        )


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the format of its suffix.

    Raises:
        EvaluationError: as `require_figure_format`, or if it cannot be drawn in that format.
        OutputError: as `whole_file`; a file of that name is replaced.
    """
    require_figure_format(path)
    target = Path(path)
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; the figure still serves.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        try:
            with whole_file(target, overwrite=True) as unfinished:
                figure.savefig(unfinished, dpi=DPI)
        except ValueError as error:
            raise EvaluationError(f"{target} cannot be written as a figure: {error}.") from None
    return target
