"""The stage `report`: one file that shows who was left behind, and the same for papers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import Store
from pipeline.errors import EvaluationError
from pipeline.files import begins_like, refuse_existing, whole_files, write_whole
from pipeline.heads import Head, require_same_identity
from pipeline.lookup import ImageLookup
from pipeline.reporting import (
    CellHits,
    Content,
    LostClass,
    Thumbnails,
    gather,
    hits_of_cells,
    lost_classes,
    make_thumbnails,
    render_page,
    sweep_of,
    write_for_papers,
)
from pipeline.reporting.page import samples_shown
from pipeline.scored import scored_split
from pipeline.sweeping.sweep import Sweep

is_report = begins_like("<!DOCTYPE html>\n.{,2000}<title>No one left behind: ")
"""Whether a file is an earlier report, or empty."""


@dataclass(frozen=True, eq=False)
class Report:
    """What a report says; `save_report` and `save_for_papers` write it."""

    content: Content
    """The predictions of old head, new head and ensemble."""

    sweep: Sweep | None
    """The temperature plane."""

    cell_hits: CellHits | None
    """What every cell of the plane gets right; None where that is too much for a page."""

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
    sweep: Sweep | Path | None = None,
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
        sweep: of both, or the folder that it was saved in; None leaves the plane out.
        temperatures: (t_old, t_new) of the ensemble; None takes those that the sweep chose on
            another split, or (1, 1).
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
    plane = None if sweep is None else sweep_of(sweep, store, head, test_views)
    used, source, trusted = _temperatures(plane, temperatures, split)
    scored = scored_split(store, split, [head], test_views)
    content = gather(scored, head, used, temperatures_from=source, trusts_ensemble=trusted)
    cell_hits = None if plane is None else hits_of_cells(plane, store, head)
    lost = lost_classes(content, n_worst)
    thumbnails = None
    if images is not None:
        thumbnails = make_thumbnails(ImageLookup(images), samples_shown(content, lost))
    return Report(content, plane, cell_hits, lost, thumbnails)


def save_report(report: Report, path: str | Path, overwrite: bool = False) -> Path:
    """Write the report as one HTML file.

    Raises:
        OutputError: as `whole_file`.
    """
    refuse_existing(path, overwrite=overwrite, replaceable=is_report)
    page = render_page(
        report.content, report.lost, sweep=report.sweep, cell_hits=report.cell_hits,
        thumbnails=report.thumbnails,
    )  # fmt: skip
    write_whole(path, page.encode(), overwrite=overwrite, replaceable=is_report)
    return Path(path)


def save_for_papers(report: Report, folder: str | Path, overwrite: bool = False) -> list[Path]:
    """Write the report's tables (CSV, Markdown) and figures (PNG, SVG) into a folder.

    Raises:
        OutputError: as `whole_files`; if the folder holds anything, it must be overwritten.
    """
    with whole_files(folder, overwrite=overwrite) as made:
        written = write_for_papers(report.content, report.sweep, made)
    return [Path(folder) / file.name for file in written]


def _temperatures(
    sweep: Sweep | None, given: tuple[float, float] | None, split: str
) -> tuple[tuple[float, float], str, bool]:
    """Temperatures of the ensemble, who set them, and whether they were chosen at all."""
    if given is not None:
        words = f"given as t_old = {given[0]:g}, t_new = {given[1]:g}"
        return given, words, True
    if sweep is None or sweep.chosen_on is None:
        return (1.0, 1.0), "(1, 1), as nothing has chosen them", False
    if sweep.chosen_on == split and sweep.cross_fit is not None:
        return (1.0, 1.0), "(1, 1); what cross-fitting chose stands beside the plane", False
    if sweep.chosen_on == split:
        raise EvaluationError(
            f"The temperatures were chosen on {split!r}, the split to report: that would flatter "
            "the result. Report another split, or give --t-old and --t-new."
        )
    by = "likelihood" if sweep.chosen_by == "nll" else "harmonic mean"
    return sweep.chosen, f"chosen on the {sweep.chosen_on} split by the {by}", True
