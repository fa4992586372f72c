"""The two matrix products of a step: which library multiplies, and into which memory.

G seeds, b batch rows of this process, N logits of a row (H * C), D feature width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor


class Memory:
    """Tensors that are kept from step to step, each for one use.

    What a step frees goes back to the system where it is some MiB, and comes again page by page:
    without this, a third of a step in bfloat16 was the kernel handing out pages.

    Args:
        like: on whose device they are.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._kept: dict[tuple[str, torch.dtype], Tensor] = {}
        self._views: dict[tuple[str, torch.dtype, Sequence[int]], Tensor] = {}

    def __call__(self, use: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of a shape; its content is what the use left there, or anything."""
        view = self._views.get((use, dtype, shape))
        if view is not None:
            return view
        size, kept = math.prod(shape), self._kept.get((use, dtype))
        if kept is None or len(kept) < size:
            kept = self._kept[use, dtype] = self._like.new_empty(size, dtype=dtype)
            self._views = {key: of for key, of in self._views.items() if key[:2] != (use, dtype)}
        view = self._views[use, dtype, shape] = kept[:size].view(*shape)
        return view


class Products:
    """Logits, and the weight's gradient from theirs.

    Args:
        dtype: of the factors; what comes out is of the head's type, so float32 beside bfloat16.
        memory: for what is computed on the way.
    """

    def __init__(self, dtype: torch.dtype, memory: Memory) -> None:
        self._dtype, self._memory = dtype, memory

    def factor(self, use: str, values: Tensor) -> Tensor:
        """Values in the factors' type; the next call for the same use overwrites them."""
        if values.dtype == self._dtype:
            return values
        return self._memory(use, values.shape, self._dtype).copy_(values)

    def logits(self, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Logits (G, b, N), features @ weight^T + bias; the next call overwrites them.

        Args:
            features: (G, b, D), a factor.
            weight: (G, N, D).
            bias: (G, 1, N).
        """
        shape = (*features.shape[:2], weight.shape[1])
        logits = self._memory("logits", shape, weight.dtype)
        if self._dtype == weight.dtype:
            return torch.baddbmm(bias, features, weight.transpose(1, 2), out=logits)
        product = self._memory("logits", shape, self._dtype)
        torch.bmm(features, self.factor("weight", weight).transpose(1, 2), out=product)
        return logits.copy_(product).add_(bias)

    def by_weight_(self, into: Tensor, keep: float, gradient: Tensor, features: Tensor) -> Tensor:
        """Add gradient^T @ features in place to keep * into; a `keep` of 0 forgets all content.

        Args:
            into: (G, N, D).
            keep: factor.
            gradient: (G, b, N) with respect to the logits.
            features: (G, b, D), a factor.
        """
        if self._dtype == into.dtype:
            # The product adds itself to what is kept: no pass over memory of its own.
            return torch.baddbmm(into, gradient.transpose(1, 2), features, beta=keep, out=into)
        product = self._memory("by weight", into.shape, self._dtype)
        slopes = self.factor("gradient", gradient)
        torch.bmm(slopes.transpose(1, 2), features, out=product)
        if keep == 0:
            return into.copy_(product)
        wide = self._memory("by weight", into.shape, into.dtype).copy_(product)
        return torch.add(wide, into, alpha=keep, out=into)


@contextmanager
def onednn_products() -> Iterator[None]:
    """Context in which a CPU's float32 products are oneDNN's, where those are exact as well.

    torch asks MKL, which leaves AMD's CPUs without AVX-512; oneDNN takes half of its time there.
    torch asks oneDNN only where the factors may be rounded to bfloat16; and oneDNN does round them
    only on CPUs with matrix tiles (AMX), where it pays. On all others this is float32 throughout.
    """
    before = _permission()
    if before == "none" and _rounds_nothing():
        _permit("bf16")
    try:
        yield
    finally:
        if before == "none":
            _permit(before)


@cache
def _rounds_nothing() -> bool:
    """Whether products are float32's although factors may be rounded; asks this very CPU."""
    # As a bfloat16 or a TF32 the factor would be 1, and the product would miss a 2^-11 of itself.
    # Rounding the 256 sums of a float32 product costs 2^-16 at most.
    factor = torch.full((256, 256), 1 + 2**-12)
    _permit("bf16")
    try:
        product = factor @ factor
    finally:
        _permit("none")
    return bool((product / (256 * factor.square()) - 1).abs().max() < 2**-14)


def _permission() -> str:
    """How float32 factors may be rounded; "none" for not at all, empty if torch cannot say."""
    return str(getattr(_settings(), "fp32_precision", ""))


def _permit(precision: str) -> None:
    _settings().fp32_precision = precision


def _settings() -> Any:
    """What torch lets choose for oneDNN's products; None before torch 2.9."""
    return getattr(torch.backends.mkldnn, "matmul", None)
