"""What a checkpoint file holds, read without executing anything in it."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.checkpoints import unpickling
from pipeline.checkpoints.mapping import StateDict, tensors_of, without_module_prefix
from pipeline.errors import CheckpointError, first_line, listed

SHOWN = 8
"""Most names that one message lists."""

SAVED_OR_BARE = (("state_dict",), ())
"""Where scripts put the weights, and where they lie when somebody saved them again alone."""


@dataclass(frozen=True, eq=False)
class Payload:
    """The unpickled content of one checkpoint file."""

    path: str
    """The file."""

    sha256: str
    """Of its bytes."""

    content: Mapping[str, object]
    """Its top level, every tensor on the CPU."""

    foreign: tuple[str, ...] = ()
    """Classes of the objects in it that were not loaded: a script's configuration and the like."""

    def mapping(self, *keys: str) -> Mapping[str, object] | None:
        """The mapping under `content[key][key]...`, or None where there is no such thing."""
        found: object = self.content
        for key in keys:
            if not isinstance(found, Mapping) or key not in found:
                return None
            found = found[key]
        return found if isinstance(found, Mapping) else None

    def state(self, *places: tuple[str, ...]) -> StateDict | None:
        """The state dict in the first place that holds one, by names without `module.`.

        Args:
            places: keys that lead there, as `mapping` takes them; () is the top level.
        """
        for place in places:
            found = tensors_of(self.mapping(*place))
            if found is not None:
                return without_module_prefix(found)
        return None

    def describe(self) -> str:
        """The names at the top level, and how many weights lie in a state dict there."""
        names = [_summary(key, value) for key, value in self.content.items()]
        return f"at its top level: {listed(names, SHOWN, str) or 'nothing'}"

    def foreign_to(self, family: str, keeps: str) -> CheckpointError:
        """The error for a file without the parts of the family that the user named.

        Args:
            family: its name.
            keeps: the parts that its files have, and where.
        """
        return CheckpointError(
            f"{self.path}: a file of the family {family} keeps {keeps}; this one holds "
            f"{self.describe()}. Name another family with --model."
        )


def read_payload(path: Path | str) -> Payload:
    """Read a file of `torch.save` or safetensors; nothing in it is executed.

    Tensors, containers, plain values and numpy's numbers are built; of a network that was pickled
    whole, its weights; any other object is left out, and its class noted.

    Raises:
        CheckpointError: if the file is missing, no checkpoint, damaged, or asks for functions that
            only an attack would call.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a checkpoint file" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {what}; name the file that holds the trained weights.")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from error
    content, foreign = _load(path)
    content = unpickling.weights_of(content) or content
    if not isinstance(content, Mapping):
        kind = getattr(content, "origin", type(content).__name__)
        raise CheckpointError(
            f"{path}: a checkpoint is a dictionary of named weights; this file holds a {kind}. "
            f"Save model.state_dict() instead."
        )
    top = {str(key): unpickling.weights_of(value) or value for key, value in content.items()}
    return Payload(str(path), sha256, top, foreign)


def _load(path: Path) -> tuple[object, tuple[str, ...]]:
    """The file's content, and the classes that were left out."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path, device="cpu"), ()
        except SafetensorError as error:
            raise CheckpointError(
                f"{path}: is not a whole safetensors file ({error}); fetch it again."
            ) from error
    try:
        return unpickling.load(path)
    except unpickling.HostileError as error:
        raise CheckpointError(
            f"{path}: asks for {error}, which no trained model needs and which runs code: it was "
            f"not loaded. Do not trust where it comes from."
        ) from None
    except Exception as error:
        # Bytes that are no checkpoint make torch raise nearly anything: RuntimeError, EOFError,
        # UnpicklingError, KeyError, and OSError where the end of a zip file is cut off.
        raise CheckpointError(_refusal(path, error)) from error


def _refusal(path: Path, error: Exception) -> str:
    """Why torch would not load the file, and what to do."""
    if isinstance(error, pickle.UnpicklingError) and "persistent_load of storage" in str(error):
        return (
            f"{path}: holds a whole network in the format of torch before 1.6, whose weights "
            f"cannot be read without its code. Save them where the model was trained: "
            f"torch.save(model.state_dict(), FILE)."
        )
    foreign = unpickling.foreign_names(path)
    if isinstance(error, pickle.UnpicklingError) and foreign:
        return (
            f"{path}: holds {', '.join(foreign[:SHOWN])} beside its weights, which cannot be read "
            f"without running code of theirs. Save the bare weights where the model was trained: "
            f"torch.save(model.state_dict(), FILE)."
        )
    reason = first_line(error)
    # Bare keys ("101") tell users nothing, and torch's own advice is to load unsafely.
    telling = " " in reason and "weights" not in reason.lower()
    detail = f" ({reason[:120]})" if telling else ""
    return (
        f"{path}: is damaged or no checkpoint of torch.save or safetensors{detail}; "
        f"fetch or save it again."
    )


def _summary(key: str, value: object) -> str:
    if isinstance(value, Tensor):
        return f"{key} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        weights = sum(isinstance(entry, Tensor) for entry in value.values())
        if weights:
            return f"{key} with {weights} tensors"
        return f"{key} with {', '.join(map(str, list(value)[:3])) or 'nothing'}"
    return key
