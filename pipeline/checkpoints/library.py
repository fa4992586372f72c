"""State dicts of networks that a library builds: torchvision's, timm's, and one's own factories."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, partial

import torchvision.models
from torch import Tensor, nn

from cache import Classifier
from pipeline.backbones import Backbone, CosineLinear, find_backbone
from pipeline.backbones.finding import without_memory
from pipeline.backbones.torchvision_models import AUXILIARY, PREFIX
from pipeline.checkpoints.mapping import StateDict, load_strictly, mismatches
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import shapes_of
from pipeline.errors import CheckpointError, ConfigError

FEWEST_WEIGHTS = 10
"""Weights that any of torchvision's networks has more of; AlexNet has 16."""

N_FIRST, N_SHARED = 4, 2
"""Networks of one kind have two of the first four names in common."""


def load_library(
    payload: Payload,
    state: StateDict,
    backbone: Backbone,
    *,
    family: str,
    notes: tuple[str, ...] = (),
) -> TrainedModel:
    """The library's network with these weights, its own classifier among them.

    Args:
        payload: the file.
        state: its weights, by the network's own names.
        backbone: the network.
        family: name of the checkpoint family.
        notes: what a user should know.

    Raises:
        CheckpointError: if the classifier is not there, or a weight is missing, left over or of a
            wrong shape.
    """
    used = _without(backbone.unused, state)
    n_classes = count_classes(backbone, used)
    if n_classes is None:
        raise CheckpointError(
            f"{payload.path}: holds no classifier of {backbone.name} "
            f"({backbone.classifier}.weight): it is of another network, or its head was left out."
        )
    network = backbone.build(n_classes)
    load_strictly(network, used, payload.path)
    model = model_of(network, backbone, family=family, source=payload.path, sha256=payload.sha256)
    return replace(model, notes=notes, left_out=tuple(key for key in state if key not in used))


def model_of(
    network: nn.Module, backbone: Backbone, *, family: str, source: str, sha256: str
) -> TrainedModel:
    """The network with the weights that it has, its own classifier among them.

    Args:
        network: what the backbone builds; left frozen and in evaluation mode.
        backbone: its description.
        family: name of the checkpoint family.
        source: path of the checkpoint, or what else the weights are called.
        sha256: of the checkpoint file.

    Raises:
        CheckpointError: if the classifier has no weight matrix.
    """
    network = network.eval().requires_grad_(requires_grad=False)
    return TrainedModel(
        family=family,
        backbone=backbone.name,
        module=network,
        classifier_name=backbone.classifier,
        classifier=linear_form(source, network.get_submodule(backbone.classifier)),
        preprocessing=backbone.preprocessing,
        source=source,
        sha256=sha256,
    )


def linear_form(source: str, module: nn.Module) -> Classifier:
    """A classifier module as the linear head that it is.

    Raises:
        CheckpointError: if it has no weight matrix.
    """
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor):
        raise CheckpointError(
            f"{source}: its classifier is a {type(module).__name__} without a weight matrix."
        )
    is_cosine = isinstance(module, CosineLinear)
    return Classifier(
        weight=weight.detach().float().flatten(1).numpy(),
        bias=bias.detach().float().numpy() if isinstance(bias, Tensor) else None,
        scale=module.scale if isinstance(module, CosineLinear) else 1.0,
        normalized=is_cosine,
    )


def count_classes(backbone: Backbone, state: StateDict) -> int | None:
    """C, read off the weight whose shape depends on it; None where that is not in the file."""
    two, three = (shapes_of(_outline(backbone, n).state_dict()) for n in (2, 3))
    for key, shape in two.items():
        differing = [axis for axis, size in enumerate(shape) if size != three[key][axis]]
        if differing and key in state and state[key].ndim == len(shape):
            return int(state[key].shape[differing[0]])
    return None


def fits(backbone: Backbone, state: StateDict) -> bool:
    """Whether the state dict fills the network to the last key, head included."""
    n_classes = count_classes(backbone, state)
    if n_classes is None:
        return False
    return not mismatches(_outline(backbone, n_classes), _without(backbone.unused, state))


def hinted_backbone(payload: Payload, state: StateDict) -> Backbone | None:
    """The network that the file's own `arch` names in torchvision or timm, if it fits."""
    arch = payload.content.get("arch")
    for library in ("torchvision", "timm") if isinstance(arch, str) else ():
        try:
            backbone = find_backbone(f"{library}/{arch}")
        except ConfigError:
            continue
        if fits(backbone, state):
            return backbone
    return None


def torchvision_backbone(state: StateDict) -> Backbone | None:
    """The one network of torchvision that the state dict fills; None where none or two are."""
    if len(state) <= FEWEST_WEIGHTS:
        return None
    found = []
    for name in _similar(state):
        outline = _torchvision_shapes(name)
        shapes = shapes_of(_without(AUXILIARY.get(name, ()), state))
        # The number of classes is the only thing in which trained networks differ.
        if shapes.keys() == outline.keys() and all(
            shapes[key][1:] == outline[key][1:] for key in outline
        ):
            backbone = find_backbone(f"{PREFIX}{name}")
            if fits(backbone, state):
                found.append(backbone)
    return found[0] if len(found) == 1 else None


def _without(unused: tuple[str, ...], state: StateDict) -> StateDict:
    """The weights whose names begin in none of these ways."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(unused)}


def _similar(state: StateDict) -> Iterator[str]:
    """Torchvision's networks of the kinds whose first names the state dict has."""
    kinds: dict[str, list[str]] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        builder = inspect.unwrap(torchvision.models.get_model_builder(name))
        kinds.setdefault(builder.__module__, []).append(name)
    for names in kinds.values():
        first = list(_torchvision_shapes(names[0]))[:N_FIRST]
        if sum(key in state for key in first) >= N_SHARED:
            yield from names


@cache
def _torchvision_shapes(name: str) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the weights of one of torchvision's networks with one class."""
    special = {"aux_logits": False, "init_weights": False} if name in AUXILIARY else {}
    build = partial(torchvision.models.get_model, name, num_classes=1, **special)
    return shapes_of(without_memory(build).state_dict())


def _outline(backbone: Backbone, n_classes: int) -> nn.Module:
    """The network without memory for its weights."""
    return without_memory(partial(backbone.build, n_classes))
