"""RIDE (Wang et al. 2021), with and without expert assignment, on CIFAR and large images.

The number of experts, their widths and whether their heads are cosines are read from the tensors;
the scale of 30 that the network multiplies cosines with is in none of them. The mean of the
experts' logits becomes one linear head on their concatenated (normalised) features. Expert
assignment asks some experts for some images only; here all of them are asked for every image.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from cache import Classifier
from pipeline.backbones import Backbone
from pipeline.backbones.registry import CIFAR_PREPROCESSING
from pipeline.backbones.residual import IMAGENET_PREPROCESSING
from pipeline.backbones.ride_resnet import CLASSIFIER, ExpertNetwork, ExpertPlan
from pipeline.checkpoints.building import MATRIX, array, assemble
from pipeline.checkpoints.mapping import StateDict, inner
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import SAVED_OR_BARE, Payload
from pipeline.checkpoints.recognition import residual_form, shapes_of
from pipeline.checkpoints.variants import parse_number, parse_variant
from pipeline.errors import CheckpointError

NAME = "ride"

SCALE = 30.0
"""Factor of the cosines inside RIDE's networks, in all of its configurations."""

BACKBONE, HEADS, HELP = "backbone", "linears.", "expert_help_pred_"
"""How the names of weights begin: of all, of the experts' heads, and of expert assignment."""

_SHARED_STAGE = re.compile(r"layer(\d)\.(\d+)\.")
_EXPERT_STAGE = re.compile(r"layer(\d)s\.(\d+)\.(\d+)\.")

_SMALL_STEM = 3  # side of the first convolution's kernel on small images


