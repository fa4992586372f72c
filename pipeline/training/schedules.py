"""Learning rate and class weights over a training: functions of the epoch, without state."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.config import PretrainConfig

FIRST_STEP, SECOND_STEP = 0.8, 0.9
"""Shares of the epochs after which LDAM's code lowers the rate: 160 and 180 of 200."""

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
        for share in (FIRST_STEP, SECOND_STEP):
            if epoch >= step_epoch(config, share):
                rate *= STEP
    return rate


def step_epoch(config: PretrainConfig, share: float) -> int:
    """First epoch, from 0, after that share of all."""
    return round(share * config.epochs)


def class_weights(config: PretrainConfig, epoch: int, class_counts: Tensor) -> Tensor | None:
    """Weight of each class in this epoch (C,), with mean 1; None where all weigh the same.

    Deferred re-weighting of LDAM-DRW: from 80 % of the epochs on, the inverse of the effective
    numbers (1 - beta^n) / (1 - beta) of Cui et al. 2019.

    Args:
        config: schedule, epochs and beta.
        epoch: from 0.
        class_counts: (C,) training images of each class, 1 or more.
    """
    if config.schedule != "ldam-drw" or epoch < step_epoch(config, FIRST_STEP):
        return None
    # 1 - beta^n by expm1: for beta near 1 the difference would lose its digits.
    beta = torch.tensor(config.beta, dtype=torch.float64, device=class_counts.device)
    weights = 1 / -torch.expm1(class_counts.double() * beta.log())
    return (weights / weights.mean()).float()
