"""`nolb pretrain`: from images to a trained classifier."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import (
    PATH,
    json_option,
    named_by_hand,
    overwrite_option,
    resume_option,
    settings_from,
    settings_options,
)
from pipeline.cli.output import Speaker, write_json
from pipeline.cli.sources import Reading, named_sources, reading_options
from pipeline.config import PretrainConfig
from pipeline.config.pretrain import AUGMENTATION_SETTINGS
from pipeline.config.unused import refuse_unused

if TYPE_CHECKING:
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
@resume_option("Go on after the last whole epoch; begin where there is none.")
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
    config = settings_from("pretrain", PretrainConfig, recipe, given)
    by_hand = named_by_hand(given)
    refuse_unused([config], by_hand)
    sources = named_sources(train=train, val=val, test=test)
    if "evaluate_every" in by_hand and sources.keys() == {"train"}:
        raise click.UsageError(
            "--evaluate-every scores --val and --test: give one, or leave it out."
        )
    speaker = Speaker(json_path)

    from pipeline.progress import ProgressReport
    from pipeline.stages.pretrain import pretrain

    if config.augmentation == "auto":
        _refuse_unused_augmentation_settings(config, by_hand, start)
    images = reading.open(sources, required=("train",))
    with ProgressReport("pretrain", "images") as progress:
        report = _report_in_lines(progress.update, config.epochs, speaker)
        result = pretrain(
            images, out, config, start=start, resume=resume, overwrite=overwrite, report=report
        )
    _tell(result, speaker)
    speaker.next(_next_command(out, config.model, sources, reading))
    write_json(result.to_json(), json_path)


def _refuse_unused_augmentation_settings(
    config: PretrainConfig, by_hand: Sequence[str], start: Path | None
) -> None:
    """Refuse settings of the augmentation that the network's images do not get."""
    from pipeline.training.holding import is_cropped
    from pipeline.training.network import chosen_network

    if AUGMENTATION_SETTINGS.isdisjoint(by_hand):
        return
    _, _, preprocessing = chosen_network(config, start)
    cropped = is_cropped(preprocessing, config)
    resolved = replace(config, augmentation="resized-crop" if cropped else "shift")
    refuse_unused([resolved], by_hand)


def _next_command(out: Path, model: str, sources: Mapping[str, str], reading: Reading) -> str:
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
    return f"{shlex.join(words)}{missing}"


def _report_in_lines(on_progress: OnProgress, epochs: int, speaker: Speaker) -> Callbacks:
    """What is trained, and every epoch, as lines while it goes on."""
    from pipeline.stages.pretrain import Callbacks

    def tell(record: EpochRecord, scores: Mapping[str, Scores]) -> None:
        speaker.line(_epoch_line(record, epochs, scores))

    return Callbacks(on_begin=speaker.line, on_progress=on_progress, on_epoch=tell)


def _tell(result: Pretraining, speaker: Speaker) -> None:
    """How long it took, and the scores of the last epoch."""
    from pipeline.tables import scores_table

    if result.computed:
        speaker.tell("trained", f"{result.computed} epochs in {result.seconds:,.0f} s")
    else:
        speaker.tell("trained", f"nothing, {result.checkpoint} is complete already")
    if result.scores:
        speaker.show(scores_table(result.scores))
    if result.computed:
        speaker.wrote(result.checkpoint)


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
