"""Where the model runs, and in which arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from pipeline.config import ExtractConfig
from pipeline.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Device by name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: if CUDA is asked for and this machine or this build of torch has none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name} was asked for, but torch sees {torch.cuda.device_count()} CUDA "
            "devices here: choose --device cpu, or leave the option out."
        )
    return device


def autocast(config: ExtractConfig, device: torch.device) -> AbstractContextManager[object]:
    """Context in which the forward pass runs."""
    if config.autocast == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe_arithmetic(config: ExtractConfig) -> str:
    """What of the settings changes the last bits of a feature; part of a store's identity."""
    arithmetic = "float32" if config.autocast == "none" else f"{config.autocast} autocast"
    return arithmetic + (", channels-last" if config.channels_last else "")
