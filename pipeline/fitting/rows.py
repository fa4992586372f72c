"""What a head is fitted on, and what comes out.

N training rows, C classes, D feature width, V views.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.fitting.shares import ALONE, Batch, IndexBatch, Share

BLOCK_VALUES = 2**20
"""Values of the features that a pass over all rows looks at together: 8 MiB as float64, of which a
computation holds a few copies."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A fixed linear head, such as the store's old one."""

    weight: Tensor
    """(C, D)"""

    bias: Tensor
    """(C,)"""

    normalized: bool = False
    """Features are brought to length 1 first."""

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., C)."""
        rows = functional.normalize(features, dim=-1) if self.normalized else features
        return rows @ self.weight.T + self.bias


class Rows(Protocol):
    """Training rows, wherever they are; the solvers see no more of them than this."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64 in 0..C-1."""

    @property
    def class_counts(self) -> Tensor:
        """(C,) int64, rows of each class; all above 0."""

    @property
    def n_versions(self) -> int:
        """1 + V."""

    @property
    def like(self) -> Tensor:
        """(0, D), of the features' type and on the device where a fit runs."""

    @property
    def teacher(self) -> LinearMap | None:
        """The old head, where there is one."""

    @property
    def share(self) -> Share:
        """How this process's rows come together with those of others."""

    def stream(self, batches: Iterator[IndexBatch]) -> Iterator[Batch]:
        """Features and labels of one step after the other, in order; may read ahead."""


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Training rows in memory, all on one device."""

    features: Tensor
    """(1 + V, N, D) floating point, finite: the clean features, then those of each view."""

    labels: Tensor
    """(N,) int64 in 0..C-1."""

    class_counts: Tensor
    """(C,) int64, rows of each class; all above 0."""

    teacher: LinearMap | None = None
    """The old head, where there is one."""

    @property
    def n_versions(self) -> int:
        """1 + V."""
        return len(self.features)

    @property
    def like(self) -> Tensor:
        """(0, D)."""
        return self.features[0, :0]

    @property
    def share(self) -> Share:
        """All rows are here."""
        return ALONE

    def stream(self, batches: Iterator[IndexBatch]) -> Iterator[Batch]:
        """Features and labels of one step after the other."""
        n_rows = len(self.labels)
        features = self.features.flatten(0, 1)
        for batch in batches:
            index = batch.to(features.device, non_blocking=True)
            # Without views the numbers are rows already: one operation less in a short step.
            of = index if self.n_versions == 1 else index.remainder(max(1, n_rows))
            yield Batch(functional.embedding(index, features), self.labels.take(of))


@dataclass(frozen=True)
class Convergence:
    """How a solver that runs until it converges came to its end."""

    converged: bool
    """Whether the gradient fell below the tolerance."""

    iterations: int
    """Iterations taken."""

    gradient: float
    """Largest entry of the objective's gradient at the end."""

    reason: str
    """The solver's own words."""


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear head and how its fit went; its logits are features @ weight.T + bias."""

    weight: Tensor
    """(C, D), of the features' type and on their device."""

    bias: Tensor
    """(C,), likewise."""

    losses: tuple[float, ...] = ()
    """Loss of each epoch, the mean over its steps; of each iteration for a full-batch solver."""

    normalized: bool = False
    """Features are brought to length 1 before the product."""

    convergence: Convergence | None = None
    """Of a solver that runs until it converges."""

    @property
    def unfinished(self) -> bool:
        """Whether its solver stopped before it converged."""
        return self.convergence is not None and not self.convergence.converged

    @property
    def finite(self) -> bool:
        """Whether the steps have not run away."""
        return bool(self.weight.isfinite().all() and self.bias.isfinite().all())


def consecutive(n_rows: int, width: int) -> Iterator[IndexBatch]:
    """Numbers (1, b) of one block of consecutive rows after the other.

    Args:
        n_rows: rows in all; those of versions count on, (1 + V) * N.
        width: D, which decides how many rows a block has.
    """
    size = max(1, BLOCK_VALUES // width)
    for start in range(0, n_rows, size):
        yield torch.arange(start, min(start + size, n_rows)).unsqueeze(0)
