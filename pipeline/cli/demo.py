"""`nolb demo`: the whole path on embedded data."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import PATH, json_option, overwrite_option
from pipeline.cli.output import Speaker, write_json

NEXT_STEPS = """\
The same on your own data (a folder with one folder of images for each class, and a checkpoint):

  nolb extract --checkpoint model.pth --train data/train --test data/test --views 12 --out data.zarr
  nolb fit-head data.zarr --out head.safetensors
  nolb sweep-temps data.zarr head.safetensors --out sweep
  nolb evaluate data.zarr head.safetensors --figure recalls.png
"""


@click.command()
@click.option("--out", type=PATH, default=Path("nolb-demo"), show_default=True, help="Folder to create.")  # fmt: skip  # noqa: E501
@overwrite_option
@json_option
def demo(out: Path, overwrite: bool, json_path: str | None) -> None:
    """Walk the whole path on real handwritten digits; no download, under two minutes."""
    speaker = Speaker(json_path)

    from pipeline.demo import run_demo
    from pipeline.tables import scores_table

    result = run_demo(out, overwrite=overwrite, say=speaker.line)
    speaker.line()
    speaker.show(scores_table(result.scores))
    speaker.wrote(f"{result.figure}: every digit's recall before and after")
    speaker.wrote(f"{out / 'sweep'}: the temperature plane")
    speaker.line()
    speaker.line(NEXT_STEPS)
    write_json({name: scores.to_json() for name, scores in result.scores.items()}, json_path)
