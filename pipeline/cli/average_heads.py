"""`nolb average-heads`: several heads become one."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import PATH, overwrite_option
from pipeline.cli.output import console_for
from pipeline.config import parse_weights


@click.command("average-heads")
@click.argument("heads", metavar="HEAD HEAD...", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Head to write, NAME.safetensors.")
@click.option("--weights", metavar="W,W[,W...]", help="Weights of the heads.  [default: equal]")
@overwrite_option
def average_heads(heads: tuple[Path, ...], out: Path, weights: str | None, overwrite: bool) -> None:
    """Write one head whose logits are the mean of several heads' logits.

    An ensemble of linear heads that costs no more than one, and that `predict` and `export` take
    as any other: seeds, losses, solvers, or the old head from `fit-head --head logit-adjusted`.

    \b
    Example:
      nolb fit-head data.zarr --out new.safetensors
      nolb fit-head data.zarr --head logit-adjusted --out adjusted.safetensors
      nolb average-heads new.safetensors adjusted.safetensors --out mean.safetensors
      nolb evaluate data.zarr mean.safetensors
    """
    shares = None if weights is None else parse_weights(weights)

    from pipeline.heads import average_heads, load_head, refuse_existing_head, save_head

    refuse_existing_head(out, overwrite=overwrite)
    save_head(average_heads([load_head(head) for head in heads], shares), out, overwrite=overwrite)
    console = console_for(None)
    console.print(f"averaged  {len(heads)} heads -> {out}")
    console.print(f"Next: nolb evaluate STORE {out}")
