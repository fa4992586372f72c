"""Find the linear layer that makes a network's logits, by one trial pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.errors import ConfigError

TRIAL_ROWS = 2
"""Images in the trial pass: with one, a network could drop the batch's dimension unseen."""


@dataclass(frozen=True)
class FoundClassifier:
    """The linear layer whose output is the network's."""

    name: str
    """Its dotted name."""

    feature_width: int
    """D."""

    n_classes: int
    """C."""


class OwnOutput(nn.Module):
    """The identity as a classifier: the network's C outputs are the features.

    For networks whose logits are pooled after the last non-linearity, as SqueezeNet's; no linear
    layer makes them, so the head that is re-trained stands on top of the old outputs. The matrix is
    no part of the state dict: the network's own files still fit.

    Args:
        n_classes: C, which is D here.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", torch.eye(n_classes), persistent=False)

    def forward(self, outputs: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        return nn.functional.linear(outputs, self.weight)


class _WeightsOnMeta(TorchFunctionMode):
    """Puts weights and buffers on the `meta` device and leaves computed tensors alone."""

    MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Every call of torch comes through here."""
        device = {"device": "meta"} if func in self.MAKERS else {}
        return func(*args, **{**(kwargs or {}), **device})


def without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` builds, on the `meta` device: shapes without memory or random numbers."""
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):
        # Some compute their widths with tensors first (RegNet), which needs real numbers.
        with _WeightsOnMeta():
            return build()


def find_classifier(network: nn.Module, side: int | None) -> FoundClassifier:
    """The one linear layer, or 1x1 convolution on pooled features, whose output leaves the network.

    What is looked at is the tensor itself, not the module's name: a network that averages two
    heads, or pools after its classifier, has no such layer. Works on the `meta` device too.

    Args:
        network: images (B, 3, H, W) -> logits (B, C); left in evaluation mode.
        side: of the trial images in pixels; not given: 224.

    Raises:
        ConfigError: if the network does not end so.
    """
    made: list[tuple[str, nn.Module, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                made.append((name, module, output))

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if is_linear(module)
    ]
    try:
        logits = trial_pass(network, side)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2:  # noqa: PLR2004  rows, classes
        what = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else _kind(logits)
        raise ConfigError(
            f"{_kind(network)} gives {what} for {TRIAL_ROWS} images; a classifier gives (B, C)."
        )
    last = [(name, module) for name, module, output in made if _is_same(logits, output)]
    if len(last) != 1:
        raise ConfigError(
            f"The output of {_kind(network)} is not that of one linear layer (it averages heads, "
            f"or goes on after its classifier), so there is no linear head to re-train."
        )
    name, module = last[0]
    weight = module.weight
    if not isinstance(weight, Tensor):
        raise ConfigError(f"The classifier {name!r} of {_kind(network)} has no weight matrix.")
    return FoundClassifier(name, int(weight.shape[1]), int(weight.shape[0]))


def is_linear(module: nn.Module) -> bool:
    """Whether the module multiplies rows (B, D), or pooled maps (B, D, 1, 1), by a matrix."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear | OwnOutput)


@torch.no_grad()  # inference mode would hide which tensor is a view of which
def trial_pass(network: nn.Module, side: int | None) -> object:
    """What the network makes of two grey images of that side, in evaluation mode."""
    side = side or 224
    some = next(chain(network.parameters(), network.buffers()), torch.empty(0))
    return network.eval()(torch.zeros(TRIAL_ROWS, 3, side, side, device=some.device))


def _is_same(logits: Tensor, output: Tensor) -> bool:
    """Whether the network's output is the layer's, perhaps reshaped."""
    if logits is output:
        return True
    # A convolution's (B, C, 1, 1) is flattened: a view of it with as many numbers.
    is_view = cast("object", logits._base) is output
    return is_view and logits.numel() == output.numel()


def _kind(thing: object) -> str:
    return type(thing).__name__
