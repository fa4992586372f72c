"""The entry point of the command."""

from __future__ import annotations

import sys


def start() -> None:
    """Run the command line; Ctrl-C while it is still loading is no traceback either."""
    try:
        from pipeline.cli import main

        main(prog_name="nolb")
    except KeyboardInterrupt:
        sys.stderr.write("nolb: Interrupted.\n")
        sys.exit(1)
