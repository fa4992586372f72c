"""What commands print: lines and tables for people, JSON for programs, never mixed on one stream.

A line for people is a label in a column of its own and a text: `wrote          head.safetensors`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console, RenderableType

from pipeline.files import Replaceable, begins_like, write_whole

LABEL_WIDTH = 15
"""Columns before the text, as many as `preprocessing` needs."""


WRITTEN_BY = "written_by"
"""Where a result as JSON says which command it is of."""


class Speaker:
    """Says what a command did, to people.

    Args:
        json_path: what `--json` was given; people read standard error while `-` has JSON go to
            standard output.
        stderr: whether people read that anyway, as standard output carries other results.
    """

    def __init__(self, json_path: str | None = None, *, stderr: bool = False) -> None:
        self.stderr = stderr or json_path == "-"
        self.quiet = False
        """Whether nothing is said, as by all processes of a team but one."""

    def line(self, text: str = "") -> None:
        """A line as it is, whole, so that commands and paths can be copied."""
        # Not a console: while a bar is shown, lines must go where the bar puts them.
        if not self.quiet:
            click.echo(text, err=self.stderr)

    def tell(self, label: str, text: object) -> None:
        """A label and what there is to tell."""
        self.line(f"{label:<{LABEL_WIDTH - 1}} {text}")

    def note(self, text: str) -> None:
        """What to know before the result is used."""
        self.tell("note", text)

    def warn(self, text: str) -> None:
        """What makes the result doubtful, or is missing from it."""
        self.tell("warning", text)

    def wrote(self, *what: object) -> None:
        """Files that are there now."""
        self.tell("wrote", ", ".join(map(str, what)))

    def next(self, command: str) -> None:
        """The command that goes on."""
        self.tell("next", command)

    def show(self, *tables: RenderableType) -> None:
        """Tables and the like."""
        if not self.quiet:
            # Names of classes and files are data: [red] is no colour and :cat: no picture.
            console = Console(
                file=sys.stderr if self.stderr else sys.stdout,
                highlight=False, soft_wrap=True, markup=False, emoji=False,
            )  # fmt: skip
            for table in tables:
                console.print(table)


def write_json(content: Mapping[str, Any], json_path: str | None) -> None:
    """Write a result where `--json` asked for it; `json_option` has seen that there is room."""
    if json_path is None:
        return
    context = click.get_current_context()
    written_by = {WRITTEN_BY: command_of(context)}  # the first, for `is_json_of` to find
    text = json.dumps(written_by | dict(content), indent=2, allow_nan=False)
    if json_path == "-":
        click.echo(text)
    else:
        overwrite = bool(context.params.get("overwrite"))
        replaceable = is_json_of(context)
        write_whole(json_path, f"{text}\n".encode(), overwrite=overwrite, replaceable=replaceable)


def is_json_of(context: click.Context) -> Replaceable:
    """A test whether a file is a result of the command that runs."""
    return begins_like(re.escape(f'{{\n  "{WRITTEN_BY}": "{command_of(context)}",\n'))


def command_of(context: click.Context) -> str:
    """The command that runs, as `nolb store info`, however the program was started."""
    names: list[str] = []
    while context.parent is not None:
        names.insert(0, str(context.info_name))
        context = context.parent
    return " ".join(["nolb", *names])
