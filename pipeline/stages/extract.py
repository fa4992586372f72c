"""Run a frozen, trained classifier once over its images and keep features and old logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cache import (
    Identity,
    Shard,
    SplitSpec,
    Store,
    StoreSpec,
    StoreWriter,
    create_store,
    join_store,
    open_store,
    resume_store,
)
from cache.errors import StoreExistsError, StoreNotFoundError
from cache.identity import samples_digest
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.config import ExtractConfig
from pipeline.datasets import (
    ImageSource,
    ShiftedViews,
    SourceOptions,
    Views,
    ViewSpec,
    open_sources,
    overlap_notes,
)
from pipeline.device_decoding import jpeg_decoder
from pipeline.devices import choose_device, describe_arithmetic
from pipeline.errors import DatasetError
from pipeline.forward import ForwardPass
from pipeline.old_head import no_classifier
from pipeline.pretrained import load_pretrained
from pipeline.progress import OnProgress
from pipeline.recalibration import describe as describe_recalibration
from pipeline.recalibration import recalibrate
from pipeline.team import Team
from pipeline.versions import versions


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
            "model": self.model.name,
            "preprocessing": self.model.preprocessing.describe(),
            "images": {name: self.store[name].n_samples for name in self.store.splits},
            "failed": {name: len(rows) for name, rows in self.failed.items()},
            "computed": self.computed,
            "seconds": self.seconds,
            "shares": dict(self.shares),
        }


def prepare_model(
    checkpoint: Path | str | None, config: ExtractConfig | None = None
) -> TrainedModel:
    """Load a model, with the preprocessing that the settings override.

    Args:
        checkpoint: file that holds the trained backbone and its old head; `None` where
            `config.model` names a model whose library has weights for it.
        config: settings; `model` and those of the preprocessing are read.

    Raises:
        CheckpointError: if the file does not hold a model that is known and complete.
        ConfigError: if neither a file nor the settings name a model.
    """
    config = config or ExtractConfig()
    if checkpoint is None:
        model = load_pretrained(config.model)
    else:
        model = load_checkpoint(checkpoint, model=config.model)
    names = ("mean", "std", "resize", "crop", "interpolation", "channels")
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    if config.squash:
        given["squash"] = True
        given.setdefault("resize", model.preprocessing.crop)
    return replace(model, preprocessing=replace(model.preprocessing, **given))


def extract(
    checkpoint: Path | str | TrainedModel | None,
    sources: Mapping[str, ImageSource | Path | str],
    out: Path | str,
    config: ExtractConfig | None = None,
    *,
    root: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    team: Team | None = None,
) -> Extraction:
    """Cache features, views and old logits of every image in a store.

    The images of a shard always go through the model in the same batches, so an extraction that
    was interrupted and resumed on the same kind of device gives the same bytes.

    Args:
        checkpoint: file that holds the trained backbone and its old head, or what
            `prepare_model` made of it; `None` for a model that `config.model` names.
        sources: images by split, as for `open_sources`; `train` and `test` at least.
        out: store to create; the suffix `.zarr` or `.h5` chooses its format.
        config: settings; the defaults where not given.
        root: folder that the paths of list files are relative to.
        resume: continue an unfinished store; begin one where there is none, and change nothing
            where the same extraction is complete already.
        overwrite: replace an existing store, once the new one is complete.
        on_progress: called with a snapshot after every batch.
        team: the processes that share the work; those of `torchrun` where not given. Each computes
            its own shards and holds the whole store at the end; the first one seals it.

    Raises:
        CheckpointError: if the file does not hold a model that is known and complete.
        DatasetError: if a source is missing or empty, contradicts the model or another split, or
            is the training images again.
        StoreError: if `out` exists, or an unfinished store is of another extraction.
        ExtractionError: if the model gives no usable features, or with `strict` an unreadable
            image.
        KeyboardInterrupt: on Ctrl-C, after the finished shards were made durable.
    """
    config = config or ExtractConfig()
    team = team or Team.from_environment()
    loaded = _loaded(checkpoint, config)
    images = open_sources(sources, SourceOptions(Path(root) if root is not None else None))
    loaded = with_notes_on(loaded, images)
    device = choose_device(_device_name(config.device, team))
    decoder = jpeg_decoder(config, device)
    model = _ready_model(loaded, images["train"], config, device, on_progress)
    views = _views(config, images)
    spec = _store_spec(model, images, views, config, device.type)
    forward = ForwardPass(
        model, images, views, config, device, on_progress, team.local_size, decoder
    )
    store = _fill(forward, out, spec, team, resume=resume, overwrite=overwrite)
    return Extraction(
        store=store,
        model=model,
        computed=forward.computed,
        seconds=forward.clock.seconds,
        shares=forward.clock.shares(),
        failed={name: store[name].failed for name in store.splits},
    )


def with_notes_on(model: TrainedModel, images: Mapping[str, ImageSource]) -> TrainedModel:
    """The model, with notes on images that it or another split has seen; each note once.

    Args:
        model: may tell which images it was trained on.
        images: by split, `train` among them.
    """
    notes = [*model.notes, *overlap_notes(images)]
    train = images["train"]
    is_of_these = sorted(model.class_names) == sorted(train.class_names)
    known = model.training_images if is_of_these else ""
    if known not in {"", samples_digest(train.ids, train.labels)}:
        notes.append(
            f"{model.source} was trained on other images than those of train, or on more or fewer "
            "of them: it may be tested on what it has seen. The sources, shares and --split-seed "
            "of its nolb pretrain make the same splits."
        )
    return replace(model, notes=tuple(dict.fromkeys(notes)))


def _loaded(checkpoint: Path | str | TrainedModel | None, config: ExtractConfig) -> TrainedModel:
    """The model of a file or a name; one that was prepared already stays as it is."""
    return checkpoint if isinstance(checkpoint, TrainedModel) else prepare_model(checkpoint, config)


def _ready_model(
    model: TrainedModel,
    train: ImageSource,
    config: ExtractConfig,
    device: torch.device,
    on_progress: OnProgress | None,
) -> TrainedModel:
    """The model as it runs over the images, complete and recalibrated."""
    _require_classes(model, train, config)
    if not config.features_only:  # some old heads are complete only with the class counts
        model = model.for_training_labels(train.labels)
    return recalibrate(model, train, config, device, on_progress)


def _views(config: ExtractConfig, splits: Iterable[str]) -> dict[str, Views]:
    """The views of each split that has any: heads are fitted on `train`, the others are scored."""
    own, others = ViewSpec.of(config), ShiftedViews.of(config)
    views: dict[str, Views] = {split: own if split == "train" else others for split in splits}
    return {split: each for split, each in views.items() if each.count}


def _require_classes(model: TrainedModel, train: ImageSource, config: ExtractConfig) -> None:
    """Refuse a head for other classes than the images', unless no old head is to be kept."""
    if config.features_only:
        return
    names = train.class_names
    # Names in no common order are another matter: lists number what folders name.
    if names != model.class_names and sorted(names) == sorted(model.class_names):
        raise DatasetError(
            f"{model.source} was trained on the same classes in another order, beginning with "
            f"{model.class_names[0]!r} instead of {names[0]!r}: give its order with --class-order."
        )
    if len(names) == model.n_classes:
        return
    raise DatasetError(
        f"{model.source} has a head for {model.n_classes} classes, but the training images have "
        f"{len(train.class_names)}: give the data that the model was trained on, or "
        f"--features-only to keep its features without its head."
    )


