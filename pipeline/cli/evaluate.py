"""`nolb evaluate`: every class's recall, and the lowest of them."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.arguments import no_head, no_store
from pipeline.cli.options import PATH, file_option, json_option, overwrite_option, test_views_option
from pipeline.cli.output import Speaker, write_json
from pipeline.config import parse_temperatures, parse_weights


@click.command()
@click.argument("store", type=PATH, callback=no_head)
@click.argument("head", type=PATH, nargs=-1, callback=no_store)
@click.option("--t-old", type=float, help="Temperature of the old head: score the ensemble.")
@click.option(
    "--t-new",
    metavar="T[,T...]",
    help="Temperature of the new head, or of each of several: score the ensemble.",
)
@click.option(
    "--weights",
    metavar="W,W[,W...]",
    help="Weights of the old and each new head in the ensemble; 0 leaves a head out.",
)
@click.option("--split", default="test", show_default=True, help="Split to score.")
@test_views_option
@overwrite_option
@file_option("--figure", "Write a bar plot of the recalls, as PNG, SVG or PDF.")
@json_option
def evaluate(
    store: Path,
    head: tuple[Path, ...],
    t_old: float | None,
    t_new: str | None,
    weights: str | None,
    split: str,
    test_views: bool | None,
    overwrite: bool,  # noqa: ARG001  # read by the options that name files
    figure: Path | None,
    json_path: str | None,
) -> None:
    """Score a head on a split: accuracy, geometric and harmonic mean, and the lowest recall.

    Without HEAD it is the old classifier, with HEAD the new one, and with a temperature the
    ensemble of both (a temperature not given is 1); several heads are always an ensemble with the
    old one. --json holds the scores of this classifier; the table also lists the ones that it is
    compared with.

    \b
    Examples:
      nolb evaluate data.zarr
      nolb evaluate data.zarr head.safetensors --t-old 2 --t-new 1 --json -
      nolb evaluate data.zarr seed0.safetensors seed1.safetensors --weights 2,1,1
      nolb evaluate data.zarr adjusted.safetensors head.safetensors --weights 0,1,1
    """
    speaker = Speaker(json_path)
    if figure is not None:
        _require_drawable(figure)

    from cache import open_store
    from pipeline.balancing.notes import balance_notes
    from pipeline.heads import load_head
    from pipeline.scored import ScoredSplit
    from pipeline.stages.evaluate import evaluate_each
    from pipeline.tables import scores_table

    heads = [load_head(path) for path in head]
    temperatures = None if t_new is None else parse_temperatures(t_new)
    shares = None if weights is None else parse_weights(weights)
    with open_store(store) as opened:
        scores = evaluate_each(
            opened, heads, t_old=t_old, t_new=temperatures, weights=shares, split=split,
            test_views=test_views,
        )  # fmt: skip
        *_, asked = scores.values()
        class_counts = opened.class_counts
        named = dict(zip(map(str, head), heads, strict=True))
        notes = balance_notes(named, [ScoredSplit(opened, split, asked.test_views)])
    speaker.show(scores_table(scores))
    for note in notes:
        speaker.note(note)
    if figure is not None:
        from pipeline.figures import recall_bars

        recall_bars(scores, class_counts, figure)
        speaker.wrote(figure)
    write_json(asked.to_json(), json_path)


def _require_drawable(figure: Path) -> None:
    """Refuse a file that no figure is written to, before the work."""
    from pipeline.figures import require_figure_format  # matplotlib loads for half a second

    require_figure_format(figure)
