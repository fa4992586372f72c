"""Files and folders of results: whole or not at all, and never over what exists unasked.

What is being written stands in a hidden folder beside its place, and takes the place by a rename
once it is complete and durable. The hidden folder is gone when the writing ends, however it ends;
what a killed process left is cleared away by the next one that writes to the same place. A lock,
which the system drops with its holder, tells the two apart.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.files import fsync
from cache.locks import WITHOUT_LOCKS
from pipeline.errors import OutputError, OutputExistsError

BEGINNING = 2**16
"""Bytes by which a file's kind is told."""

ONLY_WRITING_FAILS_SO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors that no reading raises, so that it must be the file being written."""

AS_WE_ARE = os.access in os.supports_effective_ids
"""Whether the system tells what the process may do now, and not only what it began with."""

Replaceable = Callable[[Path], bool]
"""Whether a file is of the kind that may be replaced by what is to be written."""


def refuse_existing(
    path: str | Path, *, overwrite: bool, replaceable: Replaceable | None = None
) -> None:
    """Refuse a place where a file cannot go; a command asks before its work, not after it.

    Args:
        path: the file to be.
        overwrite: whether a file of the same kind may be replaced.
        replaceable: whether what is there is of that kind; not given: any file is.

    Raises:
        OutputExistsError: if something is there that is not to be replaced.
        OutputError: if there is no folder for the file, or none that can be written to.
    """
    path = Path(path)
    _require_folder(path)
    if path.is_symlink():
        raise _link(path)
    if not path.exists():
        return
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder, not a file: give another name.")
    if not overwrite:
        raise _existing(path)
    if not path.is_file() or (replaceable is not None and not replaceable(path)):
        raise OutputExistsError(
            f"{path} is something else than what would replace it, so it is left alone: give "
            "another name."
        )


def refuse_existing_in(
    folder: str | Path, names: Collection[str] | None = None, *, overwrite: bool
) -> None:
    """Refuse a folder where several files cannot go; a command asks before its work.

    Args:
        folder: where they shall be; made by `whole_files` where it is missing.
        names: of what would be replaced; not given: the folder shall be empty.
        overwrite: whether they may be replaced; other files are never touched.

    Raises:
        OutputExistsError: if one is there that is not to be replaced, or the folder is a file or
            is named as stores are.
        OutputError: if there is no place for the folder, or it cannot be written to.
    """
    folder = Path(folder)
    if is_store_name(folder):
        raise OutputExistsError(f"{folder} is the name of a store: give results another name.")
    if not folder.exists():
        if folder.is_symlink():
            raise _link(folder)
        _require_folder(folder)
        return
    if not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file, not a folder: give another name.")
    _require_folder(folder / "any")
    if overwrite:
        return
    for place in sorted(folder.iterdir()) if names is None else map(folder.joinpath, names):
        if os.path.lexists(place):
            raise _existing(place)


@contextmanager
def whole_file(
    path: str | Path, *, overwrite: bool, replaceable: Replaceable | None = None
) -> Iterator[Path]:
    """A file to write in the block, which takes its place when that ends well, and goes if not.

    Args:
        path: the place.
        overwrite: as for `refuse_existing`, which is asked before the block and after it.
        replaceable: likewise.

    Yields:
        Where to write: a file of the same name, in a hidden folder.

    Raises:
        OutputExistsError: as `refuse_existing`; what is there is untouched.
        OutputError: as there, or if the file cannot be written.
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite, replaceable=replaceable)
    with _work_folder(path) as hidden:
        unfinished = hidden / path.name
        yield unfinished
        fsync(unfinished)
        refuse_existing(path, overwrite=overwrite, replaceable=replaceable)  # it may have come
        unfinished.replace(path)
        fsync(path.parent)


def write_whole(
    path: str | Path, content: bytes, *, overwrite: bool, replaceable: Replaceable | None = None
) -> None:
    """Put a file in place at once.

    Raises:
        OutputError: as `whole_file`.
    """
    with whole_file(path, overwrite=overwrite, replaceable=replaceable) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def whole_files(
    folder: str | Path, names: Collection[str] | None = None, *, overwrite: bool
) -> Iterator[Path]:
    """A folder to write files and folders into, which take their places when the block ends well.

    A new folder appears by one rename. In one that is there each of them is replaced by one, and
    those of `names` that were not made anew go: they would pass for a part of the new result.

    Args:
        folder: the place; its own folder must be there.
        names: of what may be there from an earlier time, as for `refuse_existing_in`.
        overwrite: whether that may be replaced; everything else in the folder stays.

    Yields:
        An empty folder of the same name, in a hidden one.

    Raises:
        OutputExistsError: as `refuse_existing_in`; what is there is untouched.
        OutputError: as there, or if something cannot be written.
    """
    folder = Path(folder)
    refuse_existing_in(folder, names, overwrite=overwrite)
    with _work_folder(folder) as hidden:
        made = hidden / folder.name
        made.mkdir()
        yield made
        for place, _, files in os.walk(made, topdown=False):
            for file in files:
                fsync(Path(place, file))
            fsync(Path(place))
        refuse_existing_in(folder, names, overwrite=overwrite)
        if not folder.exists():
            made.replace(folder)
        else:
            _move_into(made, folder, hidden / ".replaced", names or (), overwrite=overwrite)
        fsync(folder.parent)


