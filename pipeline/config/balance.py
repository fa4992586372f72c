"""How `balance-head` changes a head on images without labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cache.records import Settings
from pipeline.config.checks import check_choices, require

Mean = Literal["harmonic", "geometric", "arithmetic"]
"""Which mean of the recalls is lifted."""


@dataclass(frozen=True)
class BalanceConfig(Settings):
    """How a head is balanced."""

    mean: Mean = "harmonic"
    """Which mean of the estimated recalls to raise: the harmonic one cares most for the lowest, the
    arithmetic one keeps the accuracy."""

    temperature: float = 1.5
    """Divides the logits before they are taken as probabilities. Heads are too sure of images that
    they were not fitted on."""

    refit: float = 0.0
    """Average the head with weights that are fitted on these images to what it believes of them;
    they count by this share, 0.5 being a good one where all classes are equally frequent and there
    are 20 images of each or more. 0 changes the biases alone."""

    def __post_init__(self) -> None:
        """Refuse values that no head could be balanced with."""
        check_choices(self)
        fits = 0 < self.temperature < math.inf
        require("temperature", self.temperature, fits, "above 0")
        require("refit", self.refit, 0 <= self.refit <= 1, "from 0 to 1")
