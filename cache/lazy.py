"""Names of a package that are imported when they are first used (PEP 562).

Reading a store needs zarr and h5py, fitting a head needs torch; printing a help text needs none of
them, and they take seconds to load.

The imports that the package makes for type checkers, `if TYPE_CHECKING:`, are the one list of its
public names, as a stub is for the lazy loading of Scientific Python (SPEC 1).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import InspectLoader


def lazy_names(
    package: str,
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Make `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
        package: name of the package, whose `__init__` is under way.

    Returns:
        The public names; what imports one of them, and raises AttributeError for any other name;
        and what gives them in order.
    """
    homes = _homes(package)

    def import_name(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return list(homes), import_name, lambda: sorted(homes)


def _homes(package: str) -> Mapping[str, str]:
    """The module of each public name, as the source imports it for type checkers."""
    spec = sys.modules[package].__spec__
    source = None if spec is None else cast("InspectLoader", spec.loader).get_source(package)
    if source is None:
        raise ImportError(f"{package} is installed without its source: install it again.")
    return {
        alias.name: cast("str", node.module)
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
