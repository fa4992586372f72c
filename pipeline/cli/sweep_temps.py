"""`nolb sweep-temps`: old and new head together, at every pair of temperatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
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
from pipeline.cli.output import console_for, write_json
from pipeline.config import SweepConfig

if TYPE_CHECKING:
    from rich.table import Table

    from cache import Store
    from pipeline.heads import Head
    from pipeline.sweep import Sweep


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
    console = console_for(json_path)

    from cache import open_store
    from pipeline.heads import load_head
    from pipeline.progress import ProgressReport
    from pipeline.stages.sweep_temps import save_sweep, sweep_temps
    from pipeline.sweep_files import refuse_existing_sweep

    refuse_existing_sweep(out, overwrite=overwrite)
    heads = [load_head(path) for path in head]
    with open_store(store) as opened:
        with ProgressReport("sweep-temps", "rows") as progress:
            sweep = sweep_temps(opened, heads, config, on_progress=progress.update)
        written = save_sweep(sweep, out, overwrite=overwrite)
        for part in _result_parts(sweep, opened, heads):
            console.print(part)
    console.print("wrote " + ", ".join(str(path) for path in written))
    write_json(sweep.to_json(), json_path)


def _result_parts(sweep: Sweep, store: Store, heads: Sequence[Head]) -> Iterator[str | Table]:
    """The plane, the scores on `test` beside each head's, and what to know before it is trusted."""
    from pipeline.stages.evaluate import evaluate
    from pipeline.tables import (
        bootstrap_table,
        calibration_table,
        scores_table,
        sweep_notes,
        sweep_table,
    )

    yield sweep_table(sweep)
    if sweep.test_scores is not None:
        score = partial(evaluate, store, test_views=sweep.test_scores.test_views > 0)
        scores = {"old": score()}
        for k, head in enumerate(heads):
            scores[f"new {k + 1}" if len(heads) > 1 else "new"] = score(head)
        yield scores_table(scores | {"ensemble": sweep.test_scores})
    if sweep.bootstrap is not None:
        yield bootstrap_table(sweep.bootstrap)
    if sweep.calibration is not None:
        yield calibration_table(sweep.calibration)
    yield from (f"note  {note}" for note in sweep_notes(sweep))
