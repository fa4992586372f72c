"""`nolb adopt-head`: a fitted head becomes a store's old classifier."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.arguments import no_head, no_store
from pipeline.cli.options import PATH, json_option, overwrite_option, resume_option
from pipeline.cli.output import Speaker, write_json


@click.command("adopt-head")
@click.argument("store", type=PATH, callback=no_head)
@click.argument("head", type=PATH, callback=no_store)
@click.option("--out", type=PATH, required=True, help="Store to create, NAME.zarr or NAME.h5.")
@resume_option("Go on with an interrupted copy.")
@overwrite_option
@json_option
def adopt_head(
    store: Path, head: Path, out: Path, resume: bool, overwrite: bool, json_path: str | None
) -> None:
    """Copy a store with HEAD as its old classifier.

    For a backbone that was trained on other classes: its features have no head for yours. Fit one
    by plain cross entropy, adopt it, and go on as with any classifier.

    \b
    Example:
      nolb extract --model efficientnet-lite0 --features-only --train data --test 0.3 --out f.zarr
      nolb fit-head f.zarr --loss cross-entropy --out old.safetensors
      nolb adopt-head f.zarr old.safetensors --out data.zarr
      nolb fit-head data.zarr --out new.safetensors
    """
    speaker = Speaker(json_path)

    from cache import open_store
    from pipeline.heads import load_head
    from pipeline.progress import ProgressReport
    from pipeline.stages.adopt_head import adopt_head
    from pipeline.stages.evaluate import evaluate
    from pipeline.tables import scores_table

    with open_store(store) as opened, ProgressReport("adopt-head", "shards") as progress:
        adopted = adopt_head(
            opened,
            load_head(head),
            out,
            resume=resume,
            overwrite=overwrite,
            on_progress=progress.update,
        )
    with adopted:
        scores = evaluate(adopted)
    speaker.show(scores_table({"old": scores}))
    speaker.wrote(out)
    speaker.next(f"nolb fit-head {out} --out {out.with_suffix('.safetensors')}")
    write_json({"store": str(out), "old": scores.to_json()}, json_path)
