"""`nolb evaluate`: every class's recall, and the lowest of them."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import PATH, json_option
from pipeline.cli.output import console_for, write_json


@click.command()
@click.argument("store", type=PATH)
@click.argument("head", type=PATH, required=False)
@click.option("--t-old", type=float, help="Temperature of the old head: score the ensemble.")
@click.option("--t-new", type=float, help="Temperature of the new head: score the ensemble.")
@click.option("--split", default="test", show_default=True, help="Split to score.")
@click.option("--figure", type=PATH, help="Write a bar plot of the recalls, as PNG, SVG or PDF.")
@json_option
def evaluate(
    store: Path,
    head: Path | None,
    t_old: float | None,
    t_new: float | None,
    split: str,
    figure: Path | None,
    json_path: str | None,
) -> None:
    """Score a head on a split: accuracy, geometric and harmonic mean, and the lowest recall.

    Without HEAD it is the old classifier, with HEAD the new one, and with a temperature the
    ensemble of both (a temperature not given is 1). The JSON is that one's; the table also shows
    what it is compared with.

    \b
    Examples:
      nolb evaluate data.zarr
      nolb evaluate data.zarr head.safetensors --t-old 2 --t-new 1 --json -
    """
    console = console_for(json_path)

    from cache import open_store
    from pipeline.heads import load_head
    from pipeline.stages.evaluate import evaluate
    from pipeline.tables import scores_table

    new_head = load_head(head) if head is not None else None
    with open_store(store) as opened:
        asked = evaluate(opened, new_head, t_old=t_old, t_new=t_new, split=split)
        scores = {"old": asked}
        if new_head is not None:
            scores = {"old": evaluate(opened, split=split), "new": asked}
        if t_old is not None or t_new is not None:
            scores |= {"new": evaluate(opened, new_head, split=split), "ensemble": asked}
        class_counts = opened.class_counts
    console.print(scores_table(scores))
    if figure is not None:
        from pipeline.figures import recall_bars  # matplotlib loads for half a second

        recall_bars(scores, class_counts, figure)
        console.print(f"wrote {figure}")
    write_json(asked.to_json(), json_path)
