"""`nolb pretrain`: from images to a trained classifier."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import (
    PATH,
    json_option,
    named_by_hand,
    overwrite_option,
    settings_from,
    settings_options,
)
from pipeline.cli.output import console_for, write_json
from pipeline.cli.sources import Reading, named_sources, reading_options
from pipeline.config import PretrainConfig
from pipeline.config.idle_training import AUGMENTATION_SETTINGS, refuse_idle

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.metrics import Scores
    from pipeline.progress import OnProgress
    from pipeline.stages.pretrain import Callbacks, Pretraining
    from pipeline.training.loop import EpochRecord


@click.command()
@click.option("--train", metavar="SRC", required=True, help="Training images, as for `nolb extract`: a folder of class folders, a list file, a named data set and the like.")  # fmt: skip  # noqa: E501
@click.option("--val", metavar="SRC|SHARE", help="Validation images, likewise; or a share such as 0.2, which is taken out of every class of --train.")  # fmt: skip  # noqa: E501
@click.option("--test", metavar="SRC|SHARE", help="Test images, likewise.")
@reading_options(class_order=False)
@click.option("--from", "start", type=PATH, help="Checkpoint to begin with: its weights before the classifier, and its preprocessing.")  # fmt: skip  # noqa: E501
@click.option("--out", type=PATH, required=True, help="Checkpoint to write, NAME.pth.")
@click.option("--resume", is_flag=True, help="Go on after the last whole epoch; begin where there is none.")  # fmt: skip  # noqa: E501
@overwrite_option
@settings_options("pretrain")
@json_option
def pretrain(
    train: str,
    val: str | None,
    test: str | None,
    start: Path | None,
    out: Path,
    resume: bool,
    overwrite: bool,
    recipe: str | None,
    json_path: str | None,
    reading: Reading,
    **given: Any,
) -> None:
    """Train a backbone and its head, for `nolb extract`.

    The weights of the last epoch are saved. Recalls on --val and --test are shown on the way and
    choose nothing.

    \b
    Examples:
      nolb pretrain --train data/train --test data/test --mixup 1 --out model.pth
      nolb pretrain --train cifar100-lt:train --out ldam.pth --loss ldam --schedule ldam-drw \\
        --warmup-epochs 5 --weight-decay 2e-4
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite contradict each other: give one.")
    config = settings_from("pretrain", PretrainConfig, recipe, given)
    by_hand = named_by_hand(given)
    refuse_idle(config, by_hand)
    sources = named_sources(train=train, val=val, test=test)
    if "evaluate_every" in by_hand and sources.keys() == {"train"}:
        raise click.UsageError(
            "--evaluate-every scores --val and --test: give one, or leave it out."
        )
    console = console_for(json_path)

    from pipeline.progress import ProgressReport
    from pipeline.stages.pretrain import pretrain

    if config.augmentation == "auto":
        _refuse_idle_in_the_augmentation(config, by_hand, start)
    images = reading.open(sources, required=("train",))
    with ProgressReport("pretrain", "images") as progress:
        report = _report_in_lines(progress.update, config.epochs, to_stderr=json_path == "-")
        result = pretrain(
            images, out, config, start=start, resume=resume, overwrite=overwrite, report=report
        )
    for part in _result_parts(result):
        console.print(part)
    console.print(_next_line(out, config.model, sources, reading))
    write_json(result.to_json(), json_path)


def _refuse_idle_in_the_augmentation(
    config: PretrainConfig, by_hand: Sequence[str], start: Path | None
) -> None:
    """Refuse settings of the augmentation that the network's images do not get."""
    from pipeline.training.holding import is_cropped
    from pipeline.training.network import chosen_network

    if AUGMENTATION_SETTINGS.isdisjoint(by_hand):
        return
    _, _, preprocessing = chosen_network(config, start)
    cropped = is_cropped(preprocessing, config)
    refuse_idle(config, by_hand, "resized-crop" if cropped else "shift")


def _next_line(out: Path, model: str, sources: Mapping[str, str], reading: Reading) -> str:
    """The command that goes on with the checkpoint, with the same images in the same splits.

    Args:
        out: the checkpoint.
        model: name of its network.
        sources: what the user gave, by split.
        reading: how they are read.
    """
    from pipeline.backbones.named import is_factory

    words = ["nolb", "extract", "--checkpoint", str(out)]
    if is_factory(model):  # a file alone has no code run
        words += ["--model", f"nolb:{model}"]
    for split, source in sources.items():
        words += [f"--{split}", source]
    words += [*reading.words(), "--out", str(out.with_suffix(".zarr"))]
    missing = "" if "test" in sources else " --test SRC"
    return f"Next: {shlex.join(words)}{missing}"


def _report_in_lines(on_progress: OnProgress, epochs: int, *, to_stderr: bool) -> Callbacks:
    """What is trained, and every epoch, as lines while it goes on."""
    from pipeline.stages.pretrain import Callbacks

    def say(line: str) -> None:
        # Not the console: while a bar is shown, its lines must go where the bar puts them.
        click.echo(line, err=to_stderr)

    def tell(record: EpochRecord, scores: Mapping[str, Scores]) -> None:
        say(_epoch_line(record, epochs, scores))

    return Callbacks(on_begin=say, on_progress=on_progress, on_epoch=tell)


def _result_parts(result: Pretraining) -> Iterator[str | Table]:
    """How long it took, and the scores of the last epoch."""
    from pipeline.tables import scores_table

    if result.computed:
        seconds = f"{result.seconds:,.0f} s"
        yield f"trained        {result.computed} epochs in {seconds} -> {result.checkpoint}"
    else:
        yield f"trained        nothing, {result.checkpoint} is complete already"
    if result.scores:
        yield scores_table(result.scores)


def _epoch_line(record: EpochRecord, epochs: int, scores: Mapping[str, Scores]) -> str:
    """What an epoch did, in one line."""
    parts = [
        f"epoch {record.epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {record.loss:.4f}",
        f"lr {record.lr:.3g}",
        f"train {100 * record.accuracy:.1f} %",
        f"{record.seconds:.1f} s",
        *(
            f"{split} {found.accuracy:.1f} % (lowest recall {found.lowest_recall:.1f})"
            for split, found in scores.items()
        ),
    ]
    return "  ".join(parts)
