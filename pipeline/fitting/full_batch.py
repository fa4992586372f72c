"""The full-batch solver: all rows in every step, until the gradient vanishes.

A loss needs the logits of all rows at once; the features are turned to float64 a block of rows at a
time, so that they are held once and as they are.
N training rows, C classes, D feature width, V views, M = (1 + V) N rows and versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config import FitConfig
from pipeline.errors import FitError
from pipeline.fitting.draws import own_settings, with_settings
from pipeline.fitting.parametrisations import FORMS, require_teacher
from pipeline.fitting.rows import Convergence, LinearFit, Rows, TrainingRows
from pipeline.fitting.standardisation import standardisation_for
from pipeline.losses import GRADIENTS

ITERATIONS_PER_EPOCH = 10
"""Iterations of L-BFGS for each epoch that the settings ask for."""

TOLERANCE = 1e-6
"""Largest entry of the gradient at which the fit has converged."""

BLOCK_VALUES = 2**18
"""Values of a block of the features: 2 MiB as float64. Blocks that stay in a processor's cache are
converted in each evaluation as fast as all of them, kept as float64, come from memory."""

CORRECTIONS = 10
"""Steps that L-BFGS remembers; scipy's own default."""

ROW_VALUES = 16
"""Values of a row, whatever its classes, that a loss holds on the way: a log probability, a weight
and the like."""

BLOCK_COPIES = 4
"""Times that a block of the features lies in memory: converted, centred, scaled, packed."""

COPIES: Mapping[str, int] = MappingProxyType(
    {"gml+label-aware-smoothing": 2, "ldam": 3, "lade": 3, "gml+distillation": 7}
)
"""Times that a loss holds the logits (M, C) on the way to its gradient, its teacher's included;
once where not named."""


@torch.no_grad()
def fit_full_batch(
    rows: Rows, config: FitConfig, on_epoch: Callable[[], None] | None = None
) -> LinearFit:
    """Minimise the loss over all rows and versions plus weight_decay / 2 * |parameters|^2.

    L-BFGS (Liu and Nocedal 1989; scipy's implementation) in float64: it needs no learning rate, and
    its result does not depend on the order of rows. The gradient of weight decay is that of SGD;
    cosine heads go without, since the length of their directions changes no logit.

    Args:
        rows: rows in memory, which also has to hold what `full_batch_bytes` says.
        config: settings; sampler, batch size and all of the schedule have no meaning here.
        on_epoch: called for each `ITERATIONS_PER_EPOCH` iterations, `n_epochs` times at most.

    Raises:
        FitError: if the settings need mini-batches, or the rows are not in memory.
    """
    from scipy.optimize import minimize  # tens of MiB, which other solvers have better use for

    objective = _Objective(_in_memory(rows), _without_randomness(config))
    losses: list[float] = []

    def after_iteration(intermediate_result: object) -> None:
        losses.append(float(getattr(intermediate_result, "fun")))  # noqa: B009  # scipy is untyped
        if on_epoch is not None and len(losses) % ITERATIONS_PER_EPOCH == 0:
            on_epoch()

    found = minimize(
        objective, objective.start(), jac=True, method="L-BFGS-B", callback=after_iteration,
        options={
            "maxiter": ITERATIONS_PER_EPOCH * config.n_epochs, "maxcor": CORRECTIONS,
            "gtol": TOLERANCE, "ftol": 0.0,
        },
    )  # fmt: skip
    gradient = float(np.abs(found.jac).max())
    report = Convergence(gradient <= TOLERANCE, int(found.nit), gradient, str(found.message))
    return objective.fit(found.x, tuple(losses), report)


def full_batch_bytes(config: FitConfig, n_rows: int, n_classes: int, width: int) -> int:
    """Memory that the solver takes beside the rows, on the device and off it.

    Args:
        config: settings; the loss decides.
        n_rows: M.
        n_classes: C.
        width: D.
    """
    logits = n_rows * (COPIES.get(config.loss, 1) * n_classes + ROW_VALUES)
    # L-BFGS-B has two vectors for each step that it remembers and five of its own (Zhu et al. 1997,
    # its workspace wa); as many again are parameters, gradients and products of ours.
    head = (2 * CORRECTIONS + 10) * n_classes * (width + 1)
    return 8 * (logits + head + BLOCK_COPIES * max(BLOCK_VALUES, width))


