"""`nolb balance-head`: images without labels say which classes a head leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import PATH, json_option, overwrite_option, test_views_option
from pipeline.cli.output import console_for, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.heads import Head
    from pipeline.metrics import Scores
    from pipeline.stages.balance_head import Balanced, Pool

LOWEST = 5
"""Classes that are named."""

FEW_IMAGES = 10
"""Images a class, on average, below which half of the gain was lost (docs/recipe.md)."""


@click.command("balance-head")
@click.argument("head", type=PATH)
@click.argument("store", type=PATH, required=False)
@click.option("--images", type=PATH, multiple=True, help="An image or a folder of images, which need no store and no labels; more than once for more.")  # fmt: skip  # noqa: E501
@click.option("--checkpoint", type=PATH, help="With --images: the trained classifier that HEAD was fitted on, unless that was a --model with weights of its own.")  # fmt: skip  # noqa: E501
@click.option("--model", default="auto", show_default=True, help="With --images: as for `nolb predict`.")  # fmt: skip  # noqa: E501
@click.option("--out", type=PATH, required=True, help="Head to write, NAME.safetensors.")
@click.option("--split", default="test", show_default=True, help="The images of STORE to balance on.")  # fmt: skip  # noqa: E501
@click.option("--prior", metavar="equal|train|FILE", default="equal", show_default=True, help="How frequent the classes are among these images: all alike, as in training, or as a file says that holds one number a class, in the head's order.")  # fmt: skip  # noqa: E501
@click.option("--mean", type=click.Choice(("harmonic", "geometric", "arithmetic")), default="harmonic", show_default=True, help="Mean of the estimated recalls that is lifted; the harmonic one cares most for the lowest, the arithmetic one for accuracy.")  # fmt: skip  # noqa: E501
@click.option("--temperature", type=float, help="Of the head's probabilities on images that it was not fitted on.  [default: 1.5]")  # fmt: skip  # noqa: E501
@click.option("--folds", type=int, help="Also score it, with the labels of the split: each image decided by what the other folds' images gave.")  # fmt: skip  # noqa: E501
@click.option("--seed", type=int, default=0, show_default=True, help="Of the folds.")
@test_views_option
@json_option
@overwrite_option
def balance_head(
    head: Path,
    store: Path | None,
    images: tuple[Path, ...],
    checkpoint: Path | None,
    model: str,
    out: Path,
    split: str,
    prior: str,
    folds: int | None,
    seed: int,
    test_views: bool | None,
    json_path: str | None,
    overwrite: bool,
    **how: Any,
) -> None:
    """Shift HEAD's biases, on images without labels, for the classes it leaves behind.

    Where it is known how frequent the classes are among some images, in the simplest case equally,
    no label is needed to see for which of them HEAD decides too seldom, and to estimate every
    class's recall. The biases are shifted until the estimated harmonic mean of the recalls is
    highest. The images are a split of STORE, of which only --folds looks at the labels, or
    --images. Ten images a class or more make a good pool.

    `predict` and `export` take the new head as any other; say --classifier new, or they add the
    old head as it is.

    \b
    Examples:
      nolb balance-head new.safetensors data.zarr --folds 5 --out balanced.safetensors
      nolb balance-head new.safetensors --images photos/ --checkpoint model.pth \\
        --out balanced.safetensors
      nolb predict balanced.safetensors more/ --checkpoint model.pth --classifier new
    """
    if (store is None) == (not images):
        raise click.UsageError("Give images to balance on: a STORE, or --images FOLDER.")
    if images and folds is not None:
        raise click.UsageError("--folds scores with labels, which --images have none of.")

    from pipeline.balancing import TEMPERATURE
    from pipeline.heads import load_head, refuse_existing_head, save_head
    from pipeline.stages.balance_head import balance_head

    refuse_existing_head(out, overwrite=overwrite)
    console = console_for(json_path)
    loaded = load_head(head)
    how["shares"] = _shares(prior, loaded)
    how["temperature"] = TEMPERATURE if how["temperature"] is None else how["temperature"]
    scores: dict[str, Scores] = {}
    if store is None:
        balanced = balance_head(
            loaded, _pool_of_images(loaded, images, checkpoint, model, test_views), **how
        )
    else:
        where = {"split": split, "test_views": test_views}
        balanced, scores = _on_store(loaded, store, where, how, folds, seed)
    save_head(balanced.head, out, overwrite=overwrite)
    if scores:
        _tell_scores(scores, folds, console)
    _tell(balanced, out, console)
    measured = {name: score.to_json() for name, score in scores.items()}
    write_json({**balanced.to_json(), "scores": measured or None}, json_path)


def _on_store(
    head: Head,
    store: Path,
    where: dict[str, Any],
    how: dict[str, Any],
    folds: int | None,
    seed: int,
) -> tuple[Balanced, dict[str, Scores]]:
    """The balanced head, and where folds are asked for the scores before and by folds."""
    from cache import open_store
    from pipeline.stages.balance_head import balance_head, pool_of_store, score_by_folds
    from pipeline.stages.evaluate import evaluate

    with open_store(store) as opened:
        balanced = balance_head(head, pool_of_store(head, opened, **where), **how)
        if folds is None:
            return balanced, {}
        by_folds = score_by_folds(head, opened, n_folds=folds, seed=seed, **how, **where)
        return balanced, {"before": evaluate(opened, head, **where), "balanced": by_folds}


def _pool_of_images(
    head: Head,
    images: tuple[Path, ...],
    checkpoint: Path | None,
    model: str,
    test_views: bool | None,
) -> Pool:
    """Images run through the head's network, with progress; unreadable ones are told."""
    from pipeline.image_classifiers import find_images
    from pipeline.progress import ProgressReport
    from pipeline.stages.balance_head import pool_of_images

    def tell(path: str, reason: str) -> None:
        click.echo(f"nolb: {path}: {reason}", err=True)

    with ProgressReport("balance-head", "images") as progress:
        return pool_of_images(
            head, find_images(images), checkpoint, model=model, test_views=test_views,
            on_unreadable=tell, on_progress=progress.update,
        )  # fmt: skip


