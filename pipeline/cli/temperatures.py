"""The options that say which classifier answers: the new head, or both at two temperatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pipeline.mixture import given_pair

Command = TypeVar("Command", bound=Callable[..., Any])

T_OLD = click.option("--t-old", type=float, help="Temperature of the old head in the ensemble.  [default: 1]")  # fmt: skip  # noqa: E501
T_NEW = click.option("--t-new", type=float, help="Temperature of the new head in the ensemble.  [default: 1]")  # fmt: skip  # noqa: E501


def classifier_options(text: str) -> Callable[[Command], Command]:
    """Add `--classifier`, `--t-old` and `--t-new`.

    Args:
        text: help of the first.
    """

    def decorate(command: Command) -> Command:
        choice = click.option("--classifier", type=click.Choice(("ensemble", "new")), help=text)
        return choice(T_OLD(T_NEW(command)))

    return decorate


def chosen_temperatures(
    classifier: str | None, t_old: float | None, t_new: float | None, *, alone: bool = False
) -> tuple[float, float] | None:
    """(t_old, t_new) of the ensemble, (1, 1) unless given; None for the new head alone.

    Args:
        classifier: `ensemble`, `new` or nothing.
        t_old: temperature that was given, or None.
        t_new: temperature that was given, or None.
        alone: whether only the new head is possible.
    """
    given = t_old is not None or t_new is not None
    if given and (alone or classifier == "new"):
        raise click.UsageError("Temperatures combine both heads; this is the new head alone.")
    if alone and classifier == "ensemble":
        raise click.UsageError("A checkpoint has room for one head: give --classifier new.")
    for name, value in (("--t-old", t_old), ("--t-new", t_new)):
        if value is not None and not 0 < value < float("inf"):
            raise click.UsageError(f"{name} must be a number above 0, not {value}.")
    if alone or classifier == "new":
        return None
    return given_pair(t_old, t_new) or (1.0, 1.0)
