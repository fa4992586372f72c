"""What families share: the classifier as a linear head, and the network built around it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache import Classifier
from pipeline.backbones import Backbone
from pipeline.backbones.finding import without_memory
from pipeline.backbones.registry import CIFAR_PREPROCESSING
from pipeline.backbones.residual import IMAGENET_PREPROCESSING
from pipeline.checkpoints.mapping import OPTIONAL_SUFFIX, StateDict, inner, load_strictly
from pipeline.checkpoints.model import TrainedModel, TrainingRule, head_module, put_module
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import is_small
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.errors import CheckpointError

HEAD_NAMES = ("fc", "linear", "classifier", "head")
"""What networks call their last layer."""

SCALES = "scales"
"""LWS's factor of each class."""

MATRIX = 2


@dataclass(frozen=True, eq=False)
class Weights:
    """A state dict whose classifier is known."""

    body: StateDict
    """All but the classifier, by names without `module.`."""

    head: StateDict
    """The classifier: `weight`, and `bias` where it has one."""

    head_name: str
    """What the file calls the classifier."""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the classifier's matrix."""
        return tuple(self.head["weight"].shape)


def split_head(state: StateDict, *names: str) -> Weights | None:
    """Separate the classifier, the first of `names` that has a matrix, from the rest."""
    for name in names:
        weight = state.get(f"{name}.weight")
        if weight is not None and weight.ndim == MATRIX:
            body = {k: v for k, v in state.items() if not k.startswith(f"{name}.")}
            return Weights(body, inner(state, name), name)
    return None


def linear_head(
    source: str, head: StateDict, *, scales: Tensor | None = None, known: Iterable[str] = ()
) -> Classifier:
    """The classifier W x + b, or scales * (W x + b), as a linear head.

    Args:
        source: path for messages.
        head: `weight` (C, D), and `bias` (C,) where it has one.
        scales: a factor for each class (C,) or (1, C); it goes into W and b.
        known: names in `head` beside those two that the family has taken care of.

    Raises:
        CheckpointError: if the head holds something else, or values that are no finite numbers.
    """
    left_over = sorted(set(head) - {"weight", "bias", *known})
    if left_over:
        raise CheckpointError(
            f"{source}: its classifier holds {', '.join(left_over)} beside weight and bias, so it "
            f"is no linear layer that this family knows."
        )
    weight = array(source, "the classifier's weight", head["weight"])
    bias = array(source, "the classifier's bias", head["bias"]) if "bias" in head else None
    if weight.ndim != MATRIX or (bias is not None and bias.shape != weight.shape[:1]):
        raise CheckpointError(
            f"{source}: its classifier has the shapes {weight.shape} and "
            f"{None if bias is None else bias.shape}; a linear layer has (C, D) and (C,)."
        )
    if scales is not None:
        factors = array(source, "the classifier's scales", scales).reshape(-1)
        if factors.shape != weight.shape[:1]:
            raise CheckpointError(
                f"{source}: its classifier has {len(factors)} scales for {len(weight)} classes."
            )
        weight = weight * factors[:, None]
        bias = None if bias is None else bias * factors
    return Classifier(weight, bias)


def cosine_head(
    source: str, head: StateDict, width: int, *, transposed: bool, scale: float = 1.0
) -> Classifier:
    """The classifier scale * cosine(W, x) as a linear head on normalised features.

    Args:
        source: path for messages.
        head: `weight` alone.
        width: D, the width of the features.
        transposed: the weight is (D, C), as LDAM's and RIDE's NormedLinear keep it.
        scale: factor of the cosines.

    Raises:
        CheckpointError: if the head holds more, or has another shape.
    """
    weight = array(source, "the classifier's weight", head["weight"])
    if set(head) != {"weight"} or weight.ndim != MATRIX or weight.shape[not transposed] != width:
        wanted = f"({width}, C)" if transposed else f"(C, {width})"
        raise CheckpointError(
            f"{source}: a cosine classifier is one weight {wanted}; this one holds "
            f"{', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in head.items())}."
        )
    return Classifier(weight.T if transposed else weight, scale=scale, normalized=True)


