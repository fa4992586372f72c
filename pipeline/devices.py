"""Where the model runs, and in which arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from cache.strict_json import JSON
from pipeline.config import ExtractConfig
from pipeline.config.checks import check_device
from pipeline.errors import ConfigError, ExtractionError
from pipeline.team import Team


def choose_device(name: str, team: Team | None = None) -> torch.device:
    """Device by name; `auto` is CUDA where there is one, else the CPU.

    Args:
        name: of the device.
        team: processes that share the work; those on one machine take different GPUs, unless one
            is named.

    Raises:
        ConfigError: if it is no device's name, or CUDA is asked for and this machine or this build
            of torch has none.
    """
    check_device(name)
    team = team or Team()
    if team.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{team.local_rank % torch.cuda.device_count()}"
    elif name == "auto":
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


def arithmetic(config: ExtractConfig) -> dict[str, JSON]:
    """The settings that change the last bits of a feature; part of a store's identity."""
    return {
        "autocast": config.autocast,
        "channels_last": config.channels_last,
        # Other decoders and other sums differ by a grey level or so; see `device_decoding`.
        "decode": config.decode,
    }
