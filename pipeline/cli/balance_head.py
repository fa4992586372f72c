"""`nolb balance-head`: adapt a head to unlabelled images, in favour of its worst classes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.arguments import no_head, no_store
from pipeline.cli.options import (
    PATH,
    json_option,
    overwrite_option,
    running_options,
    settings_from,
    settings_options,
    test_views_option,
)
from pipeline.cli.output import Speaker, write_json
from pipeline.config import BalanceConfig, ExtractConfig, build_config

if TYPE_CHECKING:
    from pipeline.balancing.pools import Pool
    from pipeline.heads import Head
    from pipeline.stages.balance_head import BalancedScores, BalanceResult

LOWEST = 5
"""Classes that are named."""

TOO_FEW, FEW = 5, 10
"""Images per class, on average, below which heads became worse, and below which half of the gain
was lost (docs/recipe.md)."""

FEW_FOR_WEIGHTS = 20
"""Images per class below which new weights gained nothing."""


@click.command("balance-head")
@click.argument("head", type=PATH, callback=no_store)
@click.argument("store", type=PATH, required=False, callback=no_head)
@click.option("--images", type=PATH, multiple=True, help="An image or a folder of images, which need no store and no labels; more than once for more.")  # fmt: skip  # noqa: E501
@click.option("--checkpoint", type=PATH, help="With --images: the trained classifier that HEAD was fitted on, unless that was a --model with weights of its own.")  # fmt: skip  # noqa: E501
@click.option("--model", default="auto", show_default=True, help="With --images: as for `nolb predict`.")  # fmt: skip  # noqa: E501
@click.option("--out", type=PATH, required=True, help="Head to write, NAME.safetensors.")
@click.option("--split", help="With STORE: the images to balance on.  [default: test]")
@click.option("--prior", metavar="equal|train|FILE", default="equal", show_default=True, help="Class frequencies among these images: all equal, as in training, or a file with one number for each class in the head's order. The new head assumes equally frequent classes in either case.")  # fmt: skip  # noqa: E501
@click.option("--folds", type=int, help="With STORE: also score the result by cross-fitting: each image is classified by a head balanced on the other folds. Labels are used for this score only. Takes this many fits.")  # fmt: skip  # noqa: E501
@click.option("--seed", type=click.IntRange(0), help="Seed that draws the folds.  [default: 0]")
@test_views_option
@running_options("--images")
@settings_options("balance_head")
@json_option
@overwrite_option
def balance_head(
    head: Path,
    store: Path | None,
    images: tuple[Path, ...],
    checkpoint: Path | None,
    model: str,
    out: Path,
    split: str | None,
    prior: str,
    folds: int | None,
    seed: int | None,
    test_views: bool | None,
    device: str | None,
    workers: int | None,
    json_path: str | None,
    overwrite: bool,
    recipe: str | None,
    **given: Any,
) -> None:
    """Adapt HEAD to unlabelled images, in favour of its worst classes.

    If the class frequencies among some images are known (in the simplest case, equal), the recall
    of every class can be estimated without labels. The biases are shifted until the estimated
    harmonic mean of the recalls is highest; --refit changes the weights too. The images are
    --images, or a split of STORE. Use ten images per class or more, twenty for --refit.

    \b
    Examples:
      nolb balance-head new.safetensors data.zarr --refit 0.5 --folds 5 --out balanced.safetensors
      nolb balance-head new.safetensors --images photos/ --checkpoint model.pth \\
        --out balanced.safetensors
      nolb predict balanced.safetensors more/ --checkpoint model.pth
    """
    config = settings_from("balance_head", BalanceConfig, recipe, given)
    _require_one_source(
        store, images, json_path == str(out),
        of_store={"--split": split, "--folds": folds, "--seed": seed},
        of_images={
            "--checkpoint": checkpoint, "--model": None if model == "auto" else model,
            "--device": device, "--workers": workers,
        },
    )  # fmt: skip
    running = build_config(ExtractConfig, device=device, workers=workers)

    from cache import open_store
    from pipeline.balancing.pools import pool_of_store
    from pipeline.heads import load_head, refuse_existing_head, save_head
    from pipeline.stages.balance_head import balance_head, score_balanced

    refuse_existing_head(out, overwrite=overwrite)
    loaded = load_head(head)
    shares = _shares(prior, loaded)
    with nullcontext() if store is None else open_store(store) as opened:
        if opened is None:
            pool = _pool_of_images(loaded, images, checkpoint, model, test_views, running)
        else:
            pool = pool_of_store(opened, loaded, split or "test", test_views=test_views)
        balanced, scores = balance_head(loaded, pool, config, shares=shares), None
        if opened is not None and folds is not None:
            scores = score_balanced(
                opened, loaded, pool, config, shares=shares, n_folds=folds, seed=seed or 0
            )
    save_head(balanced.head, out, overwrite=overwrite)
    speaker = Speaker(json_path)
    if scores is not None:
        _tell_scores(scores, folds, speaker)
        _note_seen(head, loaded, pool, speaker)
    _tell(balanced, speaker)
    _warn(balanced, config, prior, speaker)
    speaker.wrote(out)
    speaker.next(f"nolb predict {out} IMAGES --checkpoint FILE")
    content = {
        "head": str(out), "prior": prior, **config.to_json(), **balanced.to_json(), "folds": folds,
        "scores": None if scores is None else scores.to_json(),
    }  # fmt: skip
    write_json(content, json_path)


def _require_one_source(
    store: Path | None,
    images: tuple[Path, ...],
    same_file: bool,
    of_store: Mapping[str, object],
    of_images: Mapping[str, object],
) -> None:
    """Refuse two sources of images or none, and options that belong to the other one."""
    if store is None and not images:
        raise click.UsageError("Give images to balance on: a STORE, or --images FOLDER.")
    if store is not None and images:
        raise click.UsageError("Give a STORE or --images, not both.")
    others = of_store if images else of_images
    idle = [flag for flag, value in others.items() if value is not None]
    if idle:
        belongs = "a STORE" if images else "--images"
        raise click.UsageError(f"Leave {', '.join(idle)} out: only {belongs} takes that.")
    if of_store["--seed"] is not None and of_store["--folds"] is None:
        raise click.UsageError("--seed draws folds: give --folds too, or leave it out.")
    if same_file:
        raise click.UsageError("--json and --out name one file: give two.")


def _pool_of_images(
    head: Head,
    images: tuple[Path, ...],
    checkpoint: Path | None,
    model: str,
    test_views: bool | None,
    running: ExtractConfig,
) -> Pool:
    """Images that go through the head's network; unreadable ones are reported."""
    from pipeline.balancing.pools import pool_of_images
    from pipeline.image_classifiers import find_images
    from pipeline.progress import ProgressReport

    def tell(path: str, reason: str) -> None:
        Speaker(stderr=True).warn(f"{path}: {reason}")

    with ProgressReport("balance-head", "images") as progress:
        return pool_of_images(
            head, find_images(images), checkpoint, model=model, test_views=test_views,
            device=running.device, workers=running.workers, on_unreadable=tell,
            on_progress=progress.update,
        )  # fmt: skip


