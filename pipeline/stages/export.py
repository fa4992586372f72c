"""The stage `export`: the re-trained classifier as a file that others can run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cache import Split, Store
from pipeline.checkpoints import TrainedModel
from pipeline.ensemble import averaged_views, predict_split
from pipeline.errors import ExportError, OutputExistsError, UnreadableImageError
from pipeline.exporting import (
    FORMATS,
    Description,
    Exported,
    as_input,
    build_classifier,
    image_side,
    model_of_identity,
    open_export,
    patch_checkpoint,
    write_export,
)
from pipeline.heads import Head, require_same_identity
from pipeline.lookup import ImageLookup
from pipeline.versions import versions

CHECKPOINT = "checkpoint"
"""The format that is the user's own."""

WEIGHTS = "safetensors"
"""The format that is no program, so that its images may be of any side."""

BATCH = 256
"""Images that are checked at once."""


@dataclass(frozen=True)
class Agreement:
    """How an exported file's predictions compare with those that the store gives."""

    n_images: int
    """Test images that were run through the file."""

    n_different: int
    """Images of which the file predicts another class."""

    n_unreadable: int
    """Images that were left out because they could not be read."""


@dataclass(frozen=True)
class Export:
    """What was written."""

    path: Path
    """The file."""

    format: str
    """Its format."""

    description: Description | None
    """What it is; None for a patched checkpoint, which says nothing of its own."""

    replaced: tuple[str, ...]
    """Tensors of a patched checkpoint that hold the new head."""

    agreement: Agreement | None
    """Its predictions on real images; None where no images were given."""

    views_left_out: int = 0
    """Test views of each test image in the store; the file classifies the clean image alone."""

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        described, agreement = self.description, self.agreement
        return {
            "path": str(self.path),
            "format": self.format,
            "classifier": "new" if described is None else described.classifier,
            "temperatures": described and described.temperatures and list(described.temperatures),
            "input": described and described.input_text(),
            "output": described and described.output_text(),
            "replaced": list(self.replaced),
            "checked": agreement and vars(agreement),
            "views_left_out": self.views_left_out,
        }


def export(
    store: Store,
    head: Head,
    checkpoint: Path | str,
    out: Path | str,
    *,
    format: str,  # noqa: A002  what the option is called
    temperatures: tuple[float, float] | None = (1.0, 1.0),
    normalization: Literal["inside", "outside"] = "inside",
    side: int | None = None,
    images: str | Path | None = None,
    n_checked: int | None = BATCH,
    model: str = "auto",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Export:
    """Write the ensemble, or the new head alone, as one classifier in place of the old one.

    The file classifies one image as it is. Where the store has test views, its scores are those of
    `evaluate` with `test_views=False`; `predict` averages views.

    Args:
        store: the extraction of the checkpoint.
        head: the re-trained head of that store.
        checkpoint: the trained classifier's file.
        out: file to write if it has the format's suffix, else a folder for it.
        format: `safetensors`, `torch-export`, `onnx`, or `checkpoint` for a copy of the user's own
            file with the new head in the old classifier's place.
        temperatures: (t_old, t_new) of the ensemble; None for the new head alone, which is all
            that a patched checkpoint can hold.
        normalization: whether the file normalises its images or its caller does.
        side: of the images in pixels, where neither the preprocessing nor the images say it.
        images: where the images of the test split are; the written file is then run on them, and
            its predictions are compared with those that the store gives.
        n_checked: how many of them; None for all.
        model: checkpoint family, as in `load_checkpoint`.
        overwrite: replace what stands at `out`.
        on_progress: called with images checked and their number.

    Raises:
        ExportError: if checkpoint, store and head do not belong together, or the format cannot
            hold them.
        CheckpointError: if the checkpoint does not load.
        HeadError: if the head belongs to another store.
        OutputExistsError: if the file exists and is not to be replaced.
    """
    require_same_identity(head, store)
    trained = model_of_identity(checkpoint, store.identity, head.class_counts, model=model)
    if format == CHECKPOINT:
        temperatures = None
    path = _target(Path(out), format, temperatures, Path(checkpoint))
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists: name another file, or replace it by --overwrite.")
    lookup = None if images is None else ImageLookup(images)
    left_out = averaged_views(store, "test") if "test" in store else 0
    with _appearing(path) as unfinished:
        if format == CHECKPOINT:
            replaced = patch_checkpoint(trained, head, unfinished)
            return Export(path, format, None, replaced, None, left_out)
        side = _side(format, store, trained, lookup, side)
        description = _describe(store, head, trained, temperatures, normalization, side)
        write_export(format, build_classifier(trained, head, temperatures), description, unfinished)
        exported, agreement = open_export(unfinished, trained), None
        if lookup is not None:
            wanted, _ = predict_split(store, "test", head, temperatures, test_views=False)
            agreement = _agreement(exported, store["test"], wanted, lookup, n_checked, on_progress)
    return Export(path, format, description, (), agreement, left_out)


def _side(
    format: str,  # noqa: A002  as above
    store: Store,
    model: TrainedModel,
    lookup: ImageLookup | None,
    given: int | None,
) -> int | None:
    """Side of the images that the file takes; None where it holds weights and nothing says it."""
    seen = None if lookup is None else _side_of_images(store["test"], lookup, model)
    if format == WEIGHTS and seen is None and given is None:
        return None
    return image_side(model.preprocessing, given, seen)


def _describe(
    store: Store,
    head: Head,
    model: TrainedModel,
    temperatures: tuple[float, float] | None,
    normalization: Literal["inside", "outside"],
    side: int | None,
) -> Description:
    """What the file says about itself."""
    return Description(
        classifier="new" if temperatures is None else "ensemble",
        temperatures=temperatures,
        normalization=normalization,
        side=side,
        preprocessing=model.preprocessing,
        class_names=store.class_names,
        model=store.identity.model,
        backbone=model.backbone,
        classifier_name=model.classifier_name,
        cosine_scale=model.classifier.scale if model.classifier.normalized else None,
        origin={
            "identity": store.identity.to_json(),
            "head": dict(head.config),
            "class_counts": list(head.class_counts),
            "versions": versions(),
        },
        normalized=head.normalized,
    )


def _target(
    out: Path,
    format: str,  # noqa: A002  as above
    temperatures: tuple[float, float] | None,
    checkpoint: Path,
) -> Path:
    """The file to write."""
    suffix = checkpoint.suffix if format == CHECKPOINT else FORMATS[format].suffix
    if out.suffix == suffix and not out.is_dir():
        return out
    if format == CHECKPOINT:
        if out.suffix and not out.is_dir():
            return out  # people rename .checkpoint to .pth, and torch does not mind
        name = f"{checkpoint.stem}-new-head{suffix}"
    else:
        name = ("ensemble" if temperatures is not None else "new-head") + suffix
    if out.suffix and not out.is_dir():
        raise ExportError(f"{out} should end in {suffix} for the format {format}, or be a folder.")
    return out / name


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A file to write that takes its place at `path` when the block ends well, and goes if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)


