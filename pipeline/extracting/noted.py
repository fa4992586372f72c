"""The settings of an extraction, as its store notes them: the word of a file, not of a user."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from cache.layout import Header
from pipeline.backbones.named import is_factory
from pipeline.checkpoints.registry import find_family
from pipeline.config import ExtractConfig, build_config
from pipeline.devices import choose_device
from pipeline.errors import ConfigError
from pipeline.old_head import ADOPTED

OF_THE_MACHINE = ("workers",)
"""Settings that suit the machine of the extraction, and say nothing of another one."""

BY_HAND = (
    "leave checkpoint and images out, and finish the repair with nolb extract ... --resume in the "
    "settings of the extraction."
)
"""What to do where the note is of no use."""


def noted_config(path: Path, header: Header, model: str = "auto") -> ExtractConfig:
    """The settings in which a store's shards are computed again.

    Kind of device and type of the features are those of the store's identity: the note may say
    `auto`, or be older than a conversion.

    Args:
        path: the store.
        header: what it says of itself.
        model: what the user calls the model; `auto` takes the store's word, but for
            PACKAGE.MODULE:FACTORY, whose code runs only where the user names it.

    Raises:
        ConfigError: if the note is missing or this nolb cannot use it, names a factory that the
            user has not named, or the store is of a device that is not here or of no extraction.
    """
    noted = header.provenance.get("config")
    if not isinstance(noted, Mapping):
        raise ConfigError(f"{path} notes no settings of its extraction: {BY_HAND}")
    if ADOPTED in header.provenance:
        raise ConfigError(
            f"{path} has an adopted old head, which no extraction gives: repair the store that it "
            "is a copy of, and make it again with nolb adopt-head."
        )
    given = {name: value for name, value in noted.items() if name not in OF_THE_MACHINE}
    given |= {"dtype": header.identity.dtype, "device": header.identity.device}
    if model != "auto":
        given["model"] = model
    given = {name: value for name, value in given.items() if value is not None}
    try:
        config = build_config(ExtractConfig, given)
    except ConfigError as error:
        # Without the list of all names that are known.
        why = str(error).partition("; known are")[0].removeprefix("ExtractConfig: ").rstrip(".")
        raise ConfigError(
            f"{path} notes settings that this nolb cannot use ({why}): {BY_HAND}"
        ) from None
    factory = factory_of(config.model)
    if factory is not None and model == "auto":
        raise ConfigError(
            f"{path}: its features are of {factory}, a function that runs only where you name it: "
            f"give --model {shlex.quote(config.model)}."
        )
    _require_device(path, config.device)
    return config


def factory_of(model: str) -> str | None:
    """The function whose code would run for a model of that name; None for all other models."""
    family, _, variant = model.partition(":")
    # FAMILY:BACKBONE is written like MODULE:FACTORY, and families come first.
    parts = model if find_family(family) is None else variant
    return next((part for part in parts.split(",") if is_factory(part)), None)


def _require_device(path: Path, kind: str) -> None:
    """Refuse a repair on another kind of device, whose last bits differ."""
    try:
        choose_device(kind)
    except ConfigError:
        raise ConfigError(
            f"{path}: its features were computed on {kind}, which torch does not find here, and "
            "every other device differs in the last bits: repair it where there is one."
        ) from None
