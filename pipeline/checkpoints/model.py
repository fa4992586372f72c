"""What a checkpoint turns into."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache import Classifier
from pipeline.backbones import CosineLinear
from pipeline.datasets.preprocessing import Preprocessing


class TrainingRule(Protocol):
    """What the old head needs of its training data, which the file does not hold."""

    @property
    def need(self) -> str:
        """What is needed and why, one sentence."""

    def adapt(self, classifier: Classifier, class_counts: NDArray[np.int64]) -> Classifier:
        """The head for training data of those counts (C,).

        Raises:
            CheckpointError: if the counts do not settle it.
        """


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A frozen classifier and all that is needed to run it as its authors did."""

    family: str
    """Name of the checkpoint family."""

    backbone: str
    """Name of the network."""

    module: nn.Module
    """The whole network in evaluation mode on the CPU: images (B, 3, H, W) -> logits (B, C)."""

    classifier_name: str
    """Dotted name of the module in it that turns features (B, D) into logits."""

    classifier: Classifier
    """The same step as a linear head: `classifier.logits(features)` are the module's logits."""

    preprocessing: Preprocessing
    """How its authors prepared test images."""

    source: str
    """Path of the checkpoint."""

    sha256: str
    """Of the checkpoint file."""

    notes: tuple[str, ...] = ()
    """What a user should know about how the file was read, one sentence each."""

    head: str = "linear"
    """What the file's classifier is, in words."""

    variant: str = ""
    """Rule and settings that the user named and the file does not hold."""

    class_names: tuple[str, ...] = ()
    """Names of the classes in the order of the logits, where the file holds them."""

    training_images: str = ""
    """`cache.samples_digest` of the images that it was trained on, where the file holds that."""

    left_out: tuple[str, ...] = ()
    """Weights in the file that neither features nor logits need, by their names there."""

    rule: TrainingRule | None = None
    """What the head still needs of the training data; `for_training_counts` settles it."""

    @property
    def name(self) -> str:
        """What loads the same model from the same file: FAMILY:BACKBONE, the variant in between."""
        return full_name(self.family, self.variant, self.backbone)

    @property
    def n_classes(self) -> int:
        """C."""
        return int(self.classifier.weight.shape[0])

    @property
    def feature_width(self) -> int:
        """D."""
        return int(self.classifier.weight.shape[1])

    def for_training_labels(self, labels: NDArray[np.int64]) -> TrainedModel:
        """The model whose head knows its training data, from the label of each image (N,).

        Raises:
            CheckpointError: as `for_training_counts`.
        """
        return self.for_training_counts(np.bincount(labels, minlength=self.n_classes))

    def for_training_counts(self, class_counts: NDArray[np.int64]) -> TrainedModel:
        """The model whose head knows its training data; itself where the head needs nothing.

        The networks of both share their weights before the head.

        Args:
            class_counts: (C,) training images of each class, in the order of the labels.

        Raises:
            CheckpointError: if the counts do not settle what the head needs.
        """
        if self.rule is None:
            return self
        adapted = self.with_classifier(self.rule.adapt(self.classifier, class_counts))
        return replace(adapted, notes=(*self.notes, self.rule.need))

    def with_classifier(self, classifier: Classifier) -> TrainedModel:
        """The model with another head (C, D), perhaps for other classes.

        The networks of both share their weights before the head.
        """
        weights = chain(self.module.parameters(), self.module.buffers())
        network = copy.deepcopy(self.module, {id(weight): weight for weight in weights})
        put_module(network, self.classifier_name, head_module(classifier))
        network = network.eval().requires_grad_(False)
        return replace(self, module=network, classifier=classifier, rule=None)

    def backbone_digest(self) -> str:
        """Sha256 over names, types, shapes and bytes of all weights but the classifier's.

        BatchNorm's count of training batches is left out: it changes no output, and files of
        before 2018 lack it.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            is_head = name.startswith(f"{self.classifier_name}.")
            if is_head or name.endswith(".num_batches_tracked"):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def full_name(family: str, variant: str, backbone: str) -> str:
    """FAMILY:BACKBONE, or FAMILY:VARIANT,BACKBONE, as `load_checkpoint` takes it."""
    return f"{family}:{variant}{',' * bool(variant)}{backbone}"


def head_module(classifier: Classifier) -> nn.Module:
    """The module (B, D) -> (B, C) that computes what the classifier computes, scale included."""
    n_classes, width = classifier.weight.shape
    weight, bias = torch.from_numpy(classifier.weight.copy()), classifier.bias
    with torch.device("meta"):  # no first values are drawn
        cosine = CosineLinear(width, n_classes, classifier.scale)
        linear = nn.Linear(width, n_classes, bias=bias is not None)
    if classifier.normalized:
        cosine.weight = nn.Parameter(weight)
        return cosine
    linear.weight = nn.Parameter(weight * classifier.scale)
    if bias is not None:
        linear.bias = nn.Parameter(torch.from_numpy(bias.copy()))
    return linear


def put_module(network: nn.Module, name: str, part: nn.Module) -> None:
    """Put `part`, which takes features (B, D), in the place of the submodule of that dotted name.

    That may be a 1x1 convolution, which gets pooled maps (B, D, 1, 1): `part` gets their rows.
    """
    parent, _, child = name.rpartition(".")
    part.register_forward_pre_hook(_rows)
    setattr(network.get_submodule(parent), child, part)


def _rows(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Pooled maps (B, D, 1, 1) as features (B, D); features as they are."""
    return tuple(each.flatten(1) if each.shape[2:] == (1, 1) else each for each in inputs)
