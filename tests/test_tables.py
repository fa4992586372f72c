from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.metrics import Scores, score_hits
from pipeline.sweeping.sweep import CrossFit, Sweep
from pipeline.tables import (
    scores_markdown,
    scores_table,
    sweep_markdown,
    sweep_notes,
    sweep_table,
    table7_markdown,
)
from tests.made_sweeps import made_sweep


def scores(hits: list[int], **more: Any) -> Scores:
    names = more.pop("class_names", ["ant", "bee", "eel"])
    return score_hits(hits, [10, 10, 10], [200, 50, 5], names, **more)


def plane(n: int, zeros: int = 0, **more: Any) -> Sweep:
    """A sweep over temperatures 1..n on `test`, whose means grow with them; on `val` it chose."""
    steps, flat = np.arange(1.0, n + 1), np.ones((n, n))
    chosen = {"chosen": (2.0, 1.0), "chosen_on": "val"} if more.pop("chose", False) else {}
    return made_sweep(
        steps, steps, split="test", n_samples=30, accuracy=50 * flat,
        geometric_mean=40 + steps[:, None] * flat, harmonic_mean=30 + steps * flat,
        lowest_recall=5 * flat, substituted_zeros=np.full((n, n), zeros), **chosen | more,
    )  # fmt: skip


def printed(table: Table) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
    return str(text)


def row_of(text: str, first: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [first])


def test_the_terminal_table_names_the_worst_class_and_stars_substituted_means() -> None:
    text = printed(scores_table({"old": scores([9, 5, 0]), "new": scores([8, 6, 4])}))
    # GM = (90 * 50 * 0.1)^(1/3) = 450^(1/3) = 7.66; HM = 3 / (1/90 + 1/50 + 10) = 0.2991
    # 0 of 10, and 5 of 10 may be as low: 2 * (1 - 0.355) ** 10 = 0.025, so up to 35.5 %.
    assert row_of(text, "old") == [
        "old",
        "46.7",
        "7.7*",
        "0.3*",
        "0.0",
        "0.0-35.5",
        "eel",
        "1",
    ]
    assert row_of(text, "new")[1:5] == ["60.0", "57.7", "55.4", "40.0"]
    assert "In %, on the test split (30 images)." in text
    assert "* Classes of zero recall count as 0.1 %" in text


def test_without_zeros_there_is_no_star_and_no_footnote() -> None:
    text = printed(scores_table({"new": scores([8, 6, 4])}))
    assert "*" not in text


def test_failed_images_and_classes_without_images_are_told() -> None:
    missing = score_hits([5, 0, 5], [10, 0, 10], [5, 5, 5], ["ant", "bee", "eel"], n_failed=3)
    text = printed(scores_table({"old": missing}))
    assert "(20 images; 3 more could not be read)" in text
    assert "1 of 3 classes have no images in the test split and are in no mean." in text


def test_every_split_of_a_table_is_told() -> None:
    val = replace(scores([8, 6, 4]), split="val")
    test = score_hits([5, 0, 5], [10, 0, 10], [5, 5, 5], ["ant", "bee", "eel"])
    text = printed(scores_table({"val": val, "test": test}))
    assert "In %, on the val split (30 images)." in text
    assert "In %, on the test split (20 images)." in text
    assert text.count("have no images in the test split") == 1
    assert "have no images in the val split" not in text


def test_a_name_is_not_cut_away_in_a_narrow_terminal() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(scores_table({"old, test views": scores([8, 6, 4]), "new": scores([8, 6, 4])}))
    text = console.export_text()
    assert "old, test views" in text
    assert "new" in text


def test_averaged_views_are_told_once_or_by_name() -> None:
    averaged = replace(scores([8, 6, 4]), test_views=7)
    text = printed(scores_table({"old": averaged, "new": averaged}))
    assert "(30 images, mean feature of 8 views each)." in text
    mixed = printed(scores_table({"old": scores([8, 6, 4]), "old, test views": averaged}))
    assert "(30 images)." in mixed
    assert "old, test views: the mean feature of 8 views of each image." in mixed
    assert "mean feature of 8 views each" in sweep_markdown(plane(2, test_views=7))


def test_shared_last_places_are_counted() -> None:
    assert "ant (+1)" in printed(scores_table({"old": scores([0, 5, 0])}))


