"""`nolb extract`: from a checkpoint and images to a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import (
    PATH,
    json_option,
    overwrite_option,
    settings_from,
    settings_options,
)
from pipeline.cli.output import console_for, write_json
from pipeline.config import ExtractConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.stages.extract import Extraction


@click.command()
@click.option("--checkpoint", type=PATH, required=True, help="The trained classifier's file.")
@click.option(
    "--train",
    metavar="SRC",
    required=True,
    help="Training images: a folder of class folders, a list file of `path label` lines, or a "
    "named data set such as digits-lt:train.",
)
@click.option("--test", metavar="SRC", required=True, help="Test images, likewise.")
@click.option("--val", metavar="SRC", help="Validation images; temperatures are chosen on them.")
@click.option("--root", type=PATH, help="Folder that the paths of list files are relative to.")
@click.option("--out", type=PATH, required=True, help="Store to create, NAME.zarr or NAME.h5.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished store; begin where none is.")
@overwrite_option
@settings_options("extract")
@json_option
def extract(
    checkpoint: Path,
    train: str,
    test: str,
    val: str | None,
    root: Path | None,
    out: Path,
    resume: bool,
    overwrite: bool,
    recipe: str | None,
    json_path: str | None,
    **given: Any,
) -> None:
    """Run a frozen classifier once over its images; cache features and old logits.

    Ends with the old head's scores on the test images: numbers far below those that you know mean
    wrong preprocessing (--mean, --std, --resize, --crop), not a bad model.

    \b
    Example:
      nolb extract --checkpoint model.pth --train data/train --test data/test --out data.zarr
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite contradict each other: give one.")
    config = settings_from("extract", ExtractConfig, recipe, given)
    console = console_for(json_path)

    from pipeline.progress import ProgressReport
    from pipeline.stages.evaluate import evaluate
    from pipeline.stages.extract import extract, prepare_model
    from pipeline.tables import scores_table

    model = prepare_model(checkpoint, config)
    console.print(f"model          {model.family}, {model.backbone}, {model.n_classes} classes")
    console.print(f"preprocessing  {model.preprocessing.describe()}")
    for note in model.notes:
        console.print(f"note           {note}")
    sources = {"train": train, "test": test} | ({"val": val} if val is not None else {})
    with ProgressReport("extract", "images") as progress:
        result = extract(
            model,
            sources,
            out,
            config,
            root=root,
            resume=resume,
            overwrite=overwrite,
            on_progress=progress.update,
        )
    for line in _summary(result):
        console.print(line)
    scores = evaluate(result.store)
    console.print(scores_table({"old": scores}))
    console.print(f"Next: nolb fit-head {out} --out {out.with_suffix('.safetensors')}")
    write_json(result.to_json() | {"old": scores.to_json()}, json_path)


def _summary(result: Extraction) -> Iterator[str]:
    """What was done, a line each."""
    store = result.store
    if result.computed:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result.shares.items())
        yield (
            f"extracted      {result.computed:,} images in {result.seconds:.1f} s, "
            f"{result.computed / result.seconds:,.0f} images/s ({shares})"
        )
    else:
        yield "extracted      nothing, the store is complete already"
    for split, failed in result.failed.items():
        if failed:
            row, reason = next(iter(failed.items()))
            yield (
                f"left out       {len(failed)} of {store[split].n_samples:,} images of {split} "
                f"that cannot be read, first {store[split].ids[row]} ({reason})"
            )
