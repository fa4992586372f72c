from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from pipeline.calibration import Calibration, Reliability
from pipeline.errors import EvaluationError
from pipeline.figures import (
    canvas,
    recall_bars,
    recalls,
    reliability_diagrams,
    temperature_heatmaps,
    temperatures,
)
from pipeline.metrics import Scores, score_hits
from pipeline.sweeping.sweep import Sweep
from tests.figures.svg import texts
from tests.made_sweeps import made_sweep
from tests.processes import python


def scores(hits: np.ndarray, samples: int = 20, **more: Any) -> Scores:
    n = len(hits)
    names = more.pop("class_names", [f"class {c}" for c in range(n)])
    return score_hits(hits, np.full(n, samples), counts(n), names, **more)


def counts(n: int) -> np.ndarray:
    """Long-tailed training counts, largest first, from 500 to 5."""
    return (500 * 0.01 ** (np.arange(n) / max(n - 1, 1))).astype(np.int64)


def plane(t_old: list[float], t_new: list[float], **more: Any) -> Sweep:
    values = np.add.outer(np.arange(len(t_old), dtype=float), np.arange(len(t_new), dtype=float))
    named = dict.fromkeys(("accuracy", "geometric_mean", "harmonic_mean", "lowest_recall"), values)
    return made_sweep(t_old, t_new, **(named | more))


@pytest.fixture(autouse=True)
def _quick_and_searchable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # letters stay letters
    monkeypatch.setattr(canvas, "DPI", 60)


@pytest.mark.parametrize("n_classes", [1, 2, 12, 24, 25, 131])
def test_bars_of_any_number_of_classes_fill_a_picture(tmp_path: Path, n_classes: int) -> None:
    rng = np.random.default_rng(n_classes)
    named = {k: scores(rng.integers(0, 21, n_classes)) for k in ("old", "new")}
    with Image.open(recall_bars(named, counts(n_classes), tmp_path / "bars.png")) as image:
        assert image.width > 300
        assert len(np.unique(np.asarray(image.convert("L")))) > 5


@pytest.mark.parametrize("n_classes", [10, 30])
def test_the_title_says_what_where_and_the_summary_how_many_at_zero(
    tmp_path: Path, n_classes: int
) -> None:
    hits = np.full(n_classes, 10)
    hits[:2] = 0
    named = {
        "CE": scores(hits, split="val"),
        "CE + GML": scores(np.full(n_classes, 9), split="val"),
    }
    text = texts(recall_bars(named, counts(n_classes), tmp_path / "bars.svg"))
    assert "Recall of each class on the val split" in text
    assert "lowest recall 0.0 (2 classes at zero)" in text
    assert "zero recall (* counted as 0.1 % in both means)" in text
    assert "no images in this split" not in text
    assert "class 7" in text


def marked(figure: Any) -> dict[str, list[float]]:
    """Places of the marks below the axis, by the marker's shape."""
    lines = [line for axes in figure.axes for line in axes.lines if line.get_marker() in ("x", "o")]
    return {line.get_marker(): [float(x) for x in line.get_xdata()] for line in lines}


def test_zero_recall_and_absent_classes_get_a_mark_where_their_bar_would_be() -> None:
    # Training counts 5, 50, 500, 40: sorted 500, 50, 40, 5 are the classes 2, 1, 3, 0.
    train = np.array([5, 50, 500, 40])
    one = score_hits([0, 1, 4, 0], [9, 50, 9, 0], train, ["a", "b", "c", "d"])
    for draw in (recalls._grouped_figure, recalls._stacked_figure):
        assert marked(draw({"old": one}, train)) == {"x": [3.0], "o": [2.0]}


def test_bars_stand_in_the_order_of_the_training_counts(tmp_path: Path) -> None:
    train = np.array([5, 50, 500])
    one = score_hits([1, 5, 9], [10, 10, 10], train, ["a", "b", "c"])
    axes = recalls._grouped_figure({"old": one}, train).axes[0]
    (bars,) = axes.containers
    assert [float(height) for height in bars.datavalues] == [90.0, 50.0, 10.0]  # type: ignore[attr-defined]  # bars
    assert [label.get_text() for label in axes.get_xticklabels()] == ["c\n500", "b\n50", "a\n5"]


def test_names_with_dollars_and_foreign_scripts_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = ["$x^", "cats & dogs", "猫", "_{", "a very long class name indeed"]
    one = scores(np.full(5, 3), class_names=names)
    text = texts(recall_bars({"$o": one}, counts(5), tmp_path / "bars.svg"))
    assert "$x^" in text
    assert "a very long class…" in text
    recall_bars({"$o": one}, counts(5), tmp_path / "bars.png")


