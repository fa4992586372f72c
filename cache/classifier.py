"""The old head: what turns stored features into the logits of the trained classifier."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.shards import array_digest
from cache.strict_json import canonical

_MATRIX = 2  # dimensions


@dataclass(frozen=True, eq=False)
class Classifier:
    """The old head as a linear map from features to its test-time logits.

    Raises:
        StoreError: the shapes do not fit together or a number is not finite.
    """

    weight: npt.NDArray[np.float32]
    """(C, D)."""
    bias: npt.NDArray[np.float32] | None = None
    """(C,) or None."""
    scale: float = 1.0
    """Factor of the product; LDAM 1, RIDE 30."""
    normalized: bool = False
    """Features and rows of the weight are brought to length 1 first: cosine logits."""

    def __post_init__(self) -> None:
        weight = frozen_array(self.weight, np.float32)
        bias = None if self.bias is None else frozen_array(self.bias, np.float32)
        if weight.ndim != _MATRIX or 0 in weight.shape:
            raise StoreError(f"A classifier's weight must be (C, D), not {weight.shape}.")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise StoreError(f"A bias for {len(weight)} classes cannot be {bias.shape}.")
        finite = np.isfinite(weight).all() and (bias is None or np.isfinite(bias).all())
        if not (finite and math.isfinite(self.scale)):
            raise StoreError("The classifier holds NaN or infinity; its checkpoint is damaged.")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "scale", float(self.scale))

    def logits(self, features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Return `scale * (features @ weight.T) + bias`: (N, D) -> (N, C) float32."""
        rows, weight = features.astype(np.float32, copy=False), self.weight
        if self.normalized:
            rows, weight = _unit_rows(rows), _unit_rows(weight)
        logits: npt.NDArray[np.float32] = rows @ weight.T
        if self.scale != 1.0:
            logits *= np.float32(self.scale)
        if self.bias is not None:
            logits += self.bias
        return logits

    def digest(self) -> str:
        """Return the sha256 over everything that decides the logits."""
        bias = None if self.bias is None else array_digest(self.bias)
        parts = canonical([array_digest(self.weight), bias, self.scale, self.normalized])
        return hashlib.sha256(parts.encode("ascii")).hexdigest()


def _unit_rows(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # The bound is that of torch.nn.functional.normalize, with which such heads are trained.
    lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    unit: npt.NDArray[np.float32] = rows / lengths
    return unit


def frozen_array(values: npt.ArrayLike, dtype: type[Any]) -> npt.NDArray[Any]:
    """Copy into an own array that nobody can change."""
    array = np.array(values, dtype=dtype, order="C")
    array.setflags(write=False)
    return array
