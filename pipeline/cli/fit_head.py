"""`nolb fit-head`: from a store to a new head."""

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
from pipeline.config import FitConfig


@click.command("fit-head")
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, help="Head to write, NAME.safetensors.")
@overwrite_option
@settings_options("fit_head")
@json_option
def fit_head(
    store: Path,
    out: Path,
    overwrite: bool,
    recipe: str | None,
    json_path: str | None,
    **given: Any,
) -> None:
    """Re-train the linear head on a store's training features.

    \b
    Examples:
      nolb fit-head data.zarr --out head.safetensors
      nolb fit-head data.zarr --out head.safetensors --config cifar100-lt --seed 1
    """
    config = settings_from("fit_head", FitConfig, recipe, given)
    console = console_for(json_path)

    from cache import open_store
    from pipeline.heads import refuse_existing_head, save_head
    from pipeline.old_head import has_old_head
    from pipeline.progress import ProgressReport
    from pipeline.stages.evaluate import evaluate
    from pipeline.stages.fit_head import fit_head
    from pipeline.tables import scores_table

    refuse_existing_head(out, overwrite=overwrite)
    with open_store(store) as opened:
        with ProgressReport("fit-head", "epochs") as progress:
            result = fit_head(opened, config, on_progress=progress.update)
        save_head(result.head, out, overwrite=overwrite)
        views = f" and {result.n_views} views of each" if result.n_views else ""
        console.print(
            f"fitted  {config.loss}, {config.epochs} epochs over {result.n_samples:,} rows{views} "
            f"in {result.seconds:.2f} s -> {out}"
        )
        with_old = has_old_head(opened)
        scores = {"old": evaluate(opened)} if with_old else {}
        scores["new"] = evaluate(opened, result.head)
    console.print(scores_table(scores))
    if not with_old:
        console.print("The store has no old head; this one can become it:")
        console.print(f"Next: nolb adopt-head {store} {out} --out {store.stem}-old{store.suffix}")
    else:
        console.print(f"Next: nolb sweep-temps {store} {out} --out {out.with_suffix('')}-sweep")
    write_json(
        {"head": str(out), "seconds": result.seconds} | {k: v.to_json() for k, v in scores.items()},
        json_path,
    )
