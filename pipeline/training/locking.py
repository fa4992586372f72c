"""One training a checkpoint: the lock with which stores keep a second writer out, beside a file.

It lies in a file of its own: the state of a training is replaced after every epoch, and a lock on
what is replaced would be a lock on nothing. The system drops it when its holder is gone, however
that ended, so that a killed training keeps nobody from going on with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.errors import StoreLockedError
from cache.locks import Lock
from pipeline.errors import TrainingError


def lock_path(out: Path) -> Path:
    """Where the lock of a checkpoint's training lies while it runs."""
    return out.with_name(f"{out.name}.lock")


@contextmanager
def sole_training(out: Path) -> Iterator[None]:
    """Keep every other training of the same checkpoint out.

    On a file system without locks nobody is kept out.

    Args:
        out: the checkpoint to be, in a folder that exists.

    Raises:
        TrainingError: if another process trains it, which is not disturbed; or the lock cannot be
            made where it belongs.
    """
    file = lock_path(out)
    lock = _taken(file, out)
    try:
        yield
    finally:
        if lock.covers(file):  # nobody removed it by hand
            file.unlink()
        lock.release()


def _taken(file: Path, out: Path) -> Lock:
    """A hold on the file, which goes by its name."""
    while True:
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise TrainingError(
                f"{file} stands where the lock of this training would, and is no plain file: move "
                "it away."
            )
        try:
            file.touch()
        except OSError as error:
            raise _unusable(file, error) from None
        try:
            lock = Lock(file, out)
        except FileNotFoundError:
            continue  # its holder has just ended, and removed it
        except StoreLockedError as error:
            raise TrainingError(str(error)) from None
        except OSError as error:
            raise _unusable(file, error) from None
        if lock.covers(file):
            return lock
        lock.release()  # likewise, in between


def _unusable(file: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{file}, the lock of this training, cannot be written ({error.strerror}): choose a folder "
        "for --out that can be, or remove the file if nobody trains there."
    )
