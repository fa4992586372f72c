"""`nolb predict`: classes and probabilities of images."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from pipeline.cli.arguments import no_store
from pipeline.cli.options import PATH, file_option, overwrite_option, running_options
from pipeline.cli.output import Speaker
from pipeline.cli.temperatures import temperature_options
from pipeline.config import ExtractConfig, build_config
from pipeline.files import begins_like, whole_file
from pipeline.mixture import given_pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from pipeline.checkpoints import TrainedModel
    from pipeline.datasets import ShiftedViews
    from pipeline.heads import Head
    from pipeline.image_classifiers import ImageClassifier
    from pipeline.stages.predict import Prediction

COLUMNS = ("image", "rank", "class", "probability", "old_probability", "new_probability", "error")

HEADINGS = ("Image", "Class", "Probability")
"""Of the table; a column for each other head may follow."""

WHOLE = 10_000
"""Columns of a table in a file, where no terminal cuts it."""

_TEXT = r'"(?:[^"\\]|\\.)*"'
is_predictions = begins_like(
    ",".join(COLUMNS) + "\n",
    r"\s*" + r"\s+".join(HEADINGS) + r"\s",
    rf'{{"image": {_TEXT}, (?:"error": |"class": {_TEXT}, "probability": [^,]+, "old_class": )',
)
"""Whether a file holds earlier predictions, in any format, or nothing."""


@click.command()
@click.argument("head", metavar="HEAD|EXPORT", type=PATH, callback=no_store)
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("--checkpoint", type=PATH, help="The trained classifier that HEAD was fitted on; an EXPORT needs none, and neither does a HEAD of a --model with weights of its own.")  # fmt: skip  # noqa: E501
@temperature_options
@click.option("--test-views", type=int, help="Test views (test-time augmentation) per image: HEAD classifies the mean feature of the clean image and its V views, in 1 + V forward passes. 1 is the mirror image, 0 turns it off.  [default: as in HEAD's store; 0 for a head balanced on clean images]")  # fmt: skip  # noqa: E501
@click.option("--test-view-shift", type=int, help="Pixels by which test views move.  [default: as in HEAD's store, else 2]")  # fmt: skip  # noqa: E501
@click.option("--view-fill", type=click.Choice(("mean", "black")), help="Colour of the padding around a moved image.  [default: as in HEAD's store, else mean]")  # fmt: skip  # noqa: E501
@click.option("--view-flip/--no-view-flip", default=None, help="Every other test view is mirrored.  [default: as in HEAD's store, else yes]")  # fmt: skip  # noqa: E501
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Most probable classes per image in CSV and JSON lines.")  # fmt: skip  # noqa: E501
@click.option("--format", "format_name", type=click.Choice(("table", "csv", "jsonl")), default="table", show_default=True, help="A table for people; CSV or JSON lines for programs.")  # fmt: skip  # noqa: E501
@file_option("--out", "File for the predictions.  [default: standard output]", is_predictions)
@overwrite_option
@running_options()
@click.option("--model", default="auto", show_default=True, help="Checkpoint family, if it cannot be detected from the file; PACKAGE.MODULE:FACTORY for a network of your own.")  # fmt: skip  # noqa: E501
def predict(
    head: Path,
    images: tuple[Path, ...],
    checkpoint: Path | None,
    t_old: float | None,
    t_new: float | None,
    top: int,
    format_name: str,
    out: Path | None,
    overwrite: bool,
    device: str | None,
    workers: int | None,
    model: str,
    **views: Any,
) -> None:
    """Classify images and folders of images.

    HEAD is a file of `nolb fit-head` and needs the --checkpoint that was extracted, unless that
    was a --model with weights of its own; EXPORT is a file of `nolb export` (.safetensors, .pt2,
    .onnx). Unreadable images are reported and left out.

    As in `nolb evaluate`, HEAD classifies alone, unless a temperature asks for the ensemble of the
    old head and HEAD. The old head's probabilities are shown beside it where it is known.

    A HEAD of a store with test views is scored with them, so it predicts with them too, and says
    so on standard error; --test-views 0 is quicker. One that `nolb balance-head` balanced on clean
    images predicts on the clean image alone, and so does an EXPORT.

    \b
    Examples:
      nolb predict head.safetensors photos/ --checkpoint model.pth
      nolb predict head.safetensors photos/ --checkpoint model.pth --t-old 2 --t-new 1
      nolb predict model.onnx photo.jpg --format jsonl
    """
    if overwrite and out is None:
        raise click.UsageError("--overwrite replaces what is at --out: give that too.")
    temperatures = given_pair(t_old, t_new)
    running = build_config(ExtractConfig, device=device, workers=workers)

    from pipeline.image_classifiers import find_images

    given = (t_old, t_new, *views.values())
    fixed = any(value is not None for value in given)
    found = find_images(images)
    speaker = Speaker(stderr=True)  # standard output carries the predictions
    opened = _open(
        head, checkpoint, temperatures, views, speaker, fixed=fixed, model=model,
        device=running.device,
    )  # fmt: skip
    with _destination(out, overwrite=overwrite) as file:
        failed = _predict(opened, found, top, running.workers, format_name, file, speaker)
        if failed:
            speaker.warn(f"{failed} of {len(found)} images could not be used.")
        if failed == len(found):  # and no empty file takes the place
            click.get_current_context().exit(1)
    if out is not None:
        speaker.wrote(out)


@contextmanager
def _destination(out: Path | None, *, overwrite: bool) -> Iterator[TextIO]:
    """Where the predictions go: standard output, or a file that is there once it is complete."""
    if out is None:
        yield sys.stdout
        return
    with (
        whole_file(out, overwrite=overwrite, replaceable=is_predictions) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file


def _predict(
    classifier: ImageClassifier,
    images: Sequence[str],
    top: int,
    workers: int,
    format_name: str,
    file: TextIO,
    speaker: Speaker,
) -> int:
    """Predict and write; the number of images that could not be used, each of which is reported."""
    from rich.console import Console

    from pipeline.progress import ProgressReport
    from pipeline.stages.predict import predict

    failed = 0
    shown: list[Prediction] = []
    # Rows that come one after the other on a terminal show how far it is.
    seen = file is sys.stdout and file.isatty() and format_name != "table"
    with ProgressReport("predict", "images", after=1.0) as progress:
        on_progress = None if seen else progress.update
        predictions = predict(classifier, images, top, workers=workers, on_progress=on_progress)
        if format_name != "table":
            predictions = _written(predictions, format_name, file)
        for prediction in predictions:
            if prediction.error is not None:
                failed += 1
                speaker.warn(f"{prediction.image}: {prediction.error}")
            elif format_name == "table":
                shown.append(prediction)
    if shown:
        width = None if file is sys.stdout else WHOLE
        Console(file=file, highlight=False, width=width).print(_table(shown))
    return failed


def _open(
    head: Path,
    checkpoint: Path | None,
    temperatures: tuple[float, float] | None,
    views: Mapping[str, Any],
    speaker: Speaker,
    *,
    fixed: bool,
    model: str,
    device: str,
) -> ImageClassifier:
    """A head with its trained model, or an exported file."""
    from pipeline.errors import ExportError, HeadError
    from pipeline.exporting import open_export
    from pipeline.heads import load_head
    from pipeline.image_classifiers import classifier_of_export, classifier_of_head

    try:
        if head.suffix not in {".safetensors", ""}:
            raise HeadError(f"{head} is no head.")
        loaded = load_head(head)
    except HeadError:
        if head.suffix == "" or not head.is_file():
            raise
        if fixed:
            raise ExportError(
                f"{head} is an exported classifier, whose heads and temperatures are fixed and "
                "which sees the clean image alone: leave --t-old, --t-new and the options of test "
                "views out, or give a head and its --checkpoint."
            ) from None
        trained = _trained_model(checkpoint, model)
        return classifier_of_export(open_export(head, trained, device=device))
    chosen = _chosen_views(loaded, views, speaker)
    return classifier_of_head(
        loaded, checkpoint, temperatures, model=model, views=chosen, device=device
    )


def _trained_model(checkpoint: Path | None, model: str) -> TrainedModel | None:
    """The model that options name beside an exported file, which needs it in rare cases."""
    if checkpoint is not None:
        from pipeline.checkpoints import load_checkpoint

        return load_checkpoint(checkpoint, model=model)
    if model == "auto":
        return None
    from pipeline.pretrained import load_pretrained

    return load_pretrained(model)


def _chosen_views(head: Head, given: Mapping[str, Any], speaker: Speaker) -> ShiftedViews:
    """The test views that suit the head, or those of options; a note says where that matters."""
    from pipeline.datasets import ShiftedViews
    from pipeline.extracting.identities import views_of_identity
    from pipeline.image_classifiers import views_of_head

    stored, suiting = views_of_identity(head.identity), views_of_head(head)
    where_not_given = {
        "test_views": suiting.count,
        "test_view_shift": stored.shift,
        "view_fill": stored.fill,
        "view_flip": stored.flip,
    }
    chosen = ShiftedViews.of(build_config(ExtractConfig, where_not_given, **given))
    note = None
    if chosen != suiting:
        balanced = head.provenance.balanced_for is not None
        made = "head was balanced" if balanced else "head's store is scored"
        note = (
            f"Predicting with {_described(chosen)}, where the {made} with {_described(suiting)}; "
            "leave the options of test views out to predict with those."
        )
    elif chosen.count and given["test_views"] is None:
        n = 1 + chosen.count
        note = (
            f"Each image is classified by the mean feature of {n} views, as the head's store is "
            f"scored ({chosen.describe()}); that takes up to {n} times as long as the clean image "
            "alone, --test-views 0."
        )
    elif stored.count and given["test_views"] is None:
        note = (
            "The clean image alone is classified, as the head was balanced for it, without the "
            f"{stored.describe()} of the head's store."
        )
    if note is not None:
        speaker.note(note)
    return chosen


def _described(views: ShiftedViews) -> str:
    """Which views there are."""
    return views.describe() or "no test views"


def _written(
    predictions: Iterator[Prediction], format_name: str, file: TextIO
) -> Iterator[Prediction]:
    """Write each prediction as CSV or a JSON line, then pass it on."""
    from pipeline.writing import csv_text

    if format_name == "csv":
        file.write(csv_text([COLUMNS]))
    for prediction in predictions:
        if format_name == "jsonl":
            line = json.dumps(prediction.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
        else:
            line = csv_text(_rows(prediction))
        file.write(line)
        yield prediction


def _rows(prediction: Prediction) -> Iterator[tuple[Any, ...]]:
    """A row for each candidate, or one for an unreadable image."""
    if prediction.error is not None:
        yield (prediction.image, "", "", "", "", "", prediction.error)
    for rank, each in enumerate(prediction.candidates, start=1):
        numbers = ("" if p is None else f"{p:.6g}" for p in (each.probability, each.old, each.new))
        yield (prediction.image, rank, each.class_name, *numbers, "")


class _Path:
    """A path in a table: on one line, shortened in its middle where there is no room for it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        """From a few characters on, up to all of them."""
        from rich.cells import cell_len
        from rich.measure import Measurement

        width = min(options.max_width, cell_len(self._path))
        return Measurement(min(width, len(HEADINGS[0])), width)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The beginning, which tells folders apart, and twice as much of the end, for images."""
        from rich.cells import cell_len, set_cell_size  # a letter may be two columns wide
        from rich.text import Text

        path, room = self._path, options.max_width
        if cell_len(path) > room:
            end = 2 * (room - 1) // 3
            begins, ends = set_cell_size(path, room - 1 - end), set_cell_size(path[::-1], end)
            path = f"{begins.rstrip()}…{ends[::-1].lstrip()}"
        yield Text(path, no_wrap=True, overflow="ellipsis")


def _table(predictions: Sequence[Prediction]) -> Table:
    """The most probable class of each image, beside what each other head says of it.

    A head that classifies alone has no column of its own, nor has one that the file does not hold.
    """
    from rich.text import Text

    from pipeline.writing import terminal_table

    best = [prediction.candidates[0] for prediction in predictions]
    old = any(each.old is not None for each in best)
    new = any(each.new not in (None, each.probability) for each in best)
    table = terminal_table()
    if old or new:
        table.caption = Text(
            "Of each head: its probability of the class, and in brackets its own choice if another."
        )
    for heading in (*HEADINGS, *["Old head"] * old, *["New head"] * new):
        number = heading == "Probability"
        table.add_column(heading, justify="right" if number else "left", no_wrap=number)
    for prediction, each in zip(predictions, best, strict=True):
        heads = [(each.old, prediction.old_class)] * old + [(each.new, prediction.new_class)] * new
        said = [_said(p, name, each.class_name) for p, name in heads]
        # Text, because a class may be called [red] and rich would paint it.
        texts = [
            Text(text, no_wrap=True, overflow="ellipsis")
            for text in (each.class_name, f"{each.probability:.3f}", *said)
        ]
        table.add_row(_Path(prediction.image), *texts)
    return table


def _said(probability: float | None, name: str | None, predicted: str) -> str:
    """A head's probability of the class, and the class that it would have predicted itself."""
    if probability is None:
        return "-"
    return f"{probability:.3f}" + (f" ({name})" if name != predicted else "")
