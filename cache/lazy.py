"""Names of a package that are imported when they are first used (PEP 562).

Reading a store needs zarr and h5py, fitting a head needs torch; printing a help text needs none of
them, and they take seconds to load.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Make the `__getattr__` of a package.

    Args:
        package: name of the package.
        homes: module of each public name.

    Returns:
        A function that raises AttributeError for any other name.
    """

    def import_name(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return import_name
