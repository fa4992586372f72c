"""Where the model runs, and in which arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from pipeline.config import ExtractConfig
from pipeline.errors import ConfigError, ExtractionError


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


def autocast(
    mode: Literal["none", "bfloat16"], device: torch.device
) -> AbstractContextManager[object]:
    """Context in which a network runs, by the setting `autocast`."""
    if mode == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def too_many_images(n_images: int, device: torch.device) -> ExtractionError:
    """What to say where a batch does not fit into a device's memory."""
    return ExtractionError(
        f"{n_images} images at once are too many for the memory of {device}: go on with --resume "
        "and a smaller --batch-size."
    )


def describe_arithmetic(config: ExtractConfig) -> str:
    """What of the settings changes the last bits of a feature; part of a store's identity."""
    arithmetic = "float32" if config.autocast == "none" else f"{config.autocast} autocast"
    if config.channels_last:
        arithmetic += ", channels-last"
    if config.decode == "device":
        # Other decoders and other sums differ by a grey level or so; see `device_decoding`.
        arithmetic += ", JPEG decoded and resized on the device"
    return arithmetic
