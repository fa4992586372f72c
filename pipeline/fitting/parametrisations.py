"""Forms of a head: from what is learned to the linear head that it stands for, and back.

Whatever a head learns, its logits are those of a weight and a bias; so one trainer serves all, and
every head is saved as the same two tensors.
G seeds, H variants of the settings, C classes, D feature width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from pipeline.config import FitConfig
from pipeline.errors import FitError
from pipeline.fitting.rows import LinearMap, Rows
from pipeline.seeds import generator_for


class Parametrisation(Protocol):
    """A form of the head for G * H heads."""

    @property
    def parameters(self) -> Sequence[Tensor]:
        """What is learned, (G, H, ...) each."""

    @property
    def length(self) -> float | None:
        """Length that feature vectors are brought to first; None leaves them."""

    @property
    def direct(self) -> bool:
        """Whether weight and bias themselves are what is learned."""

    @property
    def scale_free(self) -> bool:
        """Whether the length of what is learned changes nothing, so that decay has no optimum."""

    def head(self) -> tuple[Tensor, Tensor]:
        """Weight (G, H, C, D) and bias (G, H, C) that the parameters stand for now."""

    def pull_back(self, by_weight: Tensor, by_bias: Tensor) -> Sequence[Tensor]:
        """Gradients of the parameters, (G, H, ...) each, from those of weight and bias.

        Args:
            by_weight: (G, H, C, D) gradient by the weight.
            by_bias: (G, H, C) gradient by the bias.
        """


class Linear:
    """Weight and bias, drawn anew as nn.Linear does: uniform within +-1/sqrt(D)."""

    direct = True
    scale_free = False

    def __init__(self, rows: Rows, config: FitConfig, seeds: Sequence[int], n_heads: int) -> None:
        n_classes, width = len(rows.class_counts), rows.like.shape[1]
        # Entries of about 1, as in features that networks give; at length 1 steps would be tiny.
        self.length = math.sqrt(width) if config.normalize else None
        self.parameters = _drawn([(n_classes, width), (n_classes,)], rows.like, seeds, n_heads)

    def head(self) -> tuple[Tensor, Tensor]:
        """What is learned itself."""
        weight, bias = self.parameters
        return weight, bias

    def pull_back(self, by_weight: Tensor, by_bias: Tensor) -> Sequence[Tensor]:
        """The gradients themselves."""
        return by_weight, by_bias


class Cosine:
    """Cosines between features and learned directions, times a fixed scale; no bias."""

    length = 1.0
    direct = False
    scale_free = True

    def __init__(self, rows: Rows, config: FitConfig, seeds: Sequence[int], n_heads: int) -> None:
        shape = (len(rows.class_counts), rows.like.shape[1])
        self._scale = config.cosine_scale
        self.parameters = _drawn([shape], rows.like, seeds, n_heads)

    def head(self) -> tuple[Tensor, Tensor]:
        """Directions of length 1 times the scale, and a bias of 0."""
        (directions,) = self.parameters
        weight = self._scale * directions / directions.norm(dim=-1, keepdim=True)
        return weight, weight.new_zeros(weight.shape[:-1])

    def pull_back(
        self,
        by_weight: Tensor,
        by_bias: Tensor,  # noqa: ARG002  # the bias is fixed
    ) -> Sequence[Tensor]:
        """Through the division by the length: only what is across the direction counts."""
        (directions,) = self.parameters
        lengths = directions.norm(dim=-1, keepdim=True)
        unit = directions / lengths
        along = (by_weight * unit).sum(dim=-1, keepdim=True)
        return ((by_weight - along * unit) * (self._scale / lengths),)


class LearnableScaling:
    """The old head, each class's logit times a learned factor: LWS of Kang et al. 2020, eq. (4).

    The factors begin at 1 and scale the bias too, as in their code.

    Raises:
        FitError: if there is no old head.
    """

    direct = False
    scale_free = False

    def __init__(self, rows: Rows, _config: FitConfig, seeds: Sequence[int], n_heads: int) -> None:
        self._old = require_teacher(rows)
        self.length = 1.0 if self._old.normalized else None
        self.parameters = [self._old.bias.new_ones(len(seeds), n_heads, len(self._old.bias))]

    def head(self) -> tuple[Tensor, Tensor]:
        """The old weight and bias, scaled."""
        (scales,) = self.parameters
        return scales.unsqueeze(-1) * self._old.weight, scales * self._old.bias

    def pull_back(self, by_weight: Tensor, by_bias: Tensor) -> Sequence[Tensor]:
        """Of a factor: what its class's weight and bias gain where it grows."""
        return ((by_weight * self._old.weight).sum(dim=-1) + by_bias * self._old.bias,)


FORMS: Mapping[str, Callable[[Rows, FitConfig, Sequence[int], int], Parametrisation]] = (
    MappingProxyType({"linear": Linear, "cosine": Cosine, "learnable-scaling": LearnableScaling})
)
"""Forms that are learned, by the names that `FitConfig.head` knows."""


def require_teacher(rows: Rows) -> LinearMap:
    """The old head.

    Raises:
        FitError: if there is none.
    """
    if rows.teacher is None:
        raise FitError(
            "This head or loss starts from the old head, but the store has none: give it one with "
            "nolb adopt-head, or choose another --head or --loss."
        )
    return rows.teacher


def _drawn(
    shapes: Sequence[tuple[int, ...]], like: Tensor, seeds: Sequence[int], n_heads: int
) -> list[Tensor]:
    """Parameters (G, H, ...), uniform within +-1/sqrt(D) as in nn.Linear, the same for all H."""
    bound = 1 / math.sqrt(like.shape[1])
    drawn: list[list[Tensor]] = [[] for _ in shapes]
    for seed in seeds:
        generator = generator_for(seed, "initial head")
        for of_seed, shape in zip(drawn, shapes, strict=True):
            values = torch.empty(shape, dtype=torch.float32)
            of_seed.append(values.uniform_(-bound, bound, generator=generator))
    return [
        torch.stack(of_seed).unsqueeze(1).expand(-1, n_heads, *shape).to(like).contiguous()
        for of_seed, shape in zip(drawn, shapes, strict=True)
    ]