def _shares(prior: str, head: Head) -> tuple[float, ...] | None:
    """Shares of the classes in any unit; None for equal ones."""
    if prior == "equal":
        return None
    if prior == "train":
        return tuple(map(float, head.class_counts))
    from pipeline.datasets import read_shares

    return read_shares(prior)


def _tell_scores(scores: Mapping[str, Scores], folds: int | None, console: Console) -> None:
    """What the labels say of the head before, and of the balanced one by folds."""
    from pipeline.tables import scores_table

    console.print(scores_table(scores))
    console.print(f"Balanced by folds: each of {folds} parts is decided by what the others gave.\n")


def _tell(balanced: Balanced, out: Path, console: Console) -> None:
    """What is known without a label of the classes that were left behind most."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pipeline.metrics import harmonic_mean

    before, after = balanced.recalls_before, balanced.recalls_after
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_style="dim")
    table.add_column("Lowest estimated recalls", no_wrap=True)
    for heading in ("Before", "After", "Decided for\nbefore", "Decided for\nafter"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in before.argsort(kind="stable")[:LOWEST]:
        decided = (balanced.decided_before[c], balanced.decided_after[c])
        often = (f"{100 * share / balanced.shares[c]:.0f} %" for share in decided)
        # Text, because a class may be called [red] and rich would paint it.
        name = Text(balanced.head.class_names[c])
        table.add_row(name, f"{before[c]:.1f}", f"{after[c]:.1f}", *often)
    means = (f"{harmonic_mean(recalls):.1f}" for recalls in (before, after))
    table.add_row("harmonic mean of all", *means, "", "")
    table.caption = Text("In %, estimated without labels. Decided for: of as often as it occurs.")
    console.print(table)
    n_classes = len(balanced.shares)
    console.print(f"balanced  {balanced.n_images:,} images, {n_classes:,} classes -> {out}")
    if balanced.n_images < FEW_IMAGES * n_classes:
        console.print(
            f"Note: {balanced.n_images / n_classes:.1f} images a class are few to balance on; with "
            f"{FEW_IMAGES} or more less is left to chance."
        )
    console.print(f"Next: nolb predict {out} IMAGES --checkpoint FILE --classifier new")
