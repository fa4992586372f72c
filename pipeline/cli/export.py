"""`nolb export`: the re-trained classifier as a file that others can run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.arguments import no_head, no_store
from pipeline.cli.options import PATH, json_option, overwrite_option, running_options
from pipeline.cli.output import Speaker, write_json
from pipeline.cli.temperatures import temperature_options
from pipeline.config import ExtractConfig, build_config
from pipeline.export_formats import CHECKPOINT, FORMATS, ONE_HEAD
from pipeline.mixture import given_pair

if TYPE_CHECKING:
    from pipeline.exporting import Agreement
    from pipeline.stages.export import Export


@click.command()
@click.argument("store", type=PATH, callback=no_head)
@click.argument("head", type=PATH, callback=no_store)
@click.option("--checkpoint", type=PATH, help="The trained classifier's file, as extracted; not needed for a --model with weights of its own.")  # fmt: skip  # noqa: E501
@click.option("--out", type=PATH, required=True, help="File to write, or a folder for it.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    required=True,
    help="safetensors: weights. torch-export and onnx: programs that need no nolb. checkpoint: a "
    "copy of your file with the new head in the old one's place.",
)
@temperature_options
@click.option("--normalize", type=click.Choice(("inside", "outside")), default="inside", show_default=True, help="inside: the input is RGB in 0..1. outside: the caller normalises it.")  # fmt: skip  # noqa: E501
@click.option("--size", type=click.IntRange(min=1), help="Side of the images in pixels, where neither a centre crop nor --images says it.")  # fmt: skip  # noqa: E501
@click.option("--images", metavar="SRC", help="Where the test images are: run the written file on them and compare with the store.")  # fmt: skip  # noqa: E501
@click.option("--check", metavar="N|all", default="256", show_default=True, help="How many of the --images to compare.")  # fmt: skip  # noqa: E501
@click.option("--model", default="auto", show_default=True, help="Checkpoint family, if it cannot be detected from the file; PACKAGE.MODULE:FACTORY for a network of your own.")  # fmt: skip  # noqa: E501
@running_options("--images")
@overwrite_option
@json_option
def export(
    store: Path,
    head: Path,
    checkpoint: Path | None,
    out: Path,
    format_name: str,
    t_old: float | None,
    t_new: float | None,
    normalize: str,
    size: int | None,
    images: str | None,
    check: str,
    model: str,
    device: str | None,
    workers: int | None,
    overwrite: bool,
    json_path: str | None,
) -> None:
    """Write the backbone with HEAD, or the ensemble, as one drop-in classifier.

    As in `nolb evaluate`, HEAD classifies alone, unless a temperature asks for the ensemble of the
    old head and HEAD. The output of an ensemble are log-probabilities: they can stand wherever
    logits do, and their softmax is the mean of both heads' probabilities.

    A store of `extract --model NAME` without a checkpoint records the model, which is then built
    again and needs no --checkpoint.

    \b
    Examples:
      nolb export data.zarr head.safetensors --checkpoint model.pth --format onnx --out model.onnx --images data/test --check all
      nolb export data.zarr head.safetensors --checkpoint model.pth --format checkpoint --out repaired.pth
    """  # noqa: E501  commands are left whole, so that they can be copied
    temperatures = given_pair(t_old, t_new)
    if temperatures is not None and format_name == CHECKPOINT:
        raise click.UsageError(ONE_HEAD)
    n_checked = _number(check)
    running = build_config(ExtractConfig, device=device, workers=workers)
    speaker = Speaker(json_path)

    from cache import open_store
    from pipeline.heads import load_head
    from pipeline.progress import ProgressReport
    from pipeline.provenance import what_is_classified
    from pipeline.stages.export import export

    new_head = load_head(head)
    report = ProgressReport("export, checking", "images", after=1.0)
    with open_store(store) as opened, report as progress:
        result = export(
            opened, new_head, checkpoint, out, format=format_name, temperatures=temperatures,
            normalization="inside" if normalize == "inside" else "outside", side=size,
            images=images, n_checked=n_checked, model=model,
            device=running.device, workers=running.workers, overwrite=overwrite,
            on_progress=progress.update,
        )  # fmt: skip
    _tell(result, speaker)
    balanced_for = new_head.provenance.balanced_for
    if balanced_for:
        speaker.note(
            f"The head was balanced for {what_is_classified(balanced_for)}, and this file sees "
            "each image alone: nolb balance-head --no-test-views balances one for that."
        )
    speaker.wrote(result.path)
    write_json(result.to_json(), json_path)
    if result.agreement is not None and result.agreement.n_different:
        click.get_current_context().exit(1)


def _number(check: str) -> int | None:
    """A number of images, None for all."""
    if check == "all":
        return None
    if not check.isdigit() or int(check) < 1:
        raise click.UsageError(f"--check must be a number of images or `all`, not {check!r}.")
    return int(check)


def _tell(result: Export, speaker: Speaker) -> None:
    """What the file takes and gives, and how it was checked."""
    if result.description is None:
        speaker.tell("new head in", ", ".join(result.replaced))
        speaker.tell("all else", "as it was in your checkpoint")
    else:
        speaker.tell("input", result.description.input_text())
        speaker.tell("output", result.description.output_text())
    agreement: Agreement | None = result.agreement
    if agreement is not None:
        left_out = f" ({agreement.n_unreadable} unreadable)" if agreement.n_unreadable else ""
        same = agreement.n_images - agreement.n_different
        speaker.tell(
            "check",
            f"{same:,} of {agreement.n_images:,} test images{left_out} are classified as by the "
            "store's logits",
        )
    if result.views_left_out:
        speaker.note(
            "It sees each image alone: its scores are those of nolb evaluate --no-test-views, not "
            f"of the mean of {1 + result.views_left_out} views."
        )
