"""The stage `export`: the re-trained classifier as a file that others can run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cache import Store
from pipeline.checkpoints import TrainedModel
from pipeline.errors import ConfigError, ExportError, OutputExistsError
from pipeline.export_formats import CHECKPOINT, ONE_HEAD, SUFFIXES, WEIGHTS
from pipeline.exporting import (
    BATCH,
    Agreement,
    Description,
    Exported,
    build_classifier,
    compare_with_store,
    image_side,
    model_of_identity,
    open_export,
    patch_checkpoint,
    side_of_images,
    write_export,
)
from pipeline.extracting.identities import record_of_identity
from pipeline.files import refuse_existing, refuse_existing_in, whole_file, whole_files
from pipeline.heads import Head, is_head, require_same_identity
from pipeline.lookup import ImageLookup
from pipeline.mixture import Mixture
from pipeline.old_head import has_adopted_head, has_old_head, is_stand_in
from pipeline.progress import OnProgress
from pipeline.seen_views import averaged_views
from pipeline.versions import versions


@dataclass(frozen=True)
class Export:
    """What was written."""

    path: Path
    """The file."""

    format: str
    """Its format."""

    description: Description | None
    """Of the file; None for a patched checkpoint, which has none."""

    replaced: tuple[str, ...]
    """Tensors of a patched checkpoint that hold the new head."""

    agreement: Agreement | None
    """Its predictions on real images; None where no images were given."""

    views_left_out: int = 0
    """Test views of each test image with which the store's scores of the head are made; the file
    classifies the clean image alone."""

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
    checkpoint: Path | str | None,
    out: Path | str,
    *,
    format: str,  # noqa: A002  what the option is called
    temperatures: tuple[float, float] | None = None,
    normalization: Literal["inside", "outside"] = "inside",
    side: int | None = None,
    images: str | Path | None = None,
    n_checked: int | None = BATCH,
    model: str = "auto",
    device: str = "auto",
    workers: int = -1,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Export:
    """Write the new head, or the ensemble, as one classifier in place of the old one.

    The file classifies one image as it is, as `evaluate` does with `test_views=False`; where the
    store has test views, `evaluate` and `predict` average them unless the head was balanced on the
    clean image alone.

    Args:
        store: the extraction of the model.
        head: the re-trained head of that store.
        checkpoint: the trained classifier's file; None for a model with weights of its own, as
            `extract` took it without a file.
        out: file to write if it has the format's suffix, else a folder for it.
        format: `safetensors`, `torch-export`, `onnx`, or `checkpoint` for a copy of the user's own
            file with the new head in the old classifier's place.
        temperatures: (t_old, t_new) of the ensemble; None for the new head alone, which is what
            `evaluate` scores without temperatures, and all that a patched checkpoint can hold.
        normalization: whether the file normalises its images or its caller does.
        side: of the images in pixels, where neither the preprocessing nor the images say it.
        images: where the images of the test split are; the written file is then run on them, and
            its predictions are compared with those that the store gives.
        n_checked: how many of them; None for all.
        model: checkpoint family, or the name of that model, as in `model_of_identity`.
        device: where the file is run on them, as `ExtractConfig.device`.
        workers: processes that read them, as `ExtractConfig.workers`.
        overwrite: replace what stands at `out`.
        on_progress: called with a snapshot, in images, while they are checked.

    Raises:
        ExportError: if checkpoint, store and head do not belong together, or the format cannot
            hold them.
        CheckpointError: if the checkpoint does not load.
        ConfigError: if there is none where one is needed, the named model cannot be built, or
            there is no such device.
        EvaluationError: if a temperature is not above 0.
        HeadError: if the head belongs to another store.
        OutputError: if the file exists and is not to be replaced, or cannot be written.
    """
    require_same_identity(head, store)
    if temperatures is not None:
        Mixture(temperatures)  # refuses what is no temperature
    if format == CHECKPOINT:
        if temperatures is not None:
            raise ExportError(ONE_HEAD)
        file = _own_file(checkpoint, store)
        return _patched(store, head, file, Path(out), model, overwrite=overwrite)
    path = _target(Path(out), format, temperatures, checkpoint, overwrite=overwrite)
    trained = _trained_model(checkpoint, store, head, model, alone=temperatures is None)
    lookup = None if images is None else ImageLookup(images)
    side = _side(format, store, trained, lookup, side)
    description = _describe(store, head, trained, temperatures, normalization, side)
    with _appearing(path, overwrite=overwrite) as unfinished:
        where = "cpu" if lookup is None else device
        exported = _written(format, trained, head, description, unfinished, where)
        agreement = None
        if lookup is not None:
            agreement = compare_with_store(
                exported, store, head, lookup, n_checked, on_progress, workers
            )
    return Export(path, format, description, (), agreement, _views_left_out(store, head))


def _own_file(checkpoint: Path | str | None, store: Store) -> Path:
    """The file that a patched checkpoint is a copy of."""
    if checkpoint is not None:
        return Path(checkpoint)
    name = record_of_identity(store.identity).own_weights
    if name is None:
        raise ConfigError(
            "A patched checkpoint is a copy of yours: give it with --checkpoint FILE."
        )
    raise ExportError(
        f"The weights of {name} are in no checkpoint that could get the new head: export another "
        "format, safetensors, torch-export or onnx."
    )


def _patched(
    store: Store, head: Head, checkpoint: Path, out: Path, model: str, *, overwrite: bool
) -> Export:
    """A copy of the user's own file with the new head."""
    # A file may have any suffix: people rename .checkpoint to .pth, and torch does not mind.
    if out.is_dir() or (checkpoint.suffix and not out.suffix):
        out /= f"{checkpoint.stem}-new-head{checkpoint.suffix}"
    if out.resolve() == checkpoint.resolve():
        raise ExportError(f"{out} is the checkpoint itself, which stays: give another name.")
    _refuse_existing(out, overwrite=overwrite)
    identity, counts = store.identity, head.class_counts
    trained = model_of_identity(checkpoint, identity, counts, model=model)
    if is_stand_in(trained.classifier):
        raise _another_classifier(trained.source, "another format than checkpoint")
    with _appearing(out, overwrite=overwrite) as unfinished:
        replaced = patch_checkpoint(trained, head, unfinished)
    return Export(out, CHECKPOINT, None, replaced, None, _views_left_out(store, head))