def test_scores_of_different_splits_or_classes_do_not_share_a_figure(tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    test, val = scores(np.ones(3, int)), scores(np.ones(3, int), split="val")
    with pytest.raises(EvaluationError, match="one split"):
        recall_bars({"a": test, "b": val}, counts(3), path)
    with pytest.raises(EvaluationError, match="at least one"):
        recall_bars({}, counts(3), path)
    with pytest.raises(EvaluationError, match="3 classes needs as many training counts"):
        recall_bars({"a": test}, counts(4), path)
    with pytest.raises(EvaluationError, match="cannot be written as a figure"):
        recall_bars({"a": test}, counts(3), tmp_path / "bars.docx")
    with pytest.raises(EvaluationError, match=r"ends in \.png, \.svg or \.pdf"):
        recall_bars({"a": test}, counts(3), tmp_path / "bars.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("n_old", "n_new"), [(1, 1), (1, 30), (7, 7), (30, 2), (25, 25)])
def test_heat_maps_of_any_grid_fill_a_picture(tmp_path: Path, n_old: int, n_new: int) -> None:
    sweep = plane(np.geomspace(0.25, 16, n_old).tolist(), np.geomspace(0.25, 16, n_new).tolist())
    with Image.open(temperature_heatmaps(sweep, tmp_path / "heat.png")) as image:
        assert image.width > 300


def test_a_shown_plane_says_that_nothing_was_chosen(tmp_path: Path) -> None:
    text = texts(temperature_heatmaps(plane([1, 2], [1, 2], split="test"), tmp_path / "heat.svg"))
    assert "on the test split (50 images)" in text
    assert "nothing is chosen on this split, (1, 1) is kept" in text


def test_a_chosen_plane_says_where(tmp_path: Path) -> None:
    sweep = plane([1, 2], [0.5, 1], chosen=(2.0, 0.5), chosen_on="val")
    text = texts(temperature_heatmaps(sweep, tmp_path / "heat.svg"))
    assert "best harmonic mean at t_old = 2, t_new = 0.5" in text


def test_a_plane_chosen_by_likelihood_says_so(tmp_path: Path) -> None:
    sweep = plane([1, 2], [0.5, 1], chosen=(2.0, 0.5), chosen_on="val", chosen_by="nll")
    text = texts(temperature_heatmaps(sweep, tmp_path / "heat.svg"))
    assert "best likelihood of each head at t_old = 2, t_new = 0.5" in text


def test_marks_lie_on_their_cells_as_x_new_and_y_old() -> None:
    sweep = plane([0.5, 1, 2], [1, 2, 4, 8], chosen=(2.0, 4.0), chosen_on="val")
    # (log2 t_new, log2 t_old)
    assert temperatures._marked_places(sweep) == {"one": (0.0, 0.0), "chosen": (2.0, 1.0)}


def test_one_one_lies_between_cells_by_its_logarithm_or_is_left_out() -> None:
    assert temperatures._marked_places(plane([0.5, 2], [1, 2])) == {"one": (0.0, 0.0)}
    assert temperatures._marked_places(plane([2, 4], [1, 2])) == {}


def test_large_grids_have_powers_of_two_as_plain_numbers() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    temperatures._temperature_ticks(axes, "x", 2.0 ** (np.arange(25) / 4 - 2))
    assert [t.get_text() for t in axes.get_xticklabels()] == [
        "0.25",
        "0.5",
        "1",
        "2",
        "4",
        "8",
        "16",
    ]
    assert axes.get_xticks().tolist() == pytest.approx([-2, -1, 0, 1, 2, 3, 4])


def test_the_region_within_the_noise_is_outlined_along_its_cells(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from pipeline.sweeping.selection import noise_region

    grid = np.array([1.0, 2.0, 4.0])
    mask = np.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    region = noise_region(grid, grid, (1, 1), mask)
    sweep = plane([1, 2, 4], [1, 2, 4], noise=region)
    axes = Figure().add_subplot()
    temperatures._outline(axes, sweep, region)
    segments = axes.collections[0].get_segments()  # type: ignore[attr-defined]  # lines
    # Two cells side by side, from log2 t_new = 0.5 to 2.5 and log2 t_old = 0.5 to 1.5: six edges.
    assert len(segments) == 6
    ends = np.concatenate(segments)
    assert ends.min(axis=0).tolist() == [0.5, 0.5]
    assert ends.max(axis=0).tolist() == [2.5, 1.5]
    assert "within the noise of the best, 22 % of the plane" in texts(
        temperature_heatmaps(sweep, tmp_path / "heat.svg")
    )


def test_reliability_diagrams_say_temperature_and_error(tmp_path: Path) -> None:
    one = Reliability((1.0,), 2.5, 12.0, (0, 4, 6), (None, 25.0, 50.0), (None, 40.0, 90.0))
    both = Reliability((1.5, 2.0), 2.0, 3.0, (0, 4, 6), (None, 25.0, 50.0), (None, 30.0, 60.0))
    calibration = Calibration("val", "test", {"old": one, "$x": one}, {"old": both, "$x": both})
    text = texts(reliability_diagrams(calibration, tmp_path / "reliability.svg"))
    assert "Calibration on the test split, temperatures fitted on val" in text
    assert "ECE 12.0 %, NLL 2.500" in text
    assert "$x, t = 1.5, 2" in text


def test_no_global_figure_is_left_and_pyplot_is_not_loaded(tmp_path: Path) -> None:
    # pyplot keeps every figure alive and picks a display; a library must not load it.

    code = (
        "import sys; import numpy as np; from pipeline.figures import recall_bars;"
        "from pipeline.metrics import score_hits;"
        "s = score_hits([1, 2], [3, 3], [9, 9], ['a', 'b']);"
        f"recall_bars({{'old': s}}, [9, 9], {str(tmp_path / 'a.png')!r});"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert python("-c", code).strip() == "False"
