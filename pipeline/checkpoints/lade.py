"""LADE (Hong et al. 2021): BBN's two-branch ResNet on CIFAR, ResNeXt-50 and ResNet-152 elsewhere.

Its files are classifier-balancing's with the features' running mean `embed` beside them. What its
evaluation adds to W x + b depends on the training loss, which the file does not tell:

- `ce`, plain softmax: minus the log prior of the training set ("PC softmax");
- `lade` and `balanced-softmax`: plus the log prior of the test set, -log C where it is balanced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cache import Classifier
from pipeline.checkpoints.building import assemble, linear_head
from pipeline.checkpoints.model import TrainedModel, TrainingRule
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import chosen_backbone
from pipeline.checkpoints.two_networks import required, two_networks
from pipeline.checkpoints.variants import parse_variant
from pipeline.errors import CheckpointError, UndecidedError

NAME = "lade"

RULES: Mapping[str, str] = {
    "ce": "trained with plain softmax (ce.yaml): minus the log prior of the training data",
    "lade": "trained with LADE (lade.yaml): W x + b on a balanced test set",
    "balanced-softmax": "trained with balanced softmax (balanced_softmax.yaml): likewise",
}
"""What users write after `--model lade:`."""

SUBTRACTING = "ce"


@dataclass(frozen=True)
class TrainingPrior:
    """Minus the log prior of the training data, in the bias."""

    @property
    def need(self) -> str:
        """What is needed and why."""
        return (
            "The training images' class counts give the log prior that the old bias is lowered by."
        )

    def adapt(self, classifier: Classifier, class_counts: NDArray[np.int64]) -> Classifier:
        """The head with log(N_c / N) subtracted from b_c.

        Raises:
            CheckpointError: if a class has no training image, or their number is not the head's.
        """
        if len(class_counts) != len(classifier.weight) or (class_counts < 1).any():
            raise CheckpointError(
                f"LADE's rule subtracts the log prior of the training data, so each of the "
                f"{len(classifier.weight)} classes needs a training image; "
                f"{int((class_counts > 0).sum())} have one."
            )
        return _shifted(classifier, -np.log(class_counts / class_counts.sum()))


def detect(payload: Payload) -> str | None:
    """Two networks and the running mean `embed`, or BBN's two branches."""
    found = two_networks(payload)
    if found is None:
        return None
    branches = any(key.startswith("cb_block.") for key in found.body)
    if "embed" not in payload.content and not branches:
        return None
    evidence = "embed beside" if "embed" in payload.content else "cb_block and rb_block in"
    return f"{evidence} feat_model and classifier with {len(found.body)} and {len(found.head)} keys"


def load(payload: Payload, variant: str | None) -> TrainedModel:
    """The model; `variant` names one of `RULES`, and perhaps a backbone.

    Raises:
        UndecidedError: if no rule is named.
        CheckpointError: if the file lacks the family's parts, or a weight does not fit.
    """
    found = required(payload, NAME)
    wish = parse_variant(NAME, variant, rules=RULES)
    if wish.rule is None:
        raise UndecidedError(
            f"{payload.path}: is a file of LADE's code, which does not hold the loss that it was "
            f"trained with, and the rule at test time depends on it. Name it: "
            + "; ".join(f"--model {NAME}:{rule} ({what})" for rule, what in RULES.items())
            + ".",
            choices={f"{NAME}:{rule}": what for rule, what in RULES.items()},
        )
    backbone = chosen_backbone(payload.path, found.body, wish.backbone, len(found.head))
    classifier = linear_head(payload.path, found.head)
    rule: TrainingRule | None = None
    if wish.rule == SUBTRACTING:
        rule = TrainingPrior()
    else:
        # The log prior of a balanced test set: the same number for every class, so it changes no
        # prediction; with it the logits are those of LADE's own evaluation.
        n_classes = len(classifier.weight)
        classifier = _shifted(classifier, np.full(n_classes, -math.log(n_classes)))
    return assemble(
        payload,
        found.body,
        classifier,
        backbone,
        family=NAME,
        head=f"linear, rule {wish.rule}: {RULES[wish.rule]}",
        variant=wish.rule,
        rule=rule,
    )


def _shifted(classifier: Classifier, offset: NDArray[np.float64]) -> Classifier:
    """The head with an offset (C,) added to its logits."""
    bias = np.zeros(len(offset), np.float32) if classifier.bias is None else classifier.bias
    return replace(classifier, bias=bias + offset.astype(np.float32))
