"""What heads say about image files: the network, the heads, and one image after the other.

Legend: B images, C classes, D feature width, V test views.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.backbones import Tap
from pipeline.checkpoints import TrainedModel
from pipeline.datasets.decoding import read_rgb
from pipeline.datasets.folders import IMAGE_SUFFIXES
from pipeline.datasets.views import ShiftedViews
from pipeline.ensemble import ensemble_probabilities, softmax
from pipeline.errors import DatasetError, ExportError, UnreadableImageError
from pipeline.exporting import (
    Description,
    Exported,
    as_inputs,
    model_of_identity,
)
from pipeline.exporting.network import TwoHeads
from pipeline.extracting.identities import record_of_identity, views_of_identity
from pipeline.head_history import views_balanced_for
from pipeline.heads import Head
from pipeline.metrics import Floats
from pipeline.old_head import is_stand_in, no_classifier
from pipeline.scored import mean_features

BATCH = 64
"""Images in one forward pass, at most."""

HELD = 256
"""Images and views of them that are held at once, at most: 147 MiB of 224 x 224 pixels."""


@dataclass(frozen=True)
class Beliefs:
    """Probabilities of some images (B, C), or of one (C,)."""

    decisive: Floats
    """Of the classifier that decides."""

    old: Floats | None
    """Of the old head, at temperature 1."""

    new: Floats | None
    """Of the new head, at temperature 1."""

    features: NDArray[np.float32] | None = None
    """(B, D) or (D,) that the heads have seen; None where an exported file does not give them."""

    def of(self, image: int) -> Beliefs:
        """Those of one image (C,) among some."""
        others = (self.old, self.new, self.features)
        old, new, features = (None if each is None else each[image] for each in others)
        return Beliefs(self.decisive[image], old, new, features)


@dataclass(frozen=True)
class Classifier:
    """Something that turns images into probabilities."""

    description: Description
    """Its classes and its input."""

    believe: Callable[[NDArray[np.float32]], Beliefs]
    """Versions of images (1 + V, B, 3, H, W), as the description says -> probabilities."""

    views: ShiftedViews = field(default_factory=ShiftedViews)
    """Test views whose mean feature with the clean image is classified."""


def classifier_of_head(
    head: Head,
    checkpoint: Path | str | None = None,
    temperatures: tuple[float, float] | None = (1.0, 1.0),
    *,
    model: str = "auto",
    views: ShiftedViews | None = None,
) -> Classifier:
    """The trained model with the new head, or with both.

    Args:
        head: the re-trained head.
        checkpoint: the trained classifier that it was fitted on; None for a model with weights of
            its own, as `extract` took it without a file.
        temperatures: (t_old, t_new) of the ensemble; None where the new head decides alone.
        model: checkpoint family, or the name of that model, as in `model_of_identity`.
        views: test views of each image; as in `scored.ScoredSplit`, every head then sees the
            mean of the clean feature and theirs, for which an image takes 1 + V forward passes.
            `views_of_head` where not given, so that the head does what its scores say;
            `ShiftedViews()` for the clean image alone.

    Raises:
        ExportError: if the two do not belong together, or an ensemble lacks its old head.
        CheckpointError: if the checkpoint does not load.
        ConfigError: if there is none where one is needed, or the named model cannot be built.
        StoreFormatError: if another version of nolb wrote the head's identity.
    """
    if views is None:
        views = views_of_head(head)
    trained = model_of_identity(checkpoint, head.identity, head.class_counts, model=model)
    knows_old = not is_stand_in(trained.classifier)
    if temperatures is not None and not knows_old:
        raise ExportError(_lacking(trained.source, head))
    description = Description(
        classifier="new" if temperatures is None else "ensemble",
        temperatures=temperatures,
        normalization="outside",
        side=trained.preprocessing.crop,
        preprocessing=trained.preprocessing,
        class_names=head.class_names,
        model=record_of_identity(head.identity).describe(),
        backbone=trained.backbone,
        classifier_name=trained.classifier_name,
        cosine_scale=None,
        origin={},
    )

    def believe(images: NDArray[np.float32]) -> Beliefs:
        features, old = _features(trained, images[0])
        if len(images) > 1:
            others = (_features(trained, view)[0] for view in images[1:])
            features = mean_features(chain([features], others))
            old = trained.classifier.logits(features)
        new = head.logits(features)
        decisive = softmax(new)
        if temperatures is not None:
            decisive = ensemble_probabilities(old, new, *temperatures)
        return Beliefs(decisive, softmax(old) if knows_old else None, softmax(new), features)

    return Classifier(description, believe, views)


def views_of_head(head: Head) -> ShiftedViews:
    """The test views that suit a head: those of the store that it was fitted on.

    None of them where the head was balanced on clean images alone: its biases are for such.

    Raises:
        StoreFormatError: if another version of nolb wrote the head's identity.
        HeadError: if it is a mean of heads that were balanced for different test views.
    """
    stored = views_of_identity(head.identity)
    return ShiftedViews() if views_balanced_for(head) == 0 else stored


def _lacking(source: str, head: Head) -> str:
    """Why there is no ensemble, and what there is."""
    if head.identity.classifier == no_classifier(*head.weight.shape).digest():
        return (
            "The head's store keeps no old head, which an ensemble needs: take the new head alone, "
            "--classifier new."
        )
    return (
        f"{source} has the backbone of the head's store, but another classifier than the old "
        "head of that store, which may be an adopted one: take the new head alone, --classifier "
        "new, or predict with a file of both heads that nolb export makes of store and head."
    )


def classifier_of_export(exported: Exported) -> Classifier:
    """An exported file, which sees the clean image alone.

    One with weights of both heads tells what each says.
    """
    description = exported.description

    def believe(images: NDArray[np.float32]) -> Beliefs:
        logits = exported.run(images[0])
        alone = softmax(logits) if description.temperatures is None else None
        return Beliefs(softmax(logits), None, alone)

    network = exported.network
    if network is None or not isinstance(
        part := network.get_submodule(description.classifier_name), TwoHeads
    ):
        return Classifier(description, believe)
    said: dict[str, Floats] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, logits: said.update({name: softmax(logits.numpy())})

    part.old.register_forward_hook(note("old"))
    part.new.register_forward_hook(note("new"))

    def believe_both(images: NDArray[np.float32]) -> Beliefs:
        decisive = softmax(exported.run(images[0]))
        return Beliefs(decisive, said["old"], said["new"])

    return Classifier(description, believe_both)


def beliefs_of(
    classifier: Classifier, images: Iterable[str | Path]
) -> Iterator[tuple[str, Beliefs | UnreadableImageError]]:
    """What the classifier believes of each image, in their order, as it is computed.

    An image that cannot be used is told in its place and stops nothing.

    Args:
        classifier: whose beliefs.
        images: paths of images.
    """
    size = min(BATCH, max(1, HELD // (1 + classifier.views.count)))
    batch: list[str] = []
    for image in images:
        batch.append(str(image))
        if len(batch) == size:
            yield from _batch_of_beliefs(classifier, batch)
            batch = []
    yield from _batch_of_beliefs(classifier, batch)


def find_images(paths: Sequence[str | Path]) -> list[str]:
    """Image files: those named, and those in the folders named and below, in order.

    Raises:
        DatasetError: if a path does not exist, or a folder holds no image.
    """
    found: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [
                str(Path(place) / file)
                for place, _, files in sorted(os.walk(path, followlinks=True))
                for file in sorted(files)
                if file.lower().endswith(IMAGE_SUFFIXES)
            ]
            if not inside:
                raise DatasetError(f"{path}: holds no images ({' '.join(IMAGE_SUFFIXES)}).")
            found += inside
        elif path.exists():
            found.append(str(path))
        else:
            raise DatasetError(f"{path}: no such image or folder.")
    return found


def _batch_of_beliefs(
    classifier: Classifier, paths: list[str]
) -> Iterator[tuple[str, Beliefs | UnreadableImageError]]:
    """Those of a few images, which may differ in size."""
    done: dict[int, Beliefs | UnreadableImageError] = {}
    by_shape: dict[tuple[int, ...], dict[int, NDArray[np.float32]]] = {}
    for i, path in enumerate(paths):
        try:
            pixels = as_inputs(read_rgb(path), classifier.description, classifier.views)
        except UnreadableImageError as error:
            done[i] = error
        else:
            by_shape.setdefault(pixels.shape, {})[i] = pixels
    for alike in by_shape.values():
        beliefs = classifier.believe(np.stack(list(alike.values()), axis=1))
        for row, i in enumerate(alike):
            done[i] = beliefs.of(row)
    yield from ((path, done[i]) for i, path in enumerate(paths))


def _features(
    model: TrainedModel, images: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (B, D) and old logits (B, C) of normalised images."""
    with torch.inference_mode(), Tap(model.module, model.classifier_name) as tap:
        features, logits = tap(torch.from_numpy(images))
    return features.numpy(), logits.numpy()
