"""`nolb extract`: from a checkpoint and images to a store."""

from __future__ import annotations

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
from pipeline.config import ExtractConfig
from pipeline.config.unused import refuse_unused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cache import Store
    from pipeline.checkpoints import TrainedModel
    from pipeline.datasets import ImageSource
    from pipeline.stages.extract import Extraction
    from pipeline.team import Team


@click.command()
@click.option("--checkpoint", type=PATH, help="The trained classifier's file; not needed where --model names a model with weights of its own.")  # fmt: skip  # noqa: E501
@click.option(
    "--train",
    metavar="SRC",
    required=True,
    help="Training images: a folder of class folders; a list file of `path label` lines; a .csv or "
    ".parquet table; .tar shards; an .npz or COCO .json file; or a named data set: "
    "digits-lt:train, cifar100-lt:train[,imbalance=100,type=exp,seed=0,download=yes], "
    "hf:NAME:SPLIT.",
)
@click.option("--test", metavar="SRC|SHARE", required=True, help="Test images, likewise; or a share such as 0.2, which is taken out of every class of --train.")  # fmt: skip  # noqa: E501
@click.option("--val", metavar="SRC|SHARE", help="Validation images, likewise; temperatures are chosen on them.")  # fmt: skip  # noqa: E501
@reading_options()
@click.option("--out", type=PATH, required=True, help="Store to create, NAME.zarr or NAME.h5.")
@click.option("--save-model", type=PATH, help="Write the model as it ran, with its --recalibrate-bn statistics, to a file that predict and export take as --checkpoint.")  # fmt: skip  # noqa: E501
@resume_option("Go on with an unfinished store; begin where none is.")
@overwrite_option
@settings_options("extract")
@json_option
def extract(
    checkpoint: Path | None,
    train: str,
    test: str,
    val: str | None,
    out: Path,
    save_model: Path | None,
    resume: bool,
    overwrite: bool,
    recipe: str | None,
    json_path: str | None,
    reading: Reading,
    **given: Any,
) -> None:
    """Run a frozen classifier once over its images; cache features and old logits.

    Ends with the old head's scores on the test images: numbers far below those that you know mean
    wrong preprocessing (--mean, --std, --resize, --crop), not a bad model.

    \b
    Example:
      nolb extract --checkpoint model.pth --train data/train --test data/test --out data.zarr

    Several processes, on one machine or more, share an extraction under torchrun:
    torchrun --nproc-per-node 4 -m pipeline extract ...
    """
    config = settings_from("extract", ExtractConfig, recipe, given)
    refuse_unused([config], named_by_hand(given))
    _require_names(checkpoint, config, out)
    if save_model is not None:
        _require_place(save_model, checkpoint, out, resume=resume, overwrite=overwrite)
    speaker = Speaker(json_path)

    from pipeline.extracting.plan import prepare_model
    from pipeline.team import Team

    team = Team.from_environment()
    speaker.quiet = not team.leads  # one of several processes speaks
    model = prepare_model(checkpoint, config)
    if save_model is not None:
        _require_savable(model)
    _tell_model(model, speaker)
    images = reading.open(named_sources(train=train, test=test, val=val))
    result = _run(model, images, out, config, team, speaker, resume=resume, overwrite=overwrite)
    if team.leads:
        _tell_result(result, speaker)
        _save_model(result, save_model, config, speaker)
        write_json(result.to_json() | _old_scores(result.store, out, speaker), json_path)


def _run(
    model: TrainedModel,
    images: Mapping[str, ImageSource],
    out: Path,
    config: ExtractConfig,
    team: Team,
    speaker: Speaker,
    *,
    resume: bool,
    overwrite: bool,
) -> Extraction:
    """Plan the extraction and do it, each with its progress; the leading process tells it."""
    from pipeline.extracting.plan import plan_extraction
    from pipeline.progress import ProgressReport
    from pipeline.stages.extract import complete_extraction

    with ProgressReport("extract", "images") as progress:
        on_progress = progress.update if team.leads else None
        plan = plan_extraction(model, images, config, on_progress=on_progress, team=team)
    for note in plan.model.notes[len(model.notes) :]:
        speaker.note(note)
    with ProgressReport("extract", "images") as progress:
        on_progress = progress.update if team.leads else None
        return complete_extraction(
            plan, out, resume=resume, overwrite=overwrite, on_progress=on_progress, team=team
        )


