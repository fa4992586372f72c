"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# The first call into torch takes longer than hypothesis allows one example; no test asserts a time.
settings.register_profile("nolb", deadline=None)
settings.load_profile("nolb")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coarse pictures, in whose SVG files letters stay letters, so that a test finds them."""
    import matplotlib as mpl

    monkeypatch.setattr("pipeline.figures.canvas.DPI", 40)
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and checkpoints beside the repository, or a skip."""
    if not SHARED.is_dir():
        pytest.skip("the real data and checkpoints (../shared) are not beside this checkout")
    return SHARED
