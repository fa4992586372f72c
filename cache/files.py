"""Files that are durable before anything relies on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from cache.errors import NolbError, StoreError, one_line


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system raises while the store `path` is written into one sentence.

    Raises:
        StoreError: the system refused something.
    """
    try:
        yield
    except NolbError:
        raise
    # h5py reports a full disk as RuntimeError when it comes up while a file is closed.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise StoreError(
            f"{path} cannot be written ({reason}); make room or choose another place. "
            "What was recorded before is kept."
        ) from error


def fsync(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Make a folder and everything in it durable."""
    for parent, _, names in os.walk(folder):
        for name in names:
            fsync(Path(parent, name))
        fsync(Path(parent))


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it has, even after a crash, all of its content or does not exist."""
    working = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with working.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        working.replace(path)
    except BaseException:
        working.unlink(missing_ok=True)
        raise
    fsync(path.parent)
