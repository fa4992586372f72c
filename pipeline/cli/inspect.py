"""`nolb inspect`: what a checkpoint file holds, and what would be loaded from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import PATH, json_option
from pipeline.cli.output import Speaker, write_json
from pipeline.errors import listed

if TYPE_CHECKING:
    from pipeline.checkpoints import Inspection

SHOWN = 4
"""Names of left-out weights that are listed."""


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option(
    "--model",
    default="auto",
    show_default=True,
    help="Family or FAMILY:BACKBONE, as for `nolb extract`.",
)
@json_option
@click.pass_context
def inspect(ctx: click.Context, checkpoint: Path, model: str, json_path: str | None) -> None:
    """Say what a checkpoint holds: whose it is, its network, its classifier, its preprocessing.

    Nothing in the file is executed. Exit code 1 if nothing could be loaded from it.

    \b
    Examples:
      nolb inspect model_best.pth.tar
      nolb inspect latest_model_checkpoint.pth --model lade:ce --json -
    """
    speaker = Speaker(json_path)

    from pipeline.checkpoints import inspect_checkpoint

    found = inspect_checkpoint(checkpoint, model=model)
    for name, text in _lines(found):
        speaker.tell(name, text)
    write_json(found.to_json(), json_path)
    if found.problem and not found.choices:
        ctx.exit(1)


def _lines(found: Inspection) -> Iterator[tuple[str, str]]:
    """What is printed, a name and a text a line."""
    yield "file", f"{found.path} (sha256 {found.sha256[:12]}...)"
    yield "holds", found.holds
    if found.foreign:
        yield "not loaded", f"{', '.join(found.foreign)}: objects beside the weights"
    if found.family is not None:
        yield "family", f"{found.family}: {found.evidence}"
    if found.backbone is not None:
        yield "backbone", f"{found.backbone}, features of width {found.feature_width}"
        yield "classes", f"{found.n_classes}"
        yield "classifier", f"{found.classifier}"
        yield "stored as", f"{found.stored_as}"
        yield "preprocessing", f"{found.preprocessing}"
        yield "loaded", f"{found.n_weights} weights, {found.n_parameters:,} numbers"
    if found.left_out:
        shown = listed(found.left_out, SHOWN, str)
        yield "left out", f"{len(found.left_out)} that neither features nor logits need: {shown}"
    if found.needs is not None:
        yield "needs", found.needs
    for note in found.notes:
        yield "note", note
    for choice, meaning in found.choices.items():
        yield "choose", f"--model {choice}: {meaning}"
    if found.problem and not found.choices:
        yield "problem", found.problem
    if found.model is not None:
        yield "same again", f"--model {found.model}"
