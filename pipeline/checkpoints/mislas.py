"""MiSLAS (Zhong et al. 2021), stages 1 and 2.

Feature network, classifier, and stage 2's `learned_norm` lie in state dicts of their own; the
logits are learned_norm * (W x + b). On Places the last block is a network of its own too, `block`:
it is the third of `layer4`. On ImageNet, Places and iNaturalist the code re-orders the classes by
descending number of training images, so the head's rows are not in the order of the labels.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.checkpoints.building import assemble, linear_head
from pipeline.checkpoints.class_order import DescendingCounts
from pipeline.checkpoints.mapping import StateDict, inner
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import chosen_backbone, is_small
from pipeline.checkpoints.variants import parse_variant
from pipeline.errors import CheckpointError

NAME = "mislas"

BODY, HEAD = "state_dict_model", "state_dict_classifier"
BLOCK, NORM = "state_dict_block", "state_dict_lws_model"

IN_LABEL_ORDER = "label-order"
"""Rule of users whose head was never re-ordered."""

REMEDY = (
    "Give it to nolb extract with --class-order FILE, whose j-th number is the label of row j "
    "(numpy.argsort of the negative counts, as at training); if the rows were never re-ordered, "
    f"say --model {NAME}:{IN_LABEL_ORDER}."
)


def detect(payload: Payload) -> str | None:
    """The two state dicts under their own names."""
    if any(payload.mapping(key) is None for key in (BODY, HEAD)):
        return None
    return ", ".join(key for key in (BODY, HEAD, BLOCK, NORM) if key in payload.content)


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names a backbone, or `label-order`.

    Raises:
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    body, head = _part(payload, BODY), inner(_part(payload, HEAD), "fc")
    if not body or "weight" not in head:
        raise payload.foreign_to(NAME, f"its weights in {BODY} and {HEAD}, the latter under fc")
    wish = parse_variant(NAME, variant, rules=(IN_LABEL_ORDER,))
    body = _with_block(payload, body)
    backbone = chosen_backbone(payload.path, body, wish.backbone, len(head))
    norm = _norm(payload)
    classifier = linear_head(payload.path, head, scales=norm)
    reordered = not is_small(backbone) and wish.rule != IN_LABEL_ORDER
    return assemble(
        payload,
        body,
        classifier,
        backbone,
        family=NAME,
        head="linear" if norm is None else "learned_norm * (W x + b): folded into W and b",
        notes=_notes(payload, norm is not None),
        variant=wish.rule or "",
        rule=DescendingCounts(REMEDY) if reordered else None,
    )


def _part(payload: Payload, key: str) -> StateDict:
    """One of the file's state dicts, by names without `module.`; empty where it is not there."""
    return payload.state((key,)) or {}


def _with_block(payload: Payload, body: StateDict) -> StateDict:
    """The feature network with the separate block as the next one of its last stage."""
    block = _part(payload, BLOCK)
    if not block:
        return body
    last = max((int(key.split(".")[1]) for key in body if key.startswith("layer4.")), default=-1)
    return {**body, **{f"layer4.{last + 1}.{key}": tensor for key, tensor in block.items()}}


def _norm(payload: Payload) -> Tensor | None:
    """Stage 2's factor of each class, (1, C).

    Raises:
        CheckpointError: if its state dict holds something else.
    """
    part = _part(payload, NORM)
    if part and set(part) != {"learned_norm"}:
        raise CheckpointError(
            f"{payload.path}: {NORM} holds {', '.join(part)}, not learned_norm alone."
        )
    return part.get("learned_norm")


def _notes(payload: Payload, stage_two: bool) -> tuple[str, ...]:
    notes = []
    if stage_two:
        notes.append("Stage 2 moved BatchNorm's statistics: backbone and head are both from here.")
    if BLOCK in payload.content:
        notes.append(f"The separate block of {BLOCK} is the last one of layer4.")
    return tuple(notes)
