"""Reading torch's pickles without executing anything in them.

torch's own restricted reader builds tensors and plain containers and refuses the rest. Files of the
field hold more beside their weights: numpy scalars and arrays, a script's configuration, paths.
Numpy's are built here from their plain numbers; every other name becomes an inert placeholder.
"""

from __future__ import annotations

import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUMBERS = frozenset("biufc")
"""Kinds of numpy types that are plain numbers."""

RUNNERS = frozenset(
    {
        *("os", "posix", "nt", "sys", "subprocess", "builtins", "importlib", "runpy", "pty"),
        *("shutil", "socket", "ctypes", "pickle", "_pickle", "marshal", "commands", "webbrowser"),
    }
)
"""Modules that no trained model needs and that hostile files call."""

HARMLESS_BUILTINS = frozenset(
    {
        *("set", "frozenset", "complex", "bytearray", "bytes", "list", "dict", "tuple", "int"),
        *("float", "bool", "str", "object", "slice", "range"),
    }
)

LEGACY_PICKLES = 5
"""torch before 1.6 wrote one pickle after the other: magic number, protocol, system, content, and
the keys of the storages that follow."""


class HostileError(Exception):
    """The pickle names something that only an attack would call."""


class Placeholder:
    """Stands for an object that is not loaded; what the pickle gives it is kept as plain values."""

    origin = ""
    """Dotted name of what the file asked for."""

    state: object = None
    """Its attributes; on the class, as an object may be built without being initialised."""

    def __init__(self, *_arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Keep what would have been the object's attributes."""
        self.state = state


class ArrayShell:
    """A numpy array the way its pickle builds it: empty first, then filled."""

    def __init__(self, *_empty: object) -> None:
        self.array: NDArray[Any] = np.empty(0, np.float32)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take numpy's (version, shape, type, Fortran order, bytes); arrays of numbers alone."""
        _, shape, dtype, is_fortran, data = state
        if isinstance(dtype, TypeShell) and isinstance(data, bytes):
            numbers = np.frombuffer(data, dtype.numbers())
            self.array = numbers.reshape(shape, order="F" if is_fortran else "C")


class TypeShell:
    """A numpy type the way its pickle builds it: its code first, then its byte order."""

    def __init__(self, code: str, *_flags: object) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take numpy's (version, byte order, ...)."""
        self.order = state[1] if state[1] in {"<", ">"} else "="

    def numbers(self) -> np.dtype[Any]:
        """The type.

        Raises:
            ValueError: if its values are objects, texts, records or dates.
        """
        dtype: np.dtype[Any] = np.dtype(self.code)
        if dtype.kind not in NUMBERS:
            raise ValueError(f"numpy values of the type {self.code!r} are no numbers")
        return dtype if self.order == "=" else dtype.newbyteorder(self.order)  # type: ignore[arg-type]  # "<" or ">"


def _scalar(dtype: TypeShell, data: bytes) -> object:
    """A numpy scalar."""
    return np.frombuffer(data, dtype.numbers())[0]


_ANSWERS: Mapping[str, Callable[..., Any]] = {
    # numpy 1 calls its core `numpy.core`, numpy 2 `numpy._core`.
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": ArrayShell,
    "numpy._core.multiarray._reconstruct": ArrayShell,
    "numpy.ndarray": ArrayShell,
    "numpy.dtype": TypeShell,
}
"""The names in pickled numpy values, and what answers to them."""


def load(path: Path) -> tuple[object, tuple[str, ...]]:
    """The content of a file of `torch.save`, and the names that became placeholders.

    Raises:
        HostileError: if the file names something that runs code.
        Exception: whatever torch raises on bytes that are no checkpoint.
    """
    foreign = foreign_names(path)
    for name in foreign:
        if _runs_code(name):
            raise HostileError(name)
    answers: list[Any] = [(answer, name) for name, answer in _ANSWERS.items()]
    answers += [(_placeholder(name), name) for name in foreign]
    with torch.serialization.safe_globals(answers):
        # weights_only: a name that is not in the list is refused, whatever the pickle asks for.
        # map_location: weights saved on a GPU load on machines without one.
        content = torch.load(path, map_location="cpu", weights_only=True)
    return content, foreign


def foreign_names(path: Path) -> tuple[str, ...]:
    """Dotted names that a file asks for and that are neither torch's nor numpy's numbers."""
    return tuple(sorted(names_in(path) - set(_ANSWERS) - _known_to_torch()))


def names_in(path: Path) -> set[str]:
    """Dotted names that the pickles in a file ask for, read from their opcodes."""
    names: set[str] = set()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.namelist():
                    if Path(entry).name == "data.pkl":
                        with archive.open(entry) as file:
                            names.update(_names(file))
        else:
            with path.open("rb") as file:
                for _ in range(LEGACY_PICKLES):
                    names.update(_names(file))
    except OSError:
        raise
    except Exception:  # noqa: S110  damaged bytes; torch will say so
        pass
    return names


def _names(file: IO[bytes]) -> Iterator[str]:
    """Names in the pickle that starts here, as Python 3 spells them."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and isinstance(argument, str):
            module, _, name = argument.partition(" ")
            module, name = NAME_MAPPING.get((module, name), (module, name))
            yield f"{IMPORT_MAPPING.get(module, module)}.{name}"


def weights_of(network: object) -> dict[str, Tensor] | None:
    """The state dict of a network that was pickled whole, read off its placeholders.

    Returns:
        Weights by dotted name; None where the object is no network.
    """
    state = network.state if isinstance(network, Placeholder) else None
    if not isinstance(state, Mapping) or not {"_parameters", "_modules"} <= set(state):
        return None
    passing = state.get("_non_persistent_buffers_set") or ()
    own = {**state["_parameters"], **(state.get("_buffers") or {})}
    weights = {k: v for k, v in own.items() if isinstance(v, Tensor) and k not in passing}
    for name, part in state["_modules"].items():
        inner = weights_of(part) or {}
        weights |= {f"{name}.{key}": value for key, value in inner.items()}
    return weights


def _runs_code(name: str) -> bool:
    package, _, rest = name.partition(".")
    return package in RUNNERS and not (package == "builtins" and rest in HARMLESS_BUILTINS)


@cache
def _known_to_torch() -> frozenset[str]:
    """Names that torch's restricted reader builds by itself."""
    kinds = [name.removesuffix("Storage") for name in dir(torch) if name.endswith("Storage")]
    dtypes = [name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)]
    rebuilders = [name for name in dir(torch._utils) if name.startswith("_rebuild_")]
    return frozenset(
        [f"torch.{kind}{what}" for kind in kinds for what in ("Storage", "Tensor")]
        + [f"torch.{name}" for name in (*dtypes, "Size", "Tensor", "device")]
        + ["torch.storage.TypedStorage", "torch.storage.UntypedStorage"]
        + [f"torch._utils.{name}" for name in rebuilders]
        + ["torch._tensor._rebuild_from_type_v2", "torch.nn.parameter.Parameter"]
        + ["torch.serialization._get_layout", "_codecs.encode"]
        + ["collections.OrderedDict", "collections.Counter"]
        + ["builtins.set", "builtins.complex", "builtins.bytearray"]
    )


def _placeholder(name: str) -> type[Placeholder]:
    return type("Placeholder", (Placeholder,), {"origin": name})
