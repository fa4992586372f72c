"""From a file's weights to a module's: strip exactly, load strictly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.errors import CheckpointError, listed

StateDict = Mapping[str, Tensor]

SHOWN = 10
"""Keys that a message lists of each kind."""

OPTIONAL_SUFFIX = ".num_batches_tracked"
"""BatchNorm's counter of training batches: torch before 0.4.1 saved none, no output uses it."""


def tensors_of(state: Mapping[str, object] | None) -> StateDict | None:
    """The mapping as a state dict if it is not empty and holds tensors only, else None."""
    if not state:
        return None
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    return tensors if len(tensors) == len(state) else None


def without_module_prefix(state: StateDict) -> StateDict:
    """The state dict without the leading `module.` that DataParallel puts before every key.

    Only an exact first component goes, and only if all keys have it: a network may have a part
    that is called `module`.
    """
    prefix = "module."
    if not all(key.startswith(prefix) for key in state):
        return state
    return {key.removeprefix(prefix): tensor for key, tensor in state.items()}


def mismatches(module: nn.Module, state: StateDict) -> list[str]:
    """What keeps the state dict from filling the module, one clause for each kind of reason.

    Works on a module on the `meta` device too, which has shapes and no memory.
    """
    return differences(
        {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()},
        {key: tuple(tensor.shape) for key, tensor in state.items()},
    )


def differences(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """What the given names and shapes lack, add and have otherwise, one clause for each kind."""
    missing = [key for key in wanted if key not in given and not key.endswith(OPTIONAL_SUFFIX)]
    left_over = [key for key in given if key not in wanted]
    differing = [
        f"{key} is {given[key]} for {wanted[key]}"
        for key in wanted
        if key in given and given[key] != wanted[key]
    ]
    kinds = (("missing", missing), ("left over", left_over), ("of another shape", differing))
    return [f"{len(keys)} {kind}: {listed(keys, SHOWN, str)}" for kind, keys in kinds if keys]


def load_strictly(module: nn.Module, state: StateDict, source: str) -> None:
    """Fill the module with the state dict; every weight comes from the file or it is an error.

    Half-precision weights become float32.

    Args:
        module: the network, on the CPU.
        state: weights by the module's own names.
        source: path for messages.

    Raises:
        CheckpointError: listing the keys that are missing, left over, of another shape or type,
            or that hold NaN or infinity.
    """
    problems = mismatches(module, state)
    if problems:
        raise CheckpointError(
            f"{source}: its weights do not fill {type(module).__name__}: {'; '.join(problems)}. "
            f"Name the right family and backbone with --model FAMILY:BACKBONE."
        )
    wanted = module.state_dict()
    odd = [
        f"{key} is {'sparse' if tensor.layout != torch.strided else tensor.dtype}"
        for key, tensor in state.items()
        if tensor.is_floating_point() != wanted[key].is_floating_point()
        or tensor.is_quantized
        or tensor.layout != torch.strided
    ]
    if odd:
        raise CheckpointError(
            f"{source}: {len(odd)} weights are of another type than the network's "
            f"({listed(odd, SHOWN, str)}); save the model dense and in float32."
        )
    broken = [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"{source}: {len(broken)} weights hold NaN or infinity ({listed(broken, SHOWN, str)}): "
            f"the training diverged or the file is damaged; use another checkpoint."
        )
    module.load_state_dict(dict(state), strict=False)  # only the optional counters can be missing


def inner(state: StateDict, part: str) -> dict[str, Tensor]:
    """The weights of one part, by their names within it."""
    prefix = f"{part}."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
