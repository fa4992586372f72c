"""The formats of exported classifiers by name; what writes them is in `pipeline.exporting`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {"safetensors": ".safetensors", "torch-export": ".pt2", "onnx": ".onnx"}
)
"""Format -> suffix of its files."""

WEIGHTS = "safetensors"
"""The format that is no program, so that its images may be of any side."""

CHECKPOINT = "checkpoint"
"""The format that is the user's own, with the user's suffix."""

FORMATS = (*SUFFIXES, CHECKPOINT)
"""All that a user may name."""
