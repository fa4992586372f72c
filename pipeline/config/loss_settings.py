"""The settings that each loss reads, without torch: a command's start does not load it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LOSS_SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gml": ("reweight", "power"),
        "cross-entropy": (),
        "balanced-softmax": ("tau",),
        "label-aware-smoothing": ("smooth_head", "smooth_tail"),
        "gml+label-aware-smoothing": ("reweight", "power", "smooth_head", "smooth_tail"),
        "ldam": ("max_margin", "margin_scale"),
        "focal": ("focal_gamma",),
        "class-balanced": ("beta",),
        "vs": ("tau", "vs_gamma"),
        "lade": ("lade_weight", "lade_square"),
        "gml+distillation": ("reweight", "power", "distill_weight", "distill_temperature"),
    }
)
"""Fields of `FitConfig` by the losses of `FitConfig.loss`: keyword arguments of their functions."""


def losses_with(setting: str) -> tuple[str, ...]:
    """The losses that read a setting."""
    return tuple(loss for loss, names in LOSS_SETTINGS.items() if setting in names)
