"""`nolb store`: look at a store, verify it, repair it, convert it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import (
    PATH,
    file_option,
    json_option,
    overwrite_option,
    resume_option,
)
from pipeline.cli.output import Speaker, write_json
from pipeline.cli.sources import Reading, named_sources, reading_options
from pipeline.files import begins_like, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.datasets import ImageSource
    from pipeline.extracting.plan import ExtractionPlan

is_card = begins_like("# [^\n]*\n\nFeatures of [0-9]+ classes from (?:a|the) frozen backbone")
"""Whether a file is an earlier card, or empty."""


@click.group()
def store() -> None:
    """Look at a store, verify it, repair it, convert it."""


@store.command()
@click.argument("path", metavar="STORE", type=PATH)
@file_option("--card", "Write the dataset card, as Markdown, to a file.", is_card)
@overwrite_option
@json_option
def info(path: Path, card: Path | None, overwrite: bool, json_path: str | None) -> None:
    """Say what a store holds, finished or not, as a dataset card.

    \b
    Example:
      nolb store info data.zarr --card README.md
    """
    speaker = Speaker(json_path)

    from cache import describe_store

    found = describe_store(path)
    if card is not None:
        write_whole(card, found.card().encode(), overwrite=overwrite, replaceable=is_card)
        speaker.wrote(card)
    elif json_path != "-":
        speaker.line(found.card().rstrip("\n"))
    write_json(found.to_json(), json_path)


@store.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--full", is_flag=True, help="Read every byte; otherwise places and sizes alone.")
@json_option
def verify(path: Path, full: bool, json_path: str | None) -> None:
    """Compare a finished store with its records; exit code 1 where they differ.

    \b
    Example:
      nolb store verify data.zarr --full
    """
    speaker = Speaker(json_path)

    from cache import CorruptStoreError, verify_store

    problems = verify_store(path, full=full)
    for problem in problems:
        speaker.line(str(problem))
    shards = {problem.shard for problem in problems if problem.shard is not None}
    write_json(
        {
            "path": str(path),
            "full": full,
            "problems": [str(problem) for problem in problems],
            "damaged_shards": sorted(shard.name for shard in shards),
        },
        json_path,
    )
    if problems:
        raise CorruptStoreError(
            f"{path} is damaged ({len(problems)} problems, {len(shards)} shards): mend it with "
            f"nolb store repair {path} --checkpoint ... --train ... --test ..."
        )
    what = "every byte is as written" if full else "every shard is in its place (no byte was read)"
    speaker.line(f"{path}: {what}")


@store.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--checkpoint", type=PATH, help="The checkpoint of the extraction.")
@click.option("--train", metavar="SRC", help="Its training images.")
@click.option("--test", metavar="SRC|SHARE", help="Its test images.")
@click.option("--val", metavar="SRC|SHARE", help="Its validation images, where there were any.")
@reading_options()
@click.option("--model", default="auto", show_default=True, help="Its --model, where that is PACKAGE.MODULE:FACTORY, a function of your own; every other one is noted in the store.")  # fmt: skip  # noqa: E501
@json_option
def repair(
    path: Path,
    checkpoint: Path | None,
    train: str | None,
    test: str | None,
    val: str | None,
    model: str,
    json_path: str | None,
    reading: Reading,
) -> None:
    """Compute the damaged shards of a store again, and no others.

    The damaged store stays until the repaired one is complete. With checkpoint and images the
    repair is done at once, in the settings that the store has noted; without them it is prepared,
    and `nolb extract ... --resume` finishes it. A repair that was interrupted goes on with the same
    command.

    \b
    Example:
      nolb store repair data.zarr --checkpoint model.pth --train data/train --test data/test
    """
    by_model = checkpoint is not None or model != "auto"
    of_images = val is not None or by_model or any(reading.words())
    if (train is None) != (test is None) or (train is None and of_images):
        raise click.UsageError("A repair at once needs --train and --test, as the extraction did.")
    speaker = Speaker(json_path)

    from cache import reopen_store
    from pipeline.progress import ProgressReport, counting

    if _is_whole(path):
        speaker.line(f"{path}: every byte is as written; nothing to repair")
        write_json({"path": str(path), "kept": None, "computed": []}, json_path)
        return
    sources, plan = named_sources(train=train, test=test, val=val), None
    if sources:
        plan = _planned(path, checkpoint, reading.open(sources), model)  # before anything is begun
    with ProgressReport("verify", "shards") as progress:
        found = reopen_store(path, on_shard=counting(progress.update))
    speaker.line(f"{len(found.kept)} shards are whole, {len(found.lost)} are computed again")
    if plan is None:
        speaker.next(f"nolb extract ... --out {path} --resume")
    else:
        _complete(path, plan)
        speaker.line(f"{path}: repaired, every byte is as written")
    lost = [shard.name for shard in found.lost]
    write_json({"path": str(path), "kept": len(found.kept), "computed": lost}, json_path)


def _is_whole(path: Path) -> bool:
    """Whether there is nothing to repair."""
    from cache import StoreFormatError, verify_store

    try:
        return not verify_store(path)
    except StoreFormatError:  # the repair tells whether it was a store
        return False


def _planned(
    path: Path, checkpoint: Path | None, images: Mapping[str, ImageSource], model: str
) -> ExtractionPlan:
    """What computes the store's lost shards."""
    from pipeline.progress import ProgressReport
    from pipeline.stages.repair import plan_repair

    with ProgressReport("repair", "images") as progress:
        return plan_repair(path, checkpoint, images, model=model, on_progress=progress.update)


def _complete(path: Path, plan: ExtractionPlan) -> None:
    """Compute what a store lacks."""
    from pipeline.progress import ProgressReport
    from pipeline.stages.repair import complete_repair

    with ProgressReport("repair", "images") as progress:
        complete_repair(path, plan, on_progress=progress.update)


@store.command()
@click.argument("source", metavar="SRC", type=PATH)
@click.argument("target", metavar="DST", type=PATH)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    help="Type of features and views; not set: as it is.",
)
@click.option(
    "--shard-rows", type=click.IntRange(min=1), help="Rows of a shard; not set: as it is."
)
@resume_option("Go on with an interrupted conversion.")
@overwrite_option
@json_option
def convert(
    source: Path,
    target: Path,
    dtype: str | None,
    shard_rows: int | None,
    resume: bool,
    overwrite: bool,
    json_path: str | None,
) -> None:
    """Write a store in another format, type or size of shards.

    \b
    Example:
      nolb store convert data.zarr data.h5 --dtype float16
    """
    speaker = Speaker(json_path)

    from cache import convert_store, describe_store
    from pipeline.progress import ProgressReport, counting

    with ProgressReport("convert", "shards") as progress:
        convert_store(
            source,
            target,
            dtype=dtype,
            shard_rows=shard_rows,
            resume=resume,
            overwrite=overwrite,
            on_shard=counting(progress.update),
        ).close()
    speaker.wrote(target)
    if json_path is not None:
        write_json(describe_store(target).to_json(), json_path)
