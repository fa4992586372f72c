"""What cannot be read of a store, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.errors import CorruptStoreError, NolbError, StoreError, one_line

_REMEDY = (
    "Mend it with nolb store repair, restore it from a copy, or extract it again with --overwrite."
)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises on damaged data into one sentence.

    Raises:
        CorruptStoreError: the data cannot be read.
        StoreError: they must not be read.
        MemoryError: they do not fit the memory, which is no damage.
    """
    try:
        yield
    except (NolbError, MemoryError):
        raise
    except PermissionError:
        raise StoreError(f"{path}: no permission to read it; ask its owner for access.") from None
    # A library may stumble over damaged bytes anywhere, so any of its errors can come out.
    except Exception as error:
        raise damaged(path, f"{what} cannot be read: {one_line(error)}") from error


def damaged(path: Path, what: str) -> CorruptStoreError:
    """Return the error for bytes that are not what was written."""
    return CorruptStoreError(f"{path} is damaged ({what}). {_REMEDY}")
