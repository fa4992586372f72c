"""Fixtures of the store's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cache.store_making import make_store


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Skip fsync: no test can cut the power, and waiting for disks is most of the time.

    That it is called, and in which order, is shown in test_store_crash.py.
    """
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    """Finished stores, one of each kind that lasts, by suffix."""
    folder = tmp_path_factory.mktemp("whole")
    made = {suffix: folder / f"x{suffix}" for suffix in (".zarr", ".h5")}
    for path in made.values():
        make_store(path).close()
    return made
