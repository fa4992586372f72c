"""What commands print: tables for people, JSON for programs, never mixed on one stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console

from pipeline.files import write_whole


def console_for(json_path: str | None) -> Console:
    """Console for people: standard output, or standard error while that carries JSON."""
    file = sys.stderr if json_path == "-" else sys.stdout
    # Lines are left whole, so that commands and paths can be copied.
    # Names of classes and files are data: [red] is no colour and :cat: no picture.
    return Console(file=file, highlight=False, soft_wrap=True, markup=False, emoji=False)


def write_json(content: Mapping[str, Any], json_path: str | None) -> None:
    """Write a result where `--json` asked for it."""
    if json_path is None:
        return
    text = json.dumps(content, indent=2, allow_nan=False)
    if json_path == "-":
        click.echo(text)
    else:
        write_whole(json_path, f"{text}\n".encode())
