"""Versions of everything that can change a number, for the provenance of what is written."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("nolb", "torch", "torchvision", "numpy", "pillow", "zarr", "h5py")


def versions() -> dict[str, str]:
    """Version of Python and of each package, `""` for one that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str:
    """Version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return ""
