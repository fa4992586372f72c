"""How a linear head is fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.config.checks import check_choices, check_device, require
from pipeline.config.parsing import parse_size


@dataclass(frozen=True)
class FitConfig:
    """How `fit-head` re-trains the linear head; the defaults suit features without views."""

    loss: Literal["gml", "cross-entropy", "balanced-softmax"] = "gml"
    """Geometric Mean Loss, or one of the two losses to compare it with."""

    sampler: Literal["instance", "class-balanced", "class-aware"] = "instance"
    """How mini-batches are drawn from the training rows."""

    samples_per_class: int = 4
    """Rows of each chosen class in a class-aware mini-batch."""

    epochs: int = 10
    """Passes over the training rows (or as many steps, for the other samplers)."""

    batch_size: int = 128
    """Rows in one step."""

    lr: float = 0.1
    """Learning rate of the first step; it falls to 0 along a cosine."""

    momentum: float = 0.9
    """Momentum of SGD."""

    weight_decay: float = 2e-4
    """Weight decay of SGD, on weight and bias."""

    views: bool = True
    """Draw each row's features at random from its clean image and its stored views."""

    seed: int = 0
    """Seed of the initial head, of the mini-batches and of the drawn views."""

    memory: str | None = None
    """Most memory of the whole process, as 2GiB; larger features are read from a scratch file in
    the temporary folder (TMPDIR), with the same result. Not set: all are held in memory."""

    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:K` or `auto`; a small head is fitted fastest on the CPU."""

    def __post_init__(self) -> None:
        """Refuse values that no fit could use."""
        check_choices(self)
        require("epochs", self.epochs, self.epochs >= 1, "1 or more")
        require("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        require(
            "samples_per_class", self.samples_per_class, self.samples_per_class >= 1, "1 or more"
        )
        require("lr", self.lr, 0 < self.lr < math.inf, "above 0")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1")
        require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        require("seed", self.seed, 0 <= self.seed < 2**63, "from 0 to 2^63 - 1")
        if self.memory is not None:
            parse_size(self.memory)
        check_device(self.device)
        if self.sampler == "class-aware":
            require(
                "samples_per_class", self.samples_per_class,
                self.samples_per_class <= self.batch_size, "at most the batch size",
            )  # fmt: skip
