"""The arguments STORE and HEAD, which tell it where the two have changed places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def no_head(ctx: click.Context, _argument: click.Parameter, given: Any) -> Any:
    """What stands in the place of a store, or an error if that is a head; a click callback."""
    from pipeline.heads import is_safetensors

    for path in _paths(given):
        if path.is_file() and is_safetensors(path):
            raise _misplaced(ctx, path, "a head, not a store")
    return given


def no_store(ctx: click.Context, _argument: click.Parameter, given: Any) -> Any:
    """What stands in the place of a head, or an error if that is a store; a click callback."""
    from pipeline.files import is_store_name

    for path in _paths(given):
        if is_store_name(path):
            raise _misplaced(ctx, path, "a store, not a head")
        if path.is_dir():
            raise _misplaced(ctx, path, "a folder, not a head")
    return given


def _paths(given: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
    """The paths of an argument that takes one, many or none."""
    return given if isinstance(given, tuple) else () if given is None else (given,)


def _misplaced(ctx: click.Context, path: Path, what: str) -> click.UsageError:
    """What a path is and where it belongs."""
    order = " ".join(ctx.command.collect_usage_pieces(ctx)[1:])  # but for [OPTIONS]
    return click.UsageError(f"{path} is {what}. The order is: {ctx.command_path} {order}")
