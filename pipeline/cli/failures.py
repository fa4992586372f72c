"""The one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from pipeline.errors import ConfigError, NolbError
from pipeline.exhaustion import is_exhaustion

RUN_FAILED = 1
WRONG_USAGE = 2


class Group(click.Group):
    """A command group whose commands end with one sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and translate what it raises."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _leave(str(error), WRONG_USAGE)
        except NolbError as error:
            _leave(str(error), RUN_FAILED)
        except KeyboardInterrupt as interruption:
            _leave(str(interruption) or "Interrupted.", RUN_FAILED)
        except (MemoryError, RuntimeError) as error:
            if not is_exhaustion(error):
                raise
            _leave("The memory is used up: make batches, views or images smaller.", RUN_FAILED)
        except BrokenPipeError:
            # The reader (`| head`) has seen enough; Python would complain again at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(RUN_FAILED)
        except OSError as error:  # a full disk, a missing permission: not ours, but no bug either
            place = f"{error.filename}: " if error.filename else ""
            _leave(f"{place}{error.strerror or error}.", RUN_FAILED)


def _leave(message: str, code: int) -> NoReturn:
    """Print one line and end with an exit code."""
    click.echo(f"nolb: {message}", err=True)
    sys.exit(code)