def _store_spec(
    model: TrainedModel,
    images: Mapping[str, ImageSource],
    views: Mapping[str, Views],
    config: ExtractConfig,
    device_kind: str,
) -> StoreSpec:
    """What the store will hold and the identity that it will carry."""
    class_names = images["train"].class_names
    classifier = model.classifier
    if config.features_only:
        classifier = no_classifier(len(class_names), model.feature_width)
    identity = Identity(
        model=", ".join(filter(None, (model.name, describe_recalibration(config)))),
        checkpoint=model.sha256,
        backbone=model.backbone_digest(),
        classifier=classifier.digest(),
        preprocessing=model.preprocessing.describe(),
        compute=describe_arithmetic(config),
        dtype=config.dtype,
        device=device_kind,
        views=_describe_views(views),
        samples={name: samples_digest(s.ids, s.labels) for name, s in images.items()},
    )
    splits = tuple(
        SplitSpec(name, source.ids, source.labels, views[name].count if name in views else 0)
        for name, source in images.items()
    )
    return StoreSpec(
        identity=identity,
        class_names=class_names,
        classifier=classifier,
        splits=splits,
        dtype=config.dtype,
        store_logits=config.logits == "full" and not config.features_only,
        shard_rows=config.shard_rows,
        provenance={
            "checkpoint": Path(model.source).name,
            "notes": list(model.notes),
            "config": asdict(config),
            "versions": versions(),
        },
    )


