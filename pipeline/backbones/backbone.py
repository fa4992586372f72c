"""What a backbone is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from pipeline.datasets.preprocessing import Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A network whose last step is one classifier on (B, D) features."""

    name: str
    """How users and identities call it."""

    build: Callable[[int], nn.Module]
    """Number of classes -> the network with its usual random initialisation."""

    classifier: str
    """Dotted name of the classifier module, a `torch.nn.Linear`."""

    feature_width: int
    """D, the width of what goes into the classifier."""

    preprocessing: Preprocessing
    """What its inputs usually are, where neither a checkpoint nor the user says more."""

    unused: tuple[str, ...] = ()
    """How the names of weights begin that a file may hold and only training uses."""
