"""`nolb sweep-temps`: old and new head together, at every pair of temperatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.arguments import no_head, no_store
from pipeline.cli.options import (
    PATH,
    json_option,
    overwrite_option,
    settings_from,
    settings_options,
)
from pipeline.cli.output import Speaker, write_json
from pipeline.config import SweepConfig

if TYPE_CHECKING:
    from rich.table import Table

    from cache import Store
    from pipeline.heads import Head
    from pipeline.sweeping.sweep import Sweep


@click.command("sweep-temps")
@click.argument("store", type=PATH, callback=no_head)
@click.argument("head", type=PATH, nargs=-1, required=True, callback=no_store)
@click.option("--out", type=PATH, required=True, help="Folder for the table and the heat maps.")
@overwrite_option
@settings_options("sweep_temps")
@json_option
def sweep_temps(
    store: Path,
    head: tuple[Path, ...],
    out: Path,
    overwrite: bool,
    recipe: str | None,
    json_path: str | None,
    **given: Any,
) -> None:
    """Ensemble old and new head over a grid of two temperatures.

    The temperatures are chosen on the split `val`. Without one, (1, 1) is kept and the grid is
    only shown, measured on the test split: choosing there would flatter the result. With
    --cross-fit K they are chosen there all the same, and every image is scored at temperatures
    that other images chose. Several heads (seeds, say) share the axis of the new head.

    \b
    Examples:
      nolb sweep-temps data.zarr head.safetensors --out sweep --t-old 1,2,3 --t-new 1,2,3
      nolb sweep-temps data.zarr head.safetensors --out sweep --cross-fit 5
      nolb sweep-temps data.zarr head.safetensors --out sweep --choose nll --cross-fit 5
      nolb sweep-temps data.zarr seed0.safetensors seed1.safetensors --out sweep --weights 2,1,1
    """
    config = settings_from("sweep_temps", SweepConfig, recipe, given)
    speaker = Speaker(json_path)

    from cache import open_store
    from pipeline.heads import load_head
    from pipeline.progress import ProgressReport
    from pipeline.stages.sweep_temps import sweep_temps
    from pipeline.sweeping.files import refuse_existing_sweep, save_sweep
    from pipeline.tables import sweep_notes

    refuse_existing_sweep(out, overwrite=overwrite)
    heads = [load_head(path) for path in head]
    with open_store(store) as opened:
        with ProgressReport("sweep-temps", "rows") as progress:
            sweep = sweep_temps(opened, heads, config, on_progress=progress.update)
        written = save_sweep(sweep, out, overwrite=overwrite)
        speaker.show(*_tables(sweep, opened, heads))
    for note in sweep_notes(sweep):
        speaker.note(note)
    speaker.wrote(*written)
    write_json(sweep.to_json(), json_path)


def _tables(sweep: Sweep, store: Store, heads: Sequence[Head]) -> Iterator[Table]:
    """The plane, the scores on `test` beside each head's, and how sure all that is."""
    from pipeline.scored import ScoredSplit
    from pipeline.tables import (
        bootstrap_table,
        calibration_table,
        scores_table,
        sweep_table,
    )

    yield sweep_table(sweep)
    if sweep.test_scores is not None:
        together = sweep.test_scores
        alone = ScoredSplit(store, together.split, together.test_views).scores_of_each(heads)
        yield scores_table(alone | {"ensemble": together})
    if sweep.bootstrap is not None:
        yield bootstrap_table(sweep.bootstrap)
    if sweep.calibration is not None:
        yield calibration_table(sweep.calibration)
