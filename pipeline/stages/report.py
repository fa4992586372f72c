"""The stage `report`: one file that shows who was left behind, and the same for papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import Store
from pipeline.errors import EvaluationError, OutputExistsError
from pipeline.heads import Head, require_same_identity
from pipeline.lookup import ImageLookup
from pipeline.reporting import (
    Content,
    Grid,
    LostClass,
    Thumbnails,
    gather,
    grid_of_sweep,
    lost_classes,
    make_thumbnails,
    render_page,
    write_for_papers,
)
from pipeline.reporting.grid import with_hits
from pipeline.reporting.page import samples_shown


@dataclass(frozen=True, eq=False)
class Report:
    """What a report says; `save_report` and `save_for_papers` write it."""

    content: Content
    """The predictions of old head, new head and ensemble."""

    grid: Grid | None
    """The temperature plane."""

    lost: tuple[LostClass, ...]
    """The worst classes, and where their images go."""

    thumbnails: Thumbnails | None
    """Images of those; None where none were given."""

    def to_json(self) -> dict[str, Any]:
        """The scores as plain JSON values."""
        unreadable = {} if self.thumbnails is None else dict(self.thumbnails.unreadable)
        return {
            "scores": {k.key: k.scores.to_json() for k in self.content.contenders},
            "after": self.content.after.key,
            "temperatures_from": self.content.temperatures_from,
            "test_views": self.content.test_views,
            "notes": list(self.content.notes),
            "unreadable_images": unreadable,
        }


def make_report(
    store: Store,
    head: Head,
    *,
    sweep: Mapping[str, Any] | Path | None = None,
    temperatures: tuple[float, float] | None = None,
    images: str | Path | None = None,
    split: str = "test",
    n_worst: int = 6,
    test_views: bool | None = None,
) -> Report:
    """Gather what a report shows.

    The old head is compared with the ensemble where its temperatures were chosen on validation
    data or given, and with the new head alone where nothing has chosen them.

    Args:
        store: features and old logits.
        head: the re-trained head of that store.
        sweep: a sweep of both: its folder, or its JSON form (`Sweep.to_json()`); None leaves the
            temperature plane out.
        temperatures: (t_old, t_new) of the ensemble; None takes the sweep's, or (1, 1).
        images: where the images of the split are: the folder that its ids are relative to, or a
            named data set; None shows no images.
        split: name of the split.
        n_worst: lowest classes, before and after each, whose confusions are shown.
        test_views: classify the mean feature of the clean image and its test views; None does
            where the store has them, unless a head was balanced on the clean image alone.

    Raises:
        EvaluationError: if the split cannot be scored, or the sweep is of another store or head,
            or of other test views.
        HeadError: if the head belongs to another store.
        DatasetError: if there is nothing at `images`.
    """
    require_same_identity(head, store)
    grid = None if sweep is None else grid_of_sweep(sweep, store, head, test_views)
    used, source, trusted = _temperatures(grid, temperatures, split)
    content = gather(
        store, head, used, temperatures_from=source, trusts_ensemble=trusted, split=split,
        test_views=test_views,
    )  # fmt: skip
    if grid is not None:
        grid = with_hits(grid, store, head)
    lost = lost_classes(content, n_worst)
    thumbnails = None
    if images is not None:
        thumbnails = make_thumbnails(ImageLookup(images), samples_shown(content, lost))
    return Report(content, grid, lost, thumbnails)


def save_report(report: Report, path: str | Path, overwrite: bool = False) -> Path:
    """Write the report as one HTML file.

    Raises:
        OutputExistsError: if the file exists and is not to be replaced.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputExistsError(f"{target} is a folder: name the file, as {target}/report.html.")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists already: give another name or --overwrite.")
    page = render_page(report.content, report.grid, report.lost, report.thumbnails)
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        unfinished.write_text(page, encoding="utf-8")
        return unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def save_for_papers(report: Report, folder: str | Path, overwrite: bool = False) -> list[Path]:
    """Write the report's tables (CSV, Markdown) and figures (PNG, SVG) into a folder.

    Raises:
        OutputExistsError: if the folder holds something and that is not to be replaced.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise OutputExistsError(f"{target} is a file: give a folder.")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise OutputExistsError(f"{target} is not empty: give another folder or --overwrite.")
    target.mkdir(parents=True, exist_ok=True)
    return write_for_papers(report.content, report.grid, target)


def _temperatures(
    grid: Grid | None, given: tuple[float, float] | None, split: str
) -> tuple[tuple[float, float], str, bool]:
    """Temperatures of the ensemble, who set them, and whether they were chosen at all."""
    if given is not None:
        words = f"given as t_old = {given[0]:g}, t_new = {given[1]:g}"
        return given, words, True
    if grid is None or grid.chosen_on is None:
        return (1.0, 1.0), "(1, 1), as nothing has chosen them", False
    if grid.chosen_on == split and grid.cross_fitted is not None:
        return (1.0, 1.0), "(1, 1); what cross-fitting chose stands beside the plane", False
    if grid.chosen_on == split:
        raise EvaluationError(
            f"The temperatures were chosen on {split!r}, the split to report: that would flatter "
            "the result. Report another split, or give --t-old and --t-new."
        )
    return grid.chosen, f"chosen on the {grid.chosen_on} split by the harmonic mean", True