def _require_names(checkpoint: Path | None, config: ExtractConfig, out: Path) -> None:
    """Refuse a store that would not last, and an extraction by no model."""
    if out.suffix == ".memory":
        raise click.UsageError(
            f"{out} would be gone when the command ends: name a store .zarr or .h5."
        )
    if checkpoint is None and config.model == "auto":
        raise click.UsageError("Give --checkpoint FILE, or --model NAME of a model with weights.")


def _require_place(
    path: Path, checkpoint: Path | None, out: Path, *, resume: bool, overwrite: bool
) -> None:
    """Refuse a place for the model where something else is, or will be."""
    from pipeline.checkpoints.own import is_of_extract
    from pipeline.files import refuse_existing
    from pipeline.training.saving import is_ours

    for option, other in (("--checkpoint", checkpoint), ("--out", out)):
        if other is not None and path.resolve() == other.resolve():
            raise click.UsageError(f"--save-model and {option} are one file: give another name.")
    # Of its own earlier run --resume finds the same model there; a training it never replaces.
    replaceable = is_ours if overwrite else is_of_extract
    refuse_existing(path, overwrite=resume or overwrite, replaceable=replaceable)


def _require_savable(model: TrainedModel) -> None:
    """Refuse a model that no file of ours can hold, before the work."""
    from pipeline.checkpoints.own import content_of

    content_of(model, model.class_names)


def _save_model(
    result: Extraction, path: Path | None, config: ExtractConfig, speaker: Speaker
) -> None:
    """Write the model if that is wanted; say so, or how to have it."""
    from pipeline.checkpoints.own import content_of, write_file

    model = result.model
    if path is not None:
        names = model.class_names if config.features_only else result.store.class_names
        write_file(path, content_of(model, names))
        speaker.wrote(f"{path}: give it to predict and export as --checkpoint")
    elif config.recalibrate_bn:
        speaker.note(
            "No file holds these BatchNorm statistics, which predict and export need: --resume "
            "--save-model FILE writes one."
        )


def _tell_model(model: TrainedModel, speaker: Speaker) -> None:
    """What will run over the images."""
    speaker.tell("model", f"{model.family}, {model.backbone}, {model.n_classes} classes")
    speaker.tell("preprocessing", model.preprocessing.describe())
    for note in (*model.notes, *([] if model.rule is None else [model.rule.need])):
        speaker.note(note)


def _old_scores(store: Store, out: Path, speaker: Speaker) -> dict[str, Any]:
    """Print the old head's scores and the next command; the scores as JSON values.

    Those of the clean images come first: they are what the model is known by.
    """
    from pipeline.old_head import has_old_head
    from pipeline.seen_views import averaged_views
    from pipeline.stages.evaluate import evaluate
    from pipeline.tables import scores_table

    if not has_old_head(store):
        speaker.note("The store holds features and no old head; these two make one.")
        speaker.next(f"nolb fit-head {out} --loss cross-entropy --out old.safetensors")
        speaker.next(f"nolb adopt-head {out} old.safetensors --out {out.stem}-old{out.suffix}")
        return {}
    clean = evaluate(store, test_views=False)
    shown, found = {"old": clean}, {"old": clean.to_json()}
    if averaged_views(store, "test"):
        shown["old, test views"] = averaged = evaluate(store)
        found["old_test_views"] = averaged.to_json()
    speaker.show(scores_table(shown))
    head = out.with_suffix(".safetensors")
    if head.exists():  # it may be the checkpoint
        head = out.with_name(f"{out.stem}-head.safetensors")
    speaker.next(f"nolb fit-head {out} --out {head}")
    return found


def _tell_result(result: Extraction, speaker: Speaker) -> None:
    """What was done, what could not be, and where it is."""
    store = result.store
    if result.computed:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result.shares.items())
        speaker.tell(
            "extracted",
            f"{result.computed:,} images in {result.seconds:.1f} s, "
            f"{result.computed / result.seconds:,.0f} images/s ({shares})",
        )
    else:
        speaker.tell("extracted", "nothing, the store is complete already")
    for split, failed in result.failed.items():
        if failed:
            row, reason = next(iter(failed.items()))
            speaker.warn(
                f"{len(failed)} of {store[split].n_samples:,} images of {split} cannot be read "
                f"and are left out, first {store[split].ids[row]} ({reason})"
            )