def _describe_views(views: Mapping[str, Views]) -> str:
    """The views of all splits in one line, those of `train` first; empty where there are none."""
    lines = {split != "train": each.describe() for split, each in views.items()}
    return "; ".join(lines[key] for key in sorted(lines))


def _fill(
    forward: ForwardPass,
    out: Path | str,
    spec: StoreSpec,
    team: Team,
    *,
    resume: bool,
    overwrite: bool,
) -> Store:
    """The finished store, to which every process of the team has contributed its share."""
    try:
        if team.leads:
            # Processes that were started again by torchrun go on with what they have begun.
            resume = resume or team.restarted
            store = _lead(forward, out, spec, team, resume=resume, overwrite=overwrite)
        else:
            store = _follow(forward, out, spec, team)
    except BaseException as error:
        team.fail(error)
        raise
    team.part()
    return store


def _lead(
    forward: ForwardPass,
    out: Path | str,
    spec: StoreSpec,
    team: Team,
    *,
    resume: bool,
    overwrite: bool,
) -> Store:
    """Begin the store or go on with it, compute a share, wait for the others, and seal."""
    begun = _begin(out, spec, resume=resume, overwrite=overwrite)
    if isinstance(begun, Store):
        team.tell("plan", None)
        return begun
    with begun as writer:
        missing = writer.missing()
        if team.size == 1:
            forward.fill(writer, missing)
            return forward.seal(writer)
        shards = [(s.split, s.index, s.start, s.stop) for s in missing]
        team.tell("plan", {"invitation": writer.share(), "missing": shards})
        forward.fill(writer, team.share_of(missing, _cost(spec)), whole=False)
        team.hear_all("joined")
        team.hear_all("filled", dead=writer.alone)
        store = forward.seal(writer)
    team.tell("sealed", True)
    return store


def _follow(forward: ForwardPass, out: Path | str, spec: StoreSpec, team: Team) -> Store:
    """Compute a share of the store that the first process has begun and will seal."""
    plan = team.hear("plan")
    if plan is None:
        return open_store(out)
    with join_store(out, spec, plan["invitation"]) as writer:
        team.tell(f"joined/{team.rank}", True)
        missing = [Shard(*words) for words in plan["missing"]]
        forward.fill(writer, team.share_of(missing, _cost(spec)), whole=False)
        team.tell(f"filled/{team.rank}", True)
    team.hear("sealed")
    return open_store(out)


def _cost(spec: StoreSpec) -> Callable[[Shard], int]:
    """Forward passes that a shard takes: one a row, and one for each of its views."""
    passes = {split.name: 1 + split.n_views for split in spec.splits}
    return lambda shard: shard.n_rows * passes[shard.split]


def _device_name(name: str, team: Team) -> str:
    """The process's own GPU, where GPUs are meant and none is named."""
    if team.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{team.local_rank % torch.cuda.device_count()}"
    return name


def _begin(
    out: Path | str, spec: StoreSpec, *, resume: bool, overwrite: bool
) -> StoreWriter | Store:
    """A writer for a new or an unfinished store; the store itself where it is complete already."""
    if resume:
        try:
            return resume_store(out, spec)
        except StoreNotFoundError:
            pass  # nothing was begun yet: a job script may ask to resume from its first run on
        except StoreExistsError:  # of this very extraction
            return open_store(out)
    return create_store(out, spec, overwrite=overwrite)