def _side_of_images(split: Split, lookup: ImageLookup, model: TrainedModel) -> int:
    """Side of the first readable test image after its preprocessing."""
    reason = ""
    for row in range(min(BATCH, split.n_samples)):
        try:
            pixels = model.preprocessing.to_uint8(lookup.read(split.ids[row]))
        except UnreadableImageError as error:
            reason = reason or str(error)
            continue
        height, width = pixels.shape[:2]
        if height != width:
            raise ExportError(
                f"The test images are {width} x {height}, not square: an exported program takes "
                "square images; extract with --crop."
            )
        return int(height)
    raise ExportError(
        f"None of the first test images can be read at {lookup.name} ({reason}): give the folder "
        "that the ids of the test split are relative to."
    )


def _agreement(
    exported: Exported,
    split: Split,
    wanted: NDArray[np.intp],
    lookup: ImageLookup,
    n_checked: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> Agreement:
    """Run the file on images of the split and compare with the store's predictions.

    A subset is spread evenly over the split, which is usually sorted by class.

    Args:
        exported: the file.
        split: the test split.
        wanted: (N,) class of each usable row, as the store gives it.
        lookup: where the images are.
        n_checked: how many of them; None for all.
        on_progress: called with images checked and their number.
    """
    usable = np.flatnonzero(split.usable)
    n = len(usable) if n_checked is None else min(n_checked, len(usable))
    picked = np.linspace(0, len(usable) - 1, n).round().astype(np.int64)
    different = unreadable = 0
    for start in range(0, n, BATCH):
        part = picked[start : start + BATCH]
        read = list(_read(exported, lookup, [split.ids[row] for row in usable[part]]))
        inputs = [pixels for pixels in read if pixels is not None]
        unreadable += len(read) - len(inputs)
        if inputs:
            found = exported.run(np.stack(inputs)).argmax(axis=1)
            readable = [pixels is not None for pixels in read]
            different += int((found != wanted[part][readable]).sum())
        if on_progress is not None:
            on_progress(min(start + BATCH, n), n)
    return Agreement(n - unreadable, different, unreadable)


def _read(
    exported: Exported, lookup: ImageLookup, ids: list[str]
) -> Iterator[NDArray[np.float32] | None]:
    """(3, S, S) of each image as the file takes it; None for an unreadable one."""
    for each in ids:
        try:
            yield as_input(lookup.read(each), exported.description)
        except UnreadableImageError:
            yield None
