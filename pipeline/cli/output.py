"""What commands print: tables for people, JSON for programs, never mixed on one stream."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console


def console_for(json_path: str | None) -> Console:
    """Console for people: standard output, or standard error while that carries JSON."""
    file = sys.stderr if json_path == "-" else sys.stdout
    # Lines are left whole, so that commands and paths can be copied.
    return Console(file=file, highlight=False, soft_wrap=True)


def write_json(content: Mapping[str, Any], json_path: str | None) -> None:
    """Write a result where `--json` asked for it."""
    if json_path is None:
        return
    text = json.dumps(content, indent=2, allow_nan=False)
    if json_path == "-":
        click.echo(text)
    else:
        Path(json_path).write_text(text + "\n", encoding="utf-8")
