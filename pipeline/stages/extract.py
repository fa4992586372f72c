"""Run a frozen, trained classifier once over its images and keep features and old logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cache import (
    Identity,
    SplitSpec,
    Store,
    StoreSpec,
    StoreWriter,
    create_store,
    open_store,
    resume_store,
)
from cache.errors import IdentityMismatchError, StoreNotFoundError
from cache.identity import samples_digest
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.config import ExtractConfig
from pipeline.datasets import ImageSource, ViewSpec, open_source
from pipeline.devices import choose_device, describe_arithmetic
from pipeline.errors import DatasetError
from pipeline.forward import ForwardPass
from pipeline.progress import Snapshot
from pipeline.versions import versions

VIEW_SPLITS = ("train",)
"""Splits of which views are stored: heads are fitted on these."""


@dataclass(frozen=True)
class Extraction:
    """What an extraction left behind."""

    store: Store
    """The finished store, open for reading."""

    model: TrainedModel
    """The model that was run."""

    computed: int
    """Images that went through the model in this run; those of an interrupted one not."""

    seconds: float
    """Seconds from the first batch to the sealed store."""

    shares: Mapping[str, float]
    """Fraction of `seconds` spent on waiting for images, on the model and on writing."""

    failed: Mapping[str, Mapping[int, str]]
    """Rows whose image could not be read, with the reason, by split."""

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "store": str(self.store.path),
            "model": f"{self.model.family}:{self.model.backbone}",
            "preprocessing": self.model.preprocessing.describe(),
            "images": {name: self.store[name].n_samples for name in self.store.splits},
            "failed": {name: len(rows) for name, rows in self.failed.items()},
            "computed": self.computed,
            "seconds": self.seconds,
            "shares": dict(self.shares),
        }


def prepare_model(checkpoint: Path | str, config: ExtractConfig | None = None) -> TrainedModel:
    """Load a checkpoint, with the preprocessing that the settings override.

    Args:
        checkpoint: file that holds the trained backbone and its old head.
        config: settings; `model`, `mean`, `std`, `resize` and `crop` are read.

    Raises:
        CheckpointError: if the file does not hold a model that is known and complete.
    """
    config = config or ExtractConfig()
    model = load_checkpoint(checkpoint, model=config.model)
    names = ("mean", "std", "resize", "crop")
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    return replace(model, preprocessing=replace(model.preprocessing, **given))


def extract(
    checkpoint: Path | str | TrainedModel,
    sources: Mapping[str, ImageSource | Path | str],
    out: Path | str,
    config: ExtractConfig | None = None,
    *,
    root: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Snapshot], None] | None = None,
) -> Extraction:
    """Cache features, views and old logits of every image in a store.

    The images of a shard always go through the model in the same batches, so an extraction that
    was interrupted and resumed on the same kind of device gives the same bytes.

    Args:
        checkpoint: file that holds the trained backbone and its old head, or what
            `prepare_model` made of it.
        sources: images by split; `train` and `test` at least, `val` where there is one. A source
            is an image folder, a list file, or the name of a data set.
        out: store to create; the suffix `.zarr` or `.h5` chooses its format.
        config: settings; the defaults where not given.
        root: folder that the paths of list files are relative to.
        resume: continue an unfinished store; begin one where there is none, and change nothing
            where the same extraction is complete already.
        overwrite: replace an existing store, once the new one is complete.
        on_progress: called with a snapshot after every batch.

    Raises:
        CheckpointError: if the file does not hold a model that is known and complete.
        DatasetError: if a source is missing, empty or contradicts the model or another split.
        StoreError: if `out` exists, or an unfinished store is of another extraction.
        ExtractionError: if the model gives no usable features, or with `strict` an unreadable
            image.
        KeyboardInterrupt: on Ctrl-C, after the finished shards were made durable.
    """
    config = config or ExtractConfig()
    model = checkpoint
    if not isinstance(model, TrainedModel):
        model = prepare_model(model, config)
    images = _open_sources(sources, model, Path(root) if root is not None else None)
    device = choose_device(config.device)
    views = ViewSpec(
        count=config.views,
        seed=config.view_seed,
        padding=config.view_padding,
        fill=config.view_fill,
        flip=config.view_flip,
    )
    spec = _store_spec(model, images, views, config, device.type)
    forward = ForwardPass(model, images, views, VIEW_SPLITS, config, device, on_progress)
    if resume and (complete := _complete_store(out, spec.identity)) is not None:
        store = complete
    else:
        with _begin(out, spec, resume=resume, overwrite=overwrite) as writer:
            store = forward.fill(writer)
    return Extraction(
        store=store,
        model=model,
        computed=forward.computed,
        seconds=forward.clock.seconds,
        shares=forward.clock.shares(),
        failed={name: store[name].failed for name in store.splits},
    )


def _open_sources(
    sources: Mapping[str, ImageSource | Path | str], model: TrainedModel, root: Path | None
) -> dict[str, ImageSource]:
    """Open every split; the training images name the classes."""
    missing = {"train", "test"} - set(sources)
    if missing:
        raise DatasetError(f"An extraction needs images for {' and '.join(sorted(missing))}.")
    train = _open(sources["train"], root, None)
    if len(train.class_names) != model.n_classes:
        raise DatasetError(
            f"{model.source} has a head for {model.n_classes} classes, but the training images "
            f"have {len(train.class_names)}: give the data that the model was trained on."
        )
    others = {name: source for name, source in sources.items() if name != "train"}
    return {"train": train} | {
        name: _open(source, root, train.class_names) for name, source in others.items()
    }


def _open(
    source: ImageSource | Path | str, root: Path | None, class_names: tuple[str, ...] | None
) -> ImageSource:
    """A source as it is, or by its path or name."""
    if isinstance(source, ImageSource):
        return source
    return open_source(source, root=root, class_names=class_names)


def _store_spec(
    model: TrainedModel,
    images: Mapping[str, ImageSource],
    views: ViewSpec,
    config: ExtractConfig,
    device_kind: str,
) -> StoreSpec:
    """What the store will hold and the identity that it will carry."""
    identity = Identity(
        model=f"{model.family}:{model.backbone}",
        checkpoint=model.sha256,
        backbone=model.backbone_digest(),
        classifier=model.classifier.digest(),
        preprocessing=model.preprocessing.describe(),
        compute=describe_arithmetic(config),
        dtype=config.dtype,
        device=device_kind,
        views=views.describe() if views.count else "",
        samples={name: samples_digest(s.ids, s.labels) for name, s in images.items()},
    )
    splits = tuple(
        SplitSpec(name, source.ids, source.labels, views.count if name in VIEW_SPLITS else 0)
        for name, source in images.items()
    )
    return StoreSpec(
        identity=identity,
        class_names=images["train"].class_names,
        classifier=model.classifier,
        splits=splits,
        dtype=config.dtype,
        store_logits=config.logits == "full",
        shard_rows=config.shard_rows,
        provenance={
            "checkpoint": Path(model.source).name,
            "notes": list(model.notes),
            "config": asdict(config),
            "versions": versions(),
        },
    )


def _complete_store(out: Path | str, identity: Identity) -> Store | None:
    """The finished store at `out` if it is of this very extraction, `None` if none is there."""
    if not Path(out).exists():
        return None
    store = open_store(out)
    differences = store.identity.differences(identity)
    if differences:
        store.close()
        raise IdentityMismatchError(
            f"{out} is complete and of another extraction ({'; '.join(differences)}): "
            "choose another --out, or replace it with --overwrite."
        )
    return store


def _begin(out: Path | str, spec: StoreSpec, *, resume: bool, overwrite: bool) -> StoreWriter:
    """A writer for a new store, or for the unfinished one where it is to be continued."""
    if resume:
        try:
            return resume_store(out, spec)
        except StoreNotFoundError:
            pass  # nothing was begun yet: a job script may ask to resume from its first run on
    return create_store(out, spec, overwrite=overwrite)
