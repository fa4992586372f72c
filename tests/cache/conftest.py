"""Fixtures of the store's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Skip fsync: no test can cut the power, and waiting for disks is most of the time.

    That it is called, and in which order, is shown in test_store_crash.py.
    """
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
