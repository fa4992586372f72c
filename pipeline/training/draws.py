"""Random draws that depend on seed, epoch and image alone.

Each epoch draws from generators of its own. A training that goes on after an interruption then
needs no generator's state, and the draws are the same for any number of threads and readers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from pipeline.seeds import derived_seed


class EpochDraws:
    """The generators of one epoch.

    Args:
        seed: of the training.
        epoch: from 0.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self.order = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
        """Of the mini-batches."""
        self.images = torch.Generator().manual_seed(derived_seed(seed, "images", epoch))
        """Of shifts, flips and mixup's partners, on the CPU."""
        self.shares = np.random.default_rng(derived_seed(seed, "shares", epoch))
        """Of mixup's shares: torch draws from Beta only globally."""


@contextmanager
def global_seed(*words: object) -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore them behind it.

    First weights, dropout and stochastic depth can draw from nothing else.
    """
    # Asking a GPU that nobody uses for its generator would wake it.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(*words))
        yield
