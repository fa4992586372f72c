"""What the identity of a store says, as the values that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from cache import Classifier, Identity, samples_digest
from cache.errors import StoreFormatError
from cache.records import Record
from cache.strict_json import JSON
from pipeline.checkpoints import TrainedModel
from pipeline.checkpoints.model import full_name
from pipeline.config import ExtractConfig
from pipeline.datasets import ImageSource, Preprocessing, ShiftedViews, Views
from pipeline.devices import arithmetic
from pipeline.extracting.recalibration import Recalibration
from pipeline.pretrained import FAMILY

TRAIN, TEST = "train", "test"
"""Whose views an identity tells: those of the training images, and of all others."""

Recorded = TypeVar("Recorded", bound=Record)


@dataclass(frozen=True)
class ModelRecord(Record):
    """Which network gave the features of a store, and what was done to it before."""

    family: str
    """Checkpoint family; `pretrained.FAMILY` where a library has the weights."""

    variant: str
    """Rule and settings that the user named and the file does not hold; mostly empty."""

    backbone: str
    """Name of the network."""

    recalibrated: Recalibration | None
    """Whence its BatchNorm statistics are, where they are not the checkpoint's."""

    @property
    def name(self) -> str:
        """What loads the model from its file: FAMILY:BACKBONE, the variant in between."""
        return full_name(self.family, self.variant, self.backbone)

    @property
    def own_weights(self) -> str | None:
        """What `load_pretrained` takes for it; None for a model whose weights are in a file."""
        return self.backbone if self.family == FAMILY else None

    def describe(self) -> str:
        """In one line."""
        done = [] if self.recalibrated is None else [self.recalibrated.describe()]
        return ", ".join([self.name, *done])


def make_identity(
    model: TrainedModel,
    classifier: Classifier,
    images: Mapping[str, ImageSource],
    views: Mapping[str, Views],
    config: ExtractConfig,
    device_kind: str,
) -> Identity:
    """The identity of an extraction.

    Args:
        model: as it runs.
        classifier: the old head that the store keeps.
        images: by split.
        views: of each split that has any; all splits but `train` have the same.
        config: settings.
        device_kind: "cpu" or "cuda".
    """
    said = ModelRecord(model.family, model.variant, model.backbone, Recalibration.of(config))
    told = {TRAIN if split == "train" else TEST: each.to_json() for split, each in views.items()}
    return Identity(
        model=said.to_json(),
        checkpoint=model.sha256,
        backbone=model.backbone_digest(),
        classifier=classifier.digest(),
        preprocessing=model.preprocessing.to_json(),
        compute=arithmetic(config),
        dtype=config.dtype,
        device=device_kind,
        views={key: told.get(key) for key in (TRAIN, TEST)},
        samples={name: samples_digest(s.ids, s.labels) for name, s in images.items()},
    )


def record_of_identity(identity: Identity) -> ModelRecord:
    """The model whose features they are.

    Raises:
        StoreFormatError: if another version of nolb has said it.
    """
    return _read(ModelRecord, identity.model, "model")


def preprocessing_of_identity(identity: Identity) -> Preprocessing:
    """How its images were prepared.

    Raises:
        StoreFormatError: as `record_of_identity`.
    """
    return _read(Preprocessing, identity.preprocessing, "preprocessing")


def views_of_identity(identity: Identity) -> ShiftedViews:
    """The test views of all splits but `train`; none where none were made.

    Raises:
        StoreFormatError: as `record_of_identity`.
    """
    said = identity.views.get(TEST)
    return ShiftedViews() if said is None else _read(ShiftedViews, said, "test views")


def _read(kind: type[Recorded], value: JSON, what: str) -> Recorded:
    try:
        return kind.from_json(value, f"the {what}")
    except StoreFormatError as error:
        raise StoreFormatError(
            f"The identity is not of this version of nolb ({str(error).rstrip('.')}): extract the "
            "store again, and fit its heads again."
        ) from None
