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

ONE_HEAD = (
    "A checkpoint has room for one head, so it holds no ensemble: leave --t-old and --t-new out, "
    "or choose another format."
)
"""Why the ensemble cannot have the format `CHECKPOINT`."""