def is_store_name(path: Path) -> bool:
    """Whether a path is named as stores are, so that nothing else is looked for or put there."""
    from cache.backends import BACKENDS  # they take as long to load as all else here

    return path.suffix in BACKENDS


def begins_like(*beginnings: str) -> Replaceable:
    """A test whether a file is of a kind: empty, or begun as we begin those that we write.

    A suffix tells nothing: notes.txt, README.md and results.json are names of anybody's files.

    Args:
        beginnings: regular expressions, of a kind in one form or more; `.` is any character, a new
            line too.
    """
    pattern = re.compile("|".join(beginnings).encode(), re.DOTALL)

    def is_of_the_kind(path: Path) -> bool:
        with path.open("rb") as file:
            begins = file.read(BEGINNING)
        return not begins or pattern.match(begins) is not None

    return is_of_the_kind


def _existing(path: Path) -> OutputExistsError:
    """The one sentence that a user reads wherever something is not replaced."""
    return OutputExistsError(f"{path} exists already: give another name or --overwrite.")


def _link(path: Path) -> OutputExistsError:
    """A link is neither replaced nor written through: what it leads to may be anybody's."""
    return OutputExistsError(f"{path} is a symbolic link: give the name that it leads to.")


def _require_folder(path: Path) -> None:
    """Refuse a file or folder whose own folder is missing or closed."""
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {path.parent} for {path.name}: make it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=AS_WE_ARE):
        raise OutputError(f"The folder {path.parent} cannot be written to: choose another one.")


def _move_into(
    made: Path, folder: Path, replaced: Path, names: Collection[str], *, overwrite: bool
) -> None:
    """Bring what was made to its places in a folder that is there."""
    new = sorted(made.iterdir())
    for each in new:  # all of them, before the first is moved
        place = folder / each.name
        if place.is_symlink():
            raise _link(place)
        if place.exists() and not overwrite:
            raise _existing(place)
        if place.exists() and place.is_dir() != each.is_dir():
            kinds = ("a folder", "a file") if place.is_dir() else ("a file", "a folder")
            raise OutputExistsError(f"{place} is {kinds[0]}, not {kinds[1]}: give another name.")
    replaced.mkdir()
    for name in {*names} - {each.name for each in new}:
        if os.path.lexists(folder / name):
            (folder / name).replace(replaced / name)
    for each in new:
        place = folder / each.name
        if place.is_dir():  # which no rename replaces
            place.replace(replaced / each.name)
        each.replace(place)
    fsync(folder)


@contextmanager
def _work_folder(place: Path) -> Iterator[Path]:
    """A locked, hidden folder beside a place; OSErrors of its files become one sentence."""
    try:
        _clear_left_behind(place)
        hidden, lock = _new_hidden(place)
    except OSError as error:
        raise _unwritable(place, error) from None
    try:
        yield hidden
    except OSError as error:
        if not _is_of(hidden, error):
            raise
        raise _unwritable(place, error) from None
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _unwritable(place: Path, error: OSError) -> OutputError:
    """Why something could not be written."""
    reason = error.strerror or str(error)
    return OutputError(f"{place} cannot be written ({reason}): make room, or choose another place.")


def _is_of(hidden: Path, error: OSError) -> bool:
    """Whether an error is about the files being written, and not about others in the block."""
    if isinstance(error.filename, str) and Path(error.filename).is_relative_to(hidden):
        return True
    return error.errno in ONLY_WRITING_FAILS_SO


def _new_hidden(place: Path) -> tuple[Path, int | None]:
    """An empty folder that no other process clears away, and the hold on it where there is any."""
    while True:
        hidden = Path(tempfile.mkdtemp(".unfinished", f".{place.name}.", place.parent))
        try:
            lock = _lock(hidden)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process took it for left behind before it was locked
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            return hidden, None  # nothing is cleared away there
        if hidden.exists():
            return hidden, lock
        os.close(lock)


def _clear_left_behind(place: Path) -> None:
    """Remove the hidden folders for this place that nobody holds."""
    for hidden in place.parent.iterdir():
        ours = hidden.name.startswith(f".{place.name}.") and hidden.suffix == ".unfinished"
        if not ours or hidden.is_symlink() or not hidden.is_dir():
            continue
        with suppress(OSError):  # in use, or cleared away by another one, or somebody else's
            lock = _lock(hidden)
            shutil.rmtree(hidden, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int:
    """A hold on a folder, as an open descriptor.

    Raises:
        BlockingIOError: if another one has it.
        OSError: if it cannot be locked.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
