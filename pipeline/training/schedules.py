"""Learning rate and class weights over a training: functions of the epoch, without state."""

from __future__ import annotations

import math

from torch import Tensor

from pipeline.config import PretrainConfig
from pipeline.config.pretrain import step_epochs
from pipeline.losses.cross_entropies import effective_weights

STEP = 0.01


def learning_rate(config: PretrainConfig, epoch: int, fraction: float) -> float:
    """The learning rate of one step.

    Args:
        config: rate, schedule and epochs.
        epoch: from 0.
        fraction: of the epoch that lies behind, from 0 to below 1.
    """
    rate = config.lr
    if config.warmup_epochs:
        rate *= min(1.0, (epoch + 1) / config.warmup_epochs)
    if config.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * (epoch + fraction) / config.epochs)) / 2
    elif config.schedule != "constant":
        for step in step_epochs(config.epochs):
            if epoch >= step:
                rate *= STEP
    return rate


def class_weights(config: PretrainConfig, epoch: int, class_counts: Tensor) -> Tensor | None:
    """Weight of each class in this epoch (C,), with mean 1; None where all weigh the same.

    Deferred re-weighting of LDAM-DRW: `effective_weights` from the first step of the rate on.

    Args:
        config: schedule, epochs and beta.
        epoch: from 0.
        class_counts: (C,) training images of each class, 1 or more.
    """
    if config.schedule != "ldam-drw" or epoch < step_epochs(config.epochs)[0]:
        return None
    return effective_weights(class_counts, config.beta).float()