def test_markup_in_a_class_name_stays_text() -> None:
    text = printed(scores_table({"[b]old[/b]": scores([0, 5, 5], class_names=["[red]", "b", "c"])}))
    assert "[red]" in text
    assert "[b]old[/b]" in text


def test_markdown_has_two_decimals_as_the_paper_and_escapes_pipes() -> None:
    text = scores_markdown({"CE|x": scores([9, 5, 0])})
    lines = text.splitlines()
    assert lines[0].startswith("| Method | Accuracy | Geometric mean | Harmonic mean |")
    assert lines[2] == "| CE\\|x | 46.67 | 7.66* | 0.30* | 0.00 | eel |"
    assert all(line.count("|") - line.count("\\|") == 7 for line in lines[:3])


def test_a_small_sweep_is_shown_whole_and_marks_the_chosen_cell() -> None:
    text = printed(sweep_table(plane(3, chose=True)))
    assert len([line for line in text.splitlines() if line.strip()[:1].isdigit()]) == 9
    (chosen,) = [line.split() for line in text.splitlines() if line.strip().endswith("chosen")]
    assert chosen == ["2", "1", "50.0", "42.0", "31.0", "5.0", "chosen"]


def test_a_large_sweep_shows_one_one_and_the_chosen_cell_and_points_to_the_file() -> None:
    text = printed(sweep_table(plane(6, chose=True)))
    assert row_of(text, "1")[:2] == ["1", "1"]
    assert row_of(text, "2")[-1] == "chosen"
    assert "2 of 36 cells; sweep.csv has them all." in text


def test_a_sweep_of_test_says_that_nothing_was_chosen() -> None:
    text = printed(sweep_table(plane(2)))
    assert "Nothing was chosen on this split; (1, 1) is kept." in text
    assert row_of(text, "1")[-1] == "kept"


def cross_fitted(folds: list[tuple[float, ...]]) -> str:
    (note,) = sweep_notes(plane(2, cross_fit=CrossFit(tuple(folds), scores([8, 6, 4]))))
    return note


def test_temperatures_of_some_folds_are_told_in_full() -> None:
    assert "by fold (2, 1); (4, 1.5)." in cross_fitted([(2.0, 1.0), (4.0, 1.5)])


def test_of_many_folds_the_range_and_the_most_frequent_temperatures_are_told() -> None:
    folds = [(2.0, 1.0)] * 600 + [(1.0, k / 4) for k in range(1, 301)] + [(4.0, 0.5)] * 100
    note = cross_fitted(folds)
    assert len(note) < 320
    assert "1000 folds chose 302 different ones" in note
    assert "t_old from 1 to 4 and t_new from 0.25 to 75" in note
    assert "most often (2, 1) in 600, (4, 0.5) in 100, (1, 0.25) in 1" in note
    assert "sweep.json has them all" in note
    alike = cross_fitted([(2.0, 1.0, 1.5)] * 50)  # of two new heads
    assert "all 50 folds chose (2, 1, 1.5)." in alike


def test_sweep_markdown_has_every_cell() -> None:
    lines = sweep_markdown(plane(6, zeros=1)).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + 36
    assert lines[2] == "| 1 | 1 | 50.00 | 41.00* | 31.00* | 5.00 | kept |"


def test_the_table_fits_a_terminal_of_eighty_columns_whole() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(
        scores_table({"ensemble": scores([0, 5, 0], class_names=["chimpanzee", "b", "c"])})
    )
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
    assert row_of(text, "ensemble")[-2:] == ["chimpanzee", "2"]  # "(+1)" goes to a second line
    assert "(+1)" in text


def test_table_seven_has_both_means_and_the_lowest_recall_with_the_best_in_bold() -> None:
    lines = table7_markdown(plane(3)).splitlines()
    assert lines[0] == "| t_old | t_new | Geometric mean | Harmonic mean | Lowest recall |  |"
    assert lines[2] == "| 1 | 1 | 41.00 | 31.00 | **5.00** | kept |"
    assert lines[10] == "| 3 | 3 | **43.00** | **33.00** | **5.00** |  |"


def test_table_seven_of_a_large_grid_has_the_papers_temperatures_and_the_chosen() -> None:
    grid = plane(6, zeros=1, chosen_on="val", chosen=(5.0, 4.0))
    lines = [line for line in table7_markdown(grid).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 9 + 1
    assert lines[-1] == "| 5 | 4 | 45.00\\* | 34.00\\* | **5.00** | chosen |"
