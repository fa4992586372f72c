"""`nolb sweep-temps`: old and new head together, at every pair of temperatures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import (
    PATH,
    json_option,
    overwrite_option,
    settings_from,
    settings_options,
)
from pipeline.cli.output import console_for, write_json
from pipeline.config import SweepConfig


@click.command("sweep-temps")
@click.argument("store", type=PATH)
@click.argument("head", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder for the table and the heat maps.")
@overwrite_option
@settings_options("sweep_temps")
@json_option
def sweep_temps(
    store: Path,
    head: Path,
    out: Path,
    overwrite: bool,
    recipe: str | None,
    json_path: str | None,
    **given: Any,
) -> None:
    """Ensemble old and new head over a grid of two temperatures.

    The temperatures are chosen on the split `val`. Without one, (1, 1) is kept and the grid is
    only shown, measured on the test split: choosing there would flatter the result.

    \b
    Example:
      nolb sweep-temps data.zarr head.safetensors --out sweep --t-old 1,2,3 --t-new 1,2,3
    """
    config = settings_from("sweep_temps", SweepConfig, recipe, given)
    console = console_for(json_path)

    from cache import open_store
    from pipeline.heads import load_head
    from pipeline.progress import ProgressReport
    from pipeline.stages.evaluate import evaluate
    from pipeline.stages.sweep_temps import save_sweep, sweep_temps
    from pipeline.tables import scores_table, sweep_table

    new_head = load_head(head)
    with open_store(store) as opened:
        with ProgressReport("sweep-temps", "rows") as progress:
            sweep = sweep_temps(opened, new_head, config, on_progress=progress.update)
        written = save_sweep(sweep, out, overwrite=overwrite)
        console.print(sweep_table(sweep))
        for warning in sweep.warnings:
            console.print(f"note  {warning}")
        if sweep.test_scores is not None:
            scores = {"old": evaluate(opened), "new": evaluate(opened, new_head)}
            console.print(scores_table(scores | {"ensemble": sweep.test_scores}))
    console.print("wrote " + ", ".join(str(path) for path in written))
    write_json(sweep.to_json(), json_path)
