"""Classifiers of image files: a trained model with its heads, or an exported file.

Legend: B images, C classes, D feature width, V test views.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.datasets.decoding import read_rgb
from pipeline.datasets.folders import IMAGE_SUFFIXES
from pipeline.datasets.views import ShiftedViews
from pipeline.devices import choose_device
from pipeline.ensemble import ensemble_probabilities, softmax
from pipeline.errors import DatasetError, ExportError
from pipeline.exporting import Description, Exported, as_inputs, misfit, model_of_identity
from pipeline.exporting.network import TwoHeads
from pipeline.extracting.identities import record_of_identity, views_of_identity
from pipeline.extracting.running import RunningModel
from pipeline.heads import Head
from pipeline.metrics import Floats
from pipeline.mixture import Mixture
from pipeline.old_head import is_stand_in, no_classifier
from pipeline.reading import read_mixed
from pipeline.seen_views import mean_features

BATCH = 64
"""Images in one forward pass, at most; of those of one size, where sizes differ."""

HELD = 256
"""Images and views of them that are held at once, at most: 147 MiB of 224 x 224 pixels."""


@dataclass(frozen=True)
class Probabilities:
    """Of some images (B, C), or of one (C,)."""

    final: Floats
    """Of the classifier."""

    old: Floats | None
    """Of the old head, at temperature 1."""

    new: Floats | None
    """Of the new head, at temperature 1."""

    features: NDArray[np.float32] | None = None
    """(B, D) or (D,) that the heads classified; None where an exported file does not give them."""

    def of(self, image: int) -> Probabilities:
        """Those of one image (C,) among some."""
        others = (self.old, self.new, self.features)
        old, new, features = (None if each is None else each[image] for each in others)
        return Probabilities(self.final[image], old, new, features)


@dataclass(frozen=True)
class ImageClassifier:
    """Something that turns images into probabilities."""

    description: Description
    """Its classes and its input."""

    classify: Callable[[Tensor], Probabilities]
    """Versions of images (1 + V, B, H, W, 3) uint8 RGB, resized and cropped -> probabilities."""

    device: torch.device
    """Where it runs."""

    views: ShiftedViews = field(default_factory=ShiftedViews)
    """Test views whose mean feature with the clean image is classified."""


def classifier_of_head(
    head: Head,
    checkpoint: Path | str | None = None,
    temperatures: tuple[float, float] | None = None,
    *,
    model: str = "auto",
    views: ShiftedViews | None = None,
    device: str = "auto",
) -> ImageClassifier:
    """The trained model with the new head, or with both.

    Args:
        head: the re-trained head.
        checkpoint: the trained classifier that it was fitted on; None for a model with weights of
            its own, as `extract` took it without a file.
        temperatures: (t_old, t_new) of the ensemble; None for the new head alone, which is what
            `evaluate` scores without temperatures.
        model: checkpoint family, or the name of that model, as in `model_of_identity`.
        views: test views of each image; as in `scored.ScoredSplit`, every head then sees the
            mean of the clean feature and theirs, for which an image takes 1 + V forward passes.
            `views_of_head` where not given, so that the head classifies as it is scored;
            `ShiftedViews()` for the clean image alone.
        device: where the model runs, as `ExtractConfig.device`.

    Raises:
        ExportError: if the two do not belong together, or an ensemble lacks its old head.
        CheckpointError: if the checkpoint does not load.
        ConfigError: if there is none where one is needed, the named model cannot be built, or
            there is no such device.
        EvaluationError: if a temperature is not above 0.
        StoreFormatError: if another version of nolb wrote the head's identity.
    """
    if temperatures is not None:
        Mixture(temperatures)  # refuses what is no temperature
    if views is None:
        views = views_of_head(head)
    where = choose_device(device)
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

    running = RunningModel(trained, where)

    def classify(versions: Tensor) -> Probabilities:
        (features, old), *views = running.start(versions).wait()
        if views:
            features = mean_features(chain([features], (each for each, _ in views)))
            old = trained.classifier.logits(features)
        new = head.logits(features)
        final = softmax(new)
        if temperatures is not None:
            final = ensemble_probabilities(old, new, *temperatures)
        return Probabilities(final, softmax(old) if knows_old else None, softmax(new), features)

    return ImageClassifier(description, classify, where, views)


def views_of_head(head: Head) -> ShiftedViews:
    """The test views that suit a head: those of the store that it was fitted on.

    None of them where the head was balanced on clean images alone: its biases are for such.

    Raises:
        StoreFormatError: if another version of nolb wrote the head's identity.
    """
    stored = views_of_identity(head.identity)
    return ShiftedViews() if head.provenance.balanced_for == 0 else stored


def _lacking(source: str, head: Head) -> str:
    """Why there is no ensemble, and what there is."""
    if head.identity.classifier == no_classifier(*head.weight.shape).digest():
        return (
            "The head's store keeps no old head, which an ensemble needs: leave the temperatures "
            "(--t-old, --t-new) out to classify with the new head alone."
        )
    return (
        f"{source} has the backbone of the head's store, but another classifier than the old "
        "head of that store, which may be an adopted one: leave the temperatures (--t-old, "
        "--t-new) out to classify with the new head alone, or predict with a file of both heads "
        "that nolb export makes of store and head."
    )


def classifier_of_export(exported: Exported) -> ImageClassifier:
    """An exported file, which sees the clean image alone.

    One with weights of both heads gives the probabilities of each.
    """
    description = exported.description

    def classify(versions: Tensor) -> Probabilities:
        logits = exported.run(as_inputs(versions[0], description))
        alone = softmax(logits) if description.temperatures is None else None
        return Probabilities(softmax(logits), None, alone)

    network = exported.network
    if network is None or not isinstance(
        part := network.get_submodule(description.classifier_name), TwoHeads
    ):
        return ImageClassifier(description, classify, exported.device)
    noted: dict[str, Floats] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, logits: noted.update({name: softmax(logits.cpu().numpy())})

    part.old.register_forward_hook(note("old"))
    part.new.register_forward_hook(note("new"))

    def classify_both(versions: Tensor) -> Probabilities:
        final = softmax(exported.run(as_inputs(versions[0], description)))
        return Probabilities(final, noted["old"], noted["new"])

    return ImageClassifier(description, classify_both, exported.device)


def classify_images(
    classifier: ImageClassifier, images: Sequence[str | Path], workers: int = -1
) -> Iterator[tuple[str, Probabilities | str]]:
    """The probabilities of each image, in their order, as they are computed.

    Where an image cannot be used, the reason stands in its place, and the others follow.

    Args:
        classifier: what classifies them.
        images: paths of images, which may differ in size.
        workers: processes that read them, as `ExtractConfig.workers`.

    Raises:
        ConfigError: if there cannot be so many workers, or test views move an image out of sight.
        ExtractionError: if a reading process dies, or the network refuses the images.
    """
    files, views = _Files(images), classifier.views
    size = min(BATCH, max(1, HELD // (1 + views.count)))
    preprocessing = classifier.description.preprocessing
    for batch in read_mixed(files, preprocessing, views, size, classifier.device, workers):
        found: dict[int, Probabilities | str] = dict(batch.failures)
        for rows, versions in batch.alike:
            reason = misfit(versions[0], classifier.description)
            if reason is not None:
                found |= dict.fromkeys(rows, reason)
                continue
            probabilities = classifier.classify(versions)
            found |= {row: probabilities.of(i) for i, row in enumerate(rows)}
        for row in range(batch.rows.start, batch.rows.stop):
            yield files.ids[row], found[row]


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


class _Files:
    """Image files anywhere, as `pipeline.reading.Images`; the same one may be there twice.

    Args:
        paths: (N,) of the files.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.ids = tuple(map(str, paths))

    def read(self, row: int) -> Image.Image:
        """The image of a row; raises UnreadableImageError as `read_rgb`."""
        return read_rgb(self.ids[row])
