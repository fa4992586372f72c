"""Files that are written whole or not at all, and never over something else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import OutputExistsError


def refuse_existing(
    path: str | Path, *, overwrite: bool, replaceable: Callable[[Path], bool] | None = None
) -> None:
    """Refuse a place where a file cannot go; a command asks before its work, not after it.

    Args:
        path: the file to be.
        overwrite: whether a file of the same kind may be replaced.
        replaceable: whether what is there is of that kind; not given: any file is.

    Raises:
        OutputExistsError: if something is there that is not to be replaced, or the folder for the
            file is missing.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputExistsError(f"There is no folder {path.parent} for {path.name}: make it first.")
    if not path.exists():
        return
    if not overwrite:
        raise OutputExistsError(f"{path} exists already: give another name or --overwrite.")
    if not path.is_file() or (replaceable is not None and not replaceable(path)):
        raise OutputExistsError(
            f"{path} is something else than what would replace it, so it is left alone: give "
            "another name."
        )


def write_whole(path: str | Path, content: bytes) -> None:
    """Put a file in place at once: under a temporary name, made durable, renamed.

    Raises:
        OSError: if it cannot be written; what was there before is untouched.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
