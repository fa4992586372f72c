"""Paths that data sets list: kept below the root, and rewritten where a copy lies otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from pipeline.errors import DatasetError

Rewrites = Sequence[tuple[str, str]]
"""(OLD, NEW) beginnings of paths; `*` in OLD stands for any one folder."""


def parse_rewrites(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Rewrites from `OLD=NEW`.

    Raises:
        DatasetError: if there is no `=`, or nothing before it.
    """
    rewrites = []
    for text in texts:
        old, sign, new = text.partition("=")
        if not (old and sign):
            raise DatasetError(f"A rewrite is OLD=NEW, beginnings of listed paths; got {text!r}.")
        rewrites.append((old, new))
    return tuple(rewrites)


def rewriter(rewrites: Rewrites) -> Callable[[str], str]:
    """A function that puts NEW in the place of the first OLD that a path begins with."""
    patterns = [
        (re.compile("[^/]+".join(map(re.escape, old.split("*")))), new) for old, new in rewrites
    ]

    def rewrite(path: str) -> str:
        for pattern, new in patterns:
            if found := pattern.match(path):
                return new + path[found.end() :]
        return path

    return rewrite


def below_root(path: str, where: str) -> str:
    """The path in POSIX form.

    Raises:
        DatasetError: if it is absolute or climbs with `..`.
    """
    posix = PurePosixPath(path)
    if posix.is_absolute() or ".." in posix.parts:
        raise DatasetError(
            f"{where}: {path!r} leaves the root; list paths relative to --root, without `..`."
        )
    return str(posix)