def _shares(prior: str, head: Head) -> tuple[float, ...] | None:
    """Shares of the classes in any unit; None for equal ones."""
    if prior == "equal":
        return None
    if prior == "train":
        return tuple(map(float, head.class_counts))
    from pipeline.datasets import read_shares
    from pipeline.errors import DatasetError

    if not Path(prior).exists():
        raise DatasetError(f"{prior}: no such file; --prior is equal, train or a file.")
    shares = read_shares(prior)
    if len(shares) != len(head.class_names):
        raise DatasetError(
            f"{prior}: {len(shares)} numbers, but the head has {len(head.class_names)} classes; "
            "it needs one for each, in the head's order."
        )
    return shares


def _tell_scores(scores: BalancedScores, folds: int | None, speaker: Speaker) -> None:
    """What the labels say."""
    from pipeline.tables import scores_table

    speaker.show(scores_table({"before": scores.before, "balanced": scores.balanced}))
    speaker.line(
        f"Balanced: cross-fitted, each of {folds} folds is classified by a head balanced on the "
        "others.\n"
    )


def _note_seen(head: Path, loaded: Head, pool: Pool, speaker: Speaker) -> None:
    """Say where the score before balancing is not one on new images."""
    if pool.split is not None and loaded.provenance.was_balanced_on(pool.split):
        speaker.note(
            f"{head} was already balanced on these images, so the row `Before` is not a score on "
            "new images. To compare, give the head as it was fitted."
        )


def _tell(balanced: BalanceResult, speaker: Speaker) -> None:
    """What is known without labels."""
    from pipeline.extracting.identities import views_of_identity

    _tell_recalls(balanced, speaker)
    speaker.tell("balanced", f"{balanced.n_images:,} images, {len(balanced.shares):,} classes")
    if views_of_identity(balanced.head.identity).count > balanced.test_views:
        speaker.note(
            "Balanced on clean images: it is scored and predicts on those, unless --test-views is "
            "given."
        )


def _warn(balanced: BalanceResult, config: BalanceConfig, prior: str, speaker: Speaker) -> None:
    """What on held-out images did not go well with pools such as this one."""
    per_class = balanced.n_images / len(balanced.shares)
    if per_class < TOO_FEW:
        speaker.warn(
            f"{per_class:.1f} images per class: on held-out images so few made heads worse. Use "
            f"{FEW} per class or more."
        )
    elif per_class < FEW:
        speaker.note(
            f"{per_class:.1f} images per class give only part of the gain; use {FEW} or more."
        )
    if config.refit and per_class < FEW_FOR_WEIGHTS:
        speaker.note(
            f"{per_class:.1f} images per class are few for --refit: on held-out images "
            f"{FEW_FOR_WEIGHTS} or more gained, fewer did not."
        )
    if config.refit and prior != "equal":
        speaker.note(
            "On held-out images --refit helped where all classes were equally frequent, and "
            "did harm where one was 20 times as frequent as another: compare with --refit 0."
        )


def _tell_recalls(balanced: BalanceResult, speaker: Speaker) -> None:
    """What is known without a label of the classes that were left behind most."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pipeline.metrics import harmonic_mean

    before, after = balanced.recalls_before, balanced.recalls_after
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_style="dim")
    table.add_column("Lowest estimated recalls", no_wrap=True)
    for heading in ("Before", "After", "Predicted\nbefore", "Predicted\nafter"):
        table.add_column(heading, justify="right", no_wrap=True)
    for c in before.argsort(kind="stable")[:LOWEST]:
        decided = (balanced.decided_before[c], balanced.decided_after[c])
        often = (f"{100 * share / balanced.shares[c]:.0f} %" for share in decided)
        # Text, because a class may be called [red] and rich would paint it.
        name = Text(balanced.head.class_names[c])
        table.add_row(name, f"{before[c]:.1f}", f"{after[c]:.1f}", *often)
    means = (f"{harmonic_mean(recalls):.1f}" for recalls in (before, after))
    table.add_row("harmonic mean of all", *means, "", "")
    table.caption = Text(
        "Estimated without labels: good for the order of the classes, not as figures.\n"
        "Predicted: how often, in % of how often the class occurs."
    )
    speaker.show(table)
