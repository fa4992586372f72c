"""Steps of many heads at once.

torch's own optimisers keep one set of settings for all of a tensor, and their bookkeeping takes
longer than a small head's step; their first use loads torch's compiler, which takes longer than a
whole fit. The rules are those of torch.optim, against which they are tested.
G seeds, H variants of the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.config import FitConfig

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of AdamW: the values that Kingma and Ba 2015 recommend and torch takes."""


class Optimizer(Protocol):
    """Holds for each parameter a buffer that the gradient of a step is added to."""

    @property
    def keep(self) -> float:
        """Factor of the buffers' content before the gradient is added; 0 replaces it."""

    @property
    def gradients(self) -> Sequence[Tensor]:
        """The buffers, of the parameters' shapes."""

    def step(self, factor: float) -> None:
        """Change the parameters in place, with `factor` times the settings' learning rates."""


class Sgd:
    """SGD with momentum and weight decay, by the rule of torch.optim.SGD.

    The gradient goes right into the velocity, which spares a pass over memory.

    Args:
        parameters: (G, H, ...) each; changed in place.
        variants: settings of each of the H; one momentum.
    """

    def __init__(self, parameters: Sequence[Tensor], variants: Sequence[FitConfig]) -> None:
        self._parameters = parameters
        self._lr = _of_each([v.first_lr for v in variants], parameters)
        self._weight_decay = _of_each([v.weight_decay for v in variants], parameters)
        self.keep = variants[0].momentum
        self.gradients = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, factor: float) -> None:
        """Change the parameters in place."""
        for parameter, velocity, lr, decay in zip(
            self._parameters, self.gradients, self._lr, self._weight_decay, strict=True
        ):
            _add_product(velocity, parameter, decay, 1.0)
            _add_product(parameter, velocity, lr, -factor)


class AdamW:
    """AdamW (Loshchilov and Hutter 2019), by the rule of torch.optim.AdamW.

    Args:
        parameters: (G, H, ...) each; changed in place.
        variants: settings of each of the H.
    """

    def __init__(self, parameters: Sequence[Tensor], variants: Sequence[FitConfig]) -> None:
        self._parameters = parameters
        self._lr = _of_each([v.first_lr for v in variants], parameters)
        self._decay = _of_each([v.first_lr * v.weight_decay for v in variants], parameters)
        self._first = [torch.zeros_like(parameter) for parameter in parameters]
        self._second = [torch.zeros_like(parameter) for parameter in parameters]
        self._steps = 0
        self.keep = 0.0
        self.gradients = [torch.zeros_like(parameter) for parameter in parameters]

    def step(self, factor: float) -> None:
        """Change the parameters in place."""
        self._steps += 1
        correction = [1 - beta**self._steps for beta in BETAS]
        for i, (parameter, gradient) in enumerate(
            zip(self._parameters, self.gradients, strict=True)
        ):
            first = self._first[i].lerp_(gradient, 1 - BETAS[0])
            second = self._second[i].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            _add_product(parameter, parameter, self._decay[i], -factor)
            # The gradient has served, and spares fresh memory for what the step still needs.
            deviation = torch.div(second, correction[1], out=gradient).sqrt_().add_(EPSILON)
            change = torch.div(first, deviation, out=gradient)
            _add_product(parameter, change, self._lr[i], -factor / correction[0])


def optimizer_for(parameters: Sequence[Tensor], variants: Sequence[FitConfig]) -> Optimizer:
    """The optimiser that the settings name; they name one for all variants."""
    return (
        AdamW(parameters, variants) if variants[0].solver == "adamw" else Sgd(parameters, variants)
    )


def _of_each(values: list[float], parameters: Sequence[Tensor]) -> list[float | Tensor]:
    """One number where all variants have the same; else, for each parameter, (H, 1, ...)."""
    if len(set(values)) == 1:
        return [values[0]] * len(parameters)
    return [p.new_tensor(values).view(-1, *[1] * (p.dim() - 2)) for p in parameters]


def _add_product(into: Tensor, values: Tensor, by: float | Tensor, factor: float) -> None:
    """Add factor * by * values in place."""
    if isinstance(by, Tensor):
        into.addcmul_(values, by, value=factor)
    else:
        into.add_(values, alpha=factor * by)