def detect(payload: Payload) -> str | None:
    """`backbone.linears.{i}`: one head an expert."""
    state = _state(payload)
    n_experts = 0 if state is None else len(_heads(state))
    if state is None or not n_experts:
        return None
    help_needed = " with expert assignment" if _help_keys(state) else ""
    shape = tuple(state[f"{HEADS}0.weight"].shape)
    return f"backbone.linears of {n_experts} experts, weight {shape}{help_needed}"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` may give `scale=S`, the factor of the cosines.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    state = _state(payload)
    if state is None or not _heads(state):
        raise payload.foreign_to(NAME, "backbone.linears.* in state_dict, one an expert")
    plan = read_plan(payload.path, state)
    # The network is not to be chosen; its name is taken where an identity holds it.
    wish = parse_variant(NAME, variant, rules=(plan.name,), settings=("scale",))
    given, meaning = wish.settings.get("scale", str(SCALE)), "the scale is a number above 0"
    scale = parse_number(NAME, "scale", given, meaning=meaning, above=0)
    classifier = _joined_head(payload.path, _heads(state), plan, scale)
    words = f"mean over {plan.n_experts} experts of W x + b"
    notes: tuple[str, ...] = ()
    if plan.cosine:
        words = f"mean over {plan.n_experts} experts of {scale:g} * cosine"
        notes = (
            f"The scale {scale:g} of the cosines is RIDE's own; the file does not hold it. If "
            f"yours was another: --model {NAME}:scale=S. Features are each expert's, normalised.",
        )
    left_out = _help_keys(state)
    if left_out:
        notes += (
            "Expert assignment would ask only some experts for some images; features and old "
            "logits are those of all experts, which a head can be re-trained on.",
        )
    return assemble(
        payload,
        _renamed(state),
        classifier,
        _backbone(plan),
        family=NAME,
        head=words,
        notes=notes,
        left_out=left_out,
        variant=f"scale={scale:g}" if "scale" in wish.settings else "",
    )


def read_plan(source: str, state: StateDict) -> ExpertPlan:
    """The network's form, from its weights.

    Raises:
        CheckpointError: if they are not those of such a network.
    """
    try:
        return _read_plan(state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{source}: has RIDE's experts, but not the stages of its networks ({error}): weights "
            f"are missing, or the network is another."
        ) from None


def _read_plan(state: StateDict) -> ExpertPlan:
    """The network's form; weights of another network lead to the errors that `read_plan` catches.

    Stages that the experts share are `layer{stage}.{block}.*`, those of their own
    `layer{stage}s.{expert}.{block}.*`.
    """
    stages: dict[int, str] = {}
    places: list[tuple[int, int]] = []
    for key in state:
        if (shared := _SHARED_STAGE.match(key)) is not None:
            stage, block = int(shared[1]), int(shared[2])
            stages[stage] = f"layer{stage}"
        elif (own := _EXPERT_STAGE.match(key)) is not None:
            stage, block = int(own[1]), int(own[3])
            stages[stage] = f"layer{stage}s.0"
        else:
            continue
        places.append((stage, block))
    order = sorted(stages)
    form = residual_form(shapes_of(state), places, f"{stages.get(1, 'layer1')}.0")
    last, expansion = ("conv3", 4) if form.bottleneck else ("conv2", 1)
    planes = [len(state[f"{stages[stage]}.0.{last}.weight"]) // expansion for stage in order]
    heads = _heads(state)
    first = heads[0]["weight"]
    return ExpertPlan(
        small_images=state["conv1.weight"].shape[-1] == _SMALL_STEM,
        blocks=form.blocks,
        planes=tuple(planes),
        n_shared=sum(not stages[stage].endswith("s.0") for stage in order),
        n_experts=len(heads),
        bottleneck=form.bottleneck,
        groups=form.groups,
        group_width=form.group_width * 64 // planes[0],
        cosine="bias" not in heads[0] and first.ndim == MATRIX,
    )


def _joined_head(
    source: str, heads: list[dict[str, Tensor]], plan: ExpertPlan, scale: float
) -> Classifier:
    """The mean of the experts' logits as one head on their concatenated features.

    Args:
        source: path for messages.
        heads: of each expert, `weight` (D, C) for cosines, else `weight` (C, D) and `bias` (C,).
        plan: the network's form; D is its experts' width.
        scale: factor of the cosines.

    Raises:
        CheckpointError: if the heads are not all of one form.
    """
    keys, width = {"weight"} if plan.cosine else {"weight", "bias"}, plan.expert_width
    forms = {tuple(head["weight"].shape) for head in heads if set(head) == keys}
    if len(forms) != 1 or any(set(head) != keys for head in heads):
        raise CheckpointError(f"{source}: its {len(heads)} experts have heads of different forms.")
    if next(iter(forms))[0 if plan.cosine else 1] != width:
        raise CheckpointError(
            f"{source}: its experts' heads are {next(iter(forms))}, their features {width} wide."
        )
    if plan.cosine:
        columns = [torch.nn.functional.normalize(head["weight"].float(), dim=0) for head in heads]
        weight = array(source, "the experts' heads", torch.cat(columns).T)
        return Classifier(weight, scale=scale / len(heads))
    weight = array(source, "the experts' heads", torch.cat([head["weight"] for head in heads], 1))
    bias = array(source, "the experts' biases", torch.stack([head["bias"] for head in heads]))
    return Classifier(weight, bias.mean(axis=0), scale=1 / len(heads))


def _renamed(state: StateDict) -> StateDict:
    """The weights before the heads, by the names of `ExpertNetwork`."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.startswith((HEADS, HELP)):
            continue
        own = re.match(r"layer(\d)s\.(\d+)\.(.*)", key)
        if own is not None:
            renamed[f"experts.{own[2]}.layer{own[1]}.{own[3]}"] = tensor
        else:
            renamed[f"shared.{key}"] = tensor
    return renamed


def _backbone(plan: ExpertPlan) -> Backbone:
    return Backbone(
        name=plan.name,
        build=lambda n_classes: ExpertNetwork(plan, n_classes),
        classifier=CLASSIFIER,
        feature_width=plan.n_experts * plan.expert_width,
        preprocessing=CIFAR_PREPROCESSING if plan.small_images else IMAGENET_PREPROCESSING,
    )


def _heads(state: StateDict) -> list[dict[str, Tensor]]:
    """The experts' heads in their order."""
    heads: list[dict[str, Tensor]] = []
    while f"{HEADS}{len(heads)}.weight" in state:
        heads.append(inner(state, f"{HEADS}{len(heads)}"))
    return heads


def _help_keys(state: StateDict) -> list[str]:
    """Names in the file of the weights that decide whether the next expert is asked."""
    return [f"{BACKBONE}.{key}" for key in state if key.startswith(HELP)]


def _state(payload: Payload) -> StateDict | None:
    """The weights under `backbone.`, if there are no others."""
    state = payload.state(*SAVED_OR_BARE)
    if state is None or not all(key.startswith(f"{BACKBONE}.") for key in state):
        return None
    return inner(state, BACKBONE)
