"""The options `--t-old` and `--t-new`: giving one takes the ensemble of both heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

TEMPERATURE = click.FloatRange(min=0, min_open=True)


def temperature_options(command: Command) -> Command:
    """Add `--t-old` and `--t-new`; `pipeline.mixture.given_pair` reads what was given."""
    for head in ("new", "old"):
        other = "old" if head == "new" else "new"
        command = click.option(
            f"--t-{head}",
            type=TEMPERATURE,
            metavar="T",
            help=f"Temperature of the {head} head: take the ensemble of both heads instead of the "
            f"new one alone.  [default: 1 where --t-{other} is given]",
        )(command)
    return command
