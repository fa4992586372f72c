"""What an extraction computes, settled before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from cache import SplitSpec, StoreSpec
from cache.identity import samples_digest
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.config import ExtractConfig
from pipeline.datasets import ImageSource, ShiftedViews, Views, ViewSpec, overlap_notes
from pipeline.devices import choose_device
from pipeline.errors import DatasetError
from pipeline.extracting.device_decoding import Decoder, jpeg_decoder
from pipeline.extracting.forward import ForwardPass
from pipeline.extracting.identities import make_identity
from pipeline.extracting.recalibration import recalibrate
from pipeline.old_head import no_classifier
from pipeline.pretrained import load_pretrained
from pipeline.progress import OnProgress
from pipeline.team import Team
from pipeline.versions import versions


@dataclass(frozen=True)
class ExtractionPlan:
    """A model, its images, and the store that they make."""

    model: TrainedModel
    """As it runs: its old head complete, its BatchNorm recalibrated where that is asked for."""

    images: Mapping[str, ImageSource]
    """By split."""

    views: Mapping[str, Views]
    """Of each split that has any."""

    config: ExtractConfig
    """Settings."""

    device: torch.device
    """Where the model runs."""

    decoder: Decoder | None
    """What decodes JPEG files on the device; `None` leaves them to the readers."""

    spec: StoreSpec
    """What the store will hold and the identity that it will carry."""

    def forward_pass(self, on_progress: OnProgress | None, local_size: int = 1) -> ForwardPass:
        """What fills the store.

        Args:
            on_progress: called with a snapshot after every batch.
            local_size: processes on this machine that share its cores.
        """
        return ForwardPass(
            self.model, self.images, self.views, self.config, self.device, on_progress,
            local_size, self.decoder,
        )  # fmt: skip


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


def plan_extraction(
    model: TrainedModel,
    images: Mapping[str, ImageSource],
    config: ExtractConfig,
    *,
    team: Team | None = None,
    on_progress: OnProgress | None = None,
) -> ExtractionPlan:
    """Settle what an extraction computes.

    Args:
        model: what `prepare_model` made.
        images: by split; `train` and `test` at least.
        config: settings.
        team: the processes that share the work; those of `torchrun` where not given.
        on_progress: called after every batch of a recalibration.

    Raises:
        CheckpointError: if BatchNorm is to be recalibrated in a network that has none.
        ConfigError: if there is no such device, or it cannot decode JPEG files where it should.
        DatasetError: if the images' classes are not those of the model.
    """
    device = choose_device(config.device, team or Team.from_environment())
    decoder = jpeg_decoder(config, device)
    noted = _with_notes_on(model, images)
    ready = _ready_model(noted, images["train"], config, device, on_progress)
    views = _views(config, images)
    spec = _store_spec(ready, images, views, config, device.type)
    return ExtractionPlan(ready, images, views, config, device, decoder, spec)


def _with_notes_on(model: TrainedModel, images: Mapping[str, ImageSource]) -> TrainedModel:
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
    splits = tuple(
        SplitSpec(name, source.ids, source.labels, views[name].count if name in views else 0)
        for name, source in images.items()
    )
    return StoreSpec(
        identity=make_identity(model, classifier, images, views, config, device_kind),
        class_names=class_names,
        classifier=classifier,
        splits=splits,
        store_logits=config.logits == "full" and not config.features_only,
        shard_rows=config.shard_rows,
        provenance={
            "checkpoint": Path(model.source).name,
            "notes": list(model.notes),
            "config": asdict(config),
            "versions": versions(),
        },
    )