def scaled_or_linear_head(source: str, head: StateDict) -> tuple[Classifier, str]:
    """The classifier of cRT or LWS and what it is: only LWS's (Kang et al. 2020) has `scales`.

    Args:
        source: path for messages.
        head: `weight` (C, D), `bias` (C,) where it has one, and LWS's `scales` (C,) or (1, C).

    Raises:
        CheckpointError: as `linear_head`.
    """
    scales = head.get(SCALES)
    classifier = linear_head(source, head, scales=scales, known=(SCALES,))
    if scales is None:
        return classifier, "linear"
    return classifier, "LWS, scales * (W x + b): folded into W and b"


def normed_or_linear_head(source: str, head: StateDict, width: int) -> tuple[Classifier, str]:
    """The classifier of LDAM's code and what it is: only its NormedLinear (D, C) has no bias.

    Args:
        source: path for messages.
        head: `weight`, and `bias` where it has one.
        width: D, the width of the features.

    Raises:
        CheckpointError: if the head is neither.
    """
    if "bias" in head:
        return linear_head(source, head), "linear"
    classifier = cosine_head(source, head, width, transposed=True)
    return classifier, "NormedLinear (D, C): cosine without a scale"


def assemble(
    payload: Payload,
    body: StateDict,
    classifier: Classifier,
    backbone: Backbone,
    *,
    family: str,
    preprocessing: Preprocessing | None = None,
    head: str = "linear",
    notes: tuple[str, ...] = (),
    variant: str = "",
    left_out: Iterable[str] = (),
    rule: TrainingRule | None = None,
) -> TrainedModel:
    """The backbone with these weights and this head, frozen and in evaluation mode.

    Args:
        payload: the file.
        body: the weights before the classifier, by the backbone's own names.
        classifier: the old head.
        backbone: the network.
        family: name of the checkpoint family.
        preprocessing: of test images; not given: what the peers use for networks of its kind.
        head: what the file's classifier is, in words.
        notes: what a user should know.
        variant: rule and settings that the user named.
        left_out: weights in the file that neither features nor logits need.
        rule: what the head needs of the training data.

    Raises:
        CheckpointError: if a weight is missing, left over or of a wrong shape.
    """
    n_classes, width = classifier.weight.shape
    if width != backbone.feature_width:
        raise CheckpointError(
            f"{payload.path}: its classifier takes features of width {width}; those of "
            f"{backbone.name} are {backbone.feature_width} wide. Name the right family and "
            f"backbone with --model FAMILY:BACKBONE."
        )
    if preprocessing is None:
        preprocessing = CIFAR_PREPROCESSING if is_small(backbone) else IMAGENET_PREPROCESSING
    network = _unfilled(backbone, n_classes)
    put_module(network, backbone.classifier, nn.Identity())
    load_strictly(network, body, payload.path)
    put_module(network, backbone.classifier, head_module(classifier))
    return TrainedModel(
        family=family,
        backbone=backbone.name,
        module=network.eval().requires_grad_(False),
        classifier_name=backbone.classifier,
        classifier=classifier,
        preprocessing=preprocessing,
        source=payload.path,
        sha256=payload.sha256,
        notes=notes,
        head=head,
        variant=variant,
        left_out=tuple(left_out),
        rule=rule,
    )


def _unfilled(backbone: Backbone, n_classes: int) -> nn.Module:
    """The network with memory for its weights but, where that does no harm, no values in it.

    Every weight comes from the file. Drawing random ones first takes most of the time that loading
    a large network takes, and would move the caller's random numbers.
    """
    network = without_memory(partial(backbone.build, n_classes))
    names = {name for name, _ in network.named_buffers()}
    if not names <= network.state_dict().keys():
        return backbone.build(n_classes)  # some values are in no file
    network.to_empty(device="cpu")
    for name, buffer in network.named_buffers():
        if name.endswith(OPTIONAL_SUFFIX):
            buffer.zero_()
    return network


def array(source: str, name: str, tensor: Tensor) -> NDArray[np.float32]:
    """The tensor as float32 numbers.

    Raises:
        CheckpointError: if it holds anything but finite numbers.
    """
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        kind = tensor.dtype if tensor.layout == torch.strided else "sparse"
        raise CheckpointError(f"{source}: {name} is {kind}; save the model dense and in float32.")
    values = cast("NDArray[np.float32]", tensor.detach().float().numpy().copy())
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{source}: {name} holds NaN or infinity: the training diverged or the file is "
            f"damaged; use another checkpoint."
        )
    return values
