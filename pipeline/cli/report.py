"""`nolb report`: one file that shows who was left behind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.arguments import no_head, no_store
from pipeline.cli.options import PATH, json_option, overwrite_option, test_views_option
from pipeline.cli.output import Speaker, write_json

if TYPE_CHECKING:
    from cache import Store
    from pipeline.heads import Head
    from pipeline.stages.report import Report
    from pipeline.sweeping.sweep import Sweep


@click.command()
@click.argument("store", type=PATH, callback=no_head)
@click.argument("head", type=PATH, callback=no_store)
@click.option("--out", type=PATH, required=True, help="HTML file to write.")
@click.option("--sweep", type=PATH, help="Folder of nolb sweep-temps; not given: the plane is measured now.")  # fmt: skip  # noqa: E501
@click.option("--no-plane", is_flag=True, help="Leave the temperature plane out.")
@click.option("--t-old", type=float, help="Temperature of the old head in the ensemble.  [default: as chosen on val, else 1]")  # fmt: skip  # noqa: E501
@click.option("--t-new", type=float, help="Temperature of the new head in the ensemble, likewise.")
@click.option("--images", metavar="SRC", help="Where the images of the split are, to show those of the worst classes.")  # fmt: skip  # noqa: E501
@click.option("--split", default="test", show_default=True, help="Split to report.")
@test_views_option
@click.option("--worst", type=click.IntRange(min=0), default=6, show_default=True, help="Lowest classes, before and after each, whose confusions are shown.")  # fmt: skip  # noqa: E501
@click.option("--also", type=PATH, help="Folder for the same as PNG, SVG, CSV and Markdown.")
@overwrite_option
@json_option
def report(
    store: Path,
    head: Path,
    out: Path,
    sweep: Path | None,
    no_plane: bool,
    t_old: float | None,
    t_new: float | None,
    images: str | None,
    split: str,
    test_views: bool | None,
    worst: int,
    also: Path | None,
    overwrite: bool,
    json_path: str | None,
) -> None:
    """Show every class before and after in one HTML file that opens offline.

    The file holds all it needs, the images of the worst classes too where --images is given: mind
    who may see them before you pass it on.

    \b
    Examples:
      nolb report data.zarr head.safetensors --out report.html --images data/test
      nolb report data.zarr head.safetensors --out report.html --sweep sweep --also figures
    """
    if no_plane and sweep is not None:
        raise click.UsageError("--sweep and --no-plane contradict each other: give one.")
    speaker = Speaker(json_path)

    from cache import open_store
    from pipeline.files import refuse_existing, refuse_existing_in
    from pipeline.heads import load_head
    from pipeline.mixture import given_pair
    from pipeline.stages.report import is_report, make_report, save_for_papers, save_report

    refuse_existing(out, overwrite=overwrite, replaceable=is_report)
    if also is not None:
        refuse_existing_in(also, overwrite=overwrite)
    new_head = load_head(head)
    with open_store(store) as opened:
        plane: Sweep | Path | None = sweep
        if sweep is None and not no_plane:
            plane = _measured(opened, new_head, test_views)
        result = make_report(
            opened, new_head, sweep=plane, temperatures=given_pair(t_old, t_new), images=images,
            split=split, n_worst=worst, test_views=test_views,
        )  # fmt: skip
    save_report(result, out, overwrite=overwrite)
    _tell(result, speaker)
    speaker.wrote(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
    if also is not None:
        written = save_for_papers(result, also, overwrite=overwrite)
        speaker.wrote(f"{len(written)} tables and figures in {also}")
    write_json(result.to_json() | {"report": str(out)}, json_path)


def _tell(result: Report, speaker: Speaker) -> None:
    """The scores, and what could not be shown."""
    from pipeline.tables import scores_table

    speaker.show(scores_table({k.key: k.scores for k in result.content.contenders}))
    for note in result.content.notes:
        speaker.note(note)
    if result.thumbnails is not None and result.thumbnails.unreadable:
        first, reason = next(iter(result.thumbnails.unreadable.items()))
        n = len(result.thumbnails.unreadable)
        speaker.warn(f"{n} images cannot be shown, first {first} ({reason})")


def _measured(store: Store, head: Head, test_views: bool | None) -> Sweep:
    """The plane over the default grid."""
    from pipeline.config import SweepConfig
    from pipeline.progress import ProgressReport
    from pipeline.stages.sweep_temps import sweep_temps

    with ProgressReport("sweep-temps", "rows") as progress:
        config = SweepConfig(test_views=test_views)
        return sweep_temps(store, head, config, on_progress=progress.update)