class _Objective:
    """The regularised loss and its gradient as functions of one flat vector."""

    def __init__(self, rows: TrainingRows, config: FitConfig) -> None:
        self._form = FORMS[config.head](_in_float64(rows), config, [config.seed], 1)
        features = rows.features if config.views else rows.features[:1]
        self._features = features.flatten(0, 1)
        self._standardised = standardisation_for(rows, config)
        self._like = rows.like
        self._logits = self._for_all_rows(len(rows.class_counts))
        self._labels = rows.labels.repeat(len(features))
        self._counts = rows.class_counts
        self._decay = 0.0 if self._form.scale_free else config.weight_decay
        gradient = GRADIENTS[config.loss]
        self._gradient = with_settings(gradient, config)
        self._more: dict[str, Tensor] = {}
        if "teacher_logits" in own_settings(gradient):
            teacher = self._for_all_rows(len(rows.class_counts))
            for of, into in zip(self._parts(self._features), self._parts(teacher), strict=True):
                into.copy_(require_teacher(rows).logits(of))
            self._more["teacher_logits"] = teacher.unsqueeze(0)

    def start(self) -> NDArray[np.float64]:
        """The initial head."""
        return _flat(self._form.parameters)

    def __call__(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient at a point."""
        self._set(flat)
        weight, bias = self._form.head()
        for values, into in zip(self._inputs(), self._parts(self._logits), strict=True):
            torch.addmm(bias[0, 0], values, weight[0, 0].T, out=into)
        logits = self._logits.unsqueeze(1).unsqueeze(0)
        loss, gradient = self._gradient(
            logits, self._labels.unsqueeze(0), self._counts, **self._more
        )
        gradient = gradient[0, :, 0]
        by_weight = torch.zeros_like(weight)
        for values, pull in zip(self._inputs(), self._parts(gradient), strict=True):
            by_weight[0, 0].addmm_(pull.T, values)
        pulled = self._form.pull_back(by_weight, gradient.sum(dim=0).view(bias.shape))
        parameters = self._form.parameters
        decay = sum(float((parameter**2).sum()) for parameter in parameters) * self._decay / 2
        slopes = [g + self._decay * p for g, p in zip(pulled, parameters, strict=True)]
        return float(loss) + decay, _flat(slopes)

    def fit(
        self, flat: NDArray[np.float64], losses: tuple[float, ...], report: Convergence
    ) -> LinearFit:
        """The head at a point."""
        self._set(flat)
        weight, bias = (part[0, 0] for part in self._form.head())
        length = self._form.length
        if length is not None:
            weight = weight * length
        if self._standardised is not None:
            weight, bias = self._standardised.fold(weight, bias)
        return LinearFit(
            weight.to(self._like), bias.to(self._like), losses,
            normalized=length is not None, convergence=report,
        )  # fmt: skip

    def _inputs(self) -> Iterator[Tensor]:
        """Features (b, D) float64 as the head takes them, of block after block of rows."""
        for features in self._parts(self._features):
            values = features.to(torch.float64)
            if self._standardised is not None:
                values = self._standardised(values)
            if self._form.length is not None:
                values = torch.nn.functional.normalize(values, dim=1) * self._form.length
            yield values

    def _parts(self, values: Tensor) -> Sequence[Tensor]:
        """Values (M, ...) of block after block of rows."""
        return torch.split(values, max(1, BLOCK_VALUES // self._features.shape[1]))

    def _for_all_rows(self, n_classes: int) -> Tensor:
        """Memory for logits (M, C)."""
        return self._like.new_empty(len(self._features), n_classes, dtype=torch.float64)

    def _set(self, flat: NDArray[np.float64]) -> None:
        rest = torch.from_numpy(flat).to(self._logits)
        for parameter in self._form.parameters:
            own, rest = rest[: parameter.numel()], rest[parameter.numel() :]
            parameter.copy_(own.view(parameter.shape))


def _in_memory(rows: Rows) -> TrainingRows:
    if not isinstance(rows, TrainingRows):
        raise FitError(
            "l-bfgs needs all features in the memory of one process: fit with --solver sgd, or "
            "without torchrun."
        )
    return rows


def _in_float64(rows: TrainingRows) -> TrainingRows:
    """The same with heads of float64; the features are not copied."""
    old = rows.teacher
    if old is not None:
        old = replace(old, weight=old.weight.double(), bias=old.bias.double())
    return TrainingRows(rows.features[:, :0].double(), rows.labels, rows.class_counts, old)


def _without_randomness(config: FitConfig) -> FitConfig:
    """Refuse what has no meaning without mini-batches."""
    for name in ("feature_dropout", "feature_noise", "average_last"):
        if getattr(config, name):
            raise FitError(
                f"l-bfgs takes all rows as they are, without --{name.replace('_', '-')}: fit with "
                "--solver sgd or adamw."
            )
    return config


def _flat(parts: Sequence[Tensor]) -> NDArray[np.float64]:
    """One vector from tensors."""
    return np.concatenate([part.cpu().numpy().ravel() for part in parts])
