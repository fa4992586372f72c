"""The sentence that refuses settings which decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from pipeline.errors import ConfigError


class Idle(NamedTuple):
    """Settings that decide nothing."""

    names: tuple[str, ...]
    """Fields of the settings."""

    found: str
    """With what other setting that is so."""

    needed: str
    """With what they would decide something."""


def refuse(
    idle: Iterable[Idle], given: Iterable[str], flags: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuse idle settings that a user gave by hand.

    Args:
        idle: settings that decide nothing.
        given: fields that the user named.
        flags: their options, where those are not the fields' names.

    Raises:
        ConfigError: if there are such, with what to leave out.
    """
    named, reasons, told = set(given), [], 0
    for names, found, needed in idle:
        options = [
            flags.get(name, f"--{name.replace('_', '-')}") for name in names if name in named
        ]
        if options:
            verb = "decides" if len(options) == 1 else "decide"
            reasons.append(
                f"{' and '.join(options)} {verb} nothing with {found}, but with {needed}"
            )
        told += len(options)
    if reasons:
        raise ConfigError(f"{'; '.join(reasons)}: leave {'it' if told == 1 else 'them'} out.")