def _trained_model(
    checkpoint: Path | str | None, store: Store, head: Head, model: str, *, alone: bool
) -> TrainedModel:
    """The trained model with the store's old head, which the new one alone can do without.

    Raises:
        ExportError: if it is another model, or the old head is needed and not at hand.
    """
    if not (alone or has_old_head(store)):
        raise ExportError(
            "The store keeps no old head, which an ensemble needs: leave the temperatures "
            "(--t-old, --t-new) out to export the new head alone."
        )
    # An adopted head is in no checkpoint; others are, unless it is the wrong one.
    old = store.classifier if has_adopted_head(store) and not alone else None
    trained = model_of_identity(checkpoint, store.identity, head.class_counts, model=model, old=old)
    if is_stand_in(trained.classifier) and not alone:
        raise _another_classifier(trained.source, "the new head alone, without --t-old and --t-new")
    return trained


def _another_classifier(source: str, instead: str) -> ExportError:
    return ExportError(
        f"{source} has the store's backbone, but another classifier than the store's old head: "
        f"give the model that was extracted, or export {instead}."
    )


def _written(
    format: str,  # noqa: A002  as above
    model: TrainedModel,
    head: Head,
    description: Description,
    path: Path,
    device: str,
) -> Exported:
    """The file, as it reads back to run on a device."""
    network = build_classifier(model, head, description.temperatures)
    write_export(format, network, description, path)
    return open_export(path, model, device=device)


def _views_left_out(store: Store, head: Head) -> int:
    """Test views of each test image with which the head is scored, and the file does without."""
    return averaged_views(store, "test", [head]) if "test" in store else 0


def _side(
    format: str,  # noqa: A002  as above
    store: Store,
    model: TrainedModel,
    lookup: ImageLookup | None,
    given: int | None,
) -> int | None:
    """Side of the images that the file takes; None where it holds weights and it is unknown."""
    seen = None if lookup is None else side_of_images(store["test"], lookup, model)
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
    """The description in the file."""
    return Description(
        classifier="new" if temperatures is None else "ensemble",
        temperatures=temperatures,
        normalization=normalization,
        side=side,
        preprocessing=model.preprocessing,
        class_names=store.class_names,
        model=record_of_identity(store.identity).describe(),
        backbone=model.backbone,
        classifier_name=model.classifier_name,
        cosine_scale=model.classifier.scale if model.classifier.normalized else None,
        origin={
            "identity": store.identity.to_json(),
            "head": head.provenance.to_json(),
            "class_counts": list(head.class_counts),
            "versions": versions(),
        },
        normalized=head.normalized,
    )


def _target(
    out: Path,
    format: str,  # noqa: A002  as above
    temperatures: tuple[float, float] | None,
    checkpoint: Path | str | None,
    *,
    overwrite: bool,
) -> Path:
    """The file to write, which is none of those that it is made of."""
    suffix = SUFFIXES[format]
    if out.is_dir() or not out.suffix:
        out /= ("ensemble" if temperatures is not None else "new-head") + suffix
    elif out.suffix != suffix:
        raise ExportError(f"{out} should end in {suffix} for the format {format}, or be a folder.")
    _refuse_existing(out, overwrite=overwrite)
    if checkpoint is not None and out.resolve() == Path(checkpoint).resolve():
        raise OutputExistsError(f"{out} is the checkpoint itself, which stays: give another name.")
    return out


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that has no place; a folder of its own may be missing."""
    if path.parent.exists():
        refuse_existing(path, overwrite=overwrite, replaceable=_is_no_head)
    else:
        refuse_existing_in(path.parent, [path.name], overwrite=overwrite)


@contextmanager
def _appearing(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """The file to write, whole or not at all; its folder is made with it where it is missing."""
    if path.parent.exists():
        with whole_file(path, overwrite=overwrite, replaceable=_is_no_head) as unfinished:
            yield unfinished
    else:
        with whole_files(path.parent, [path.name], overwrite=overwrite) as made:
            yield made / path.name


def _is_no_head(path: Path) -> bool:
    """Whether a file is none that a fit has left: those are what exports are made of."""
    return not is_head(path)
