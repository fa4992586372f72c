"""How a linear head is fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from cache.records import Settings
from pipeline.config.checks import check_choices, check_device, require
from pipeline.config.loss_settings import losses_with
from pipeline.config.parsing import Size, parse_size
from pipeline.config.unused import Above, Below, only_with, unused_settings

EPOCHS: Mapping[str, int] = MappingProxyType({"sgd": 10, "adamw": 10, "l-bfgs": 200})
"""Where none are given, by solver. L-BFGS converged after 80 to 310 iterations on CIFAR-100-LT, by
loss, weight decay and views, and after 570 to 1570 on plankton (1280 features, not standardised);
two thousand end only what has no optimum in reach."""

RATES: Mapping[str, float] = MappingProxyType({"sgd": 0.1, "adamw": 0.001})
"""Learning rates where none is given, by solver. AdamW moves every weight by about its rate in each
step, whatever the gradient's size; 0.001 is the rate of Kingma and Ba 2015 and of torch."""

LEARNED = ("linear", "cosine", "learnable-scaling")
"""Heads that a solver learns."""

NOT_LEARNED = ("tau-normalised", "logit-adjusted", "nearest-mean")
"""Heads that follow from the old head or from the features in closed form."""

_LEARNED = only_with(head=LEARNED)
_MINI_BATCHES = only_with(solver=("sgd", "adamw"))
_GML = only_with(
    loss=tuple(of for of in losses_with("power") if of != "gml+distillation"),
    distill_weight=Below(1),  # all of the old head's probabilities leave nothing to GML
)


@dataclass(frozen=True)
class FitConfig(Settings):
    """How `fit-head` re-trains the linear head; the defaults suit features without views."""

    loss: Literal[
        "gml",
        "cross-entropy",
        "balanced-softmax",
        "label-aware-smoothing",
        "gml+label-aware-smoothing",
        "ldam",
        "focal",
        "class-balanced",
        "vs",
        "lade",
        "gml+distillation",
    ] = field(default="gml", metadata=_LEARNED)
    """Geometric Mean Loss, or one to compare or to combine it with."""

    reweight: bool = field(default=True, metadata=_GML)
    """Weigh probabilities with the training counts in GML, eq. (3); Table 8 is about going
    without."""

    power: float = field(default=1.0, metadata=_GML)
    """Exponent p of GML's mean over classes, (mean of (-log recall)^p)^(1/p); 1 is eq. (1), larger
    ones look more at the worst classes."""

    tau: float = field(
        default=1.0, metadata=only_with(loss=losses_with("tau"), head="logit-adjusted")
    )
    """Strength of the training prior in balanced-softmax (logit adjustment), vs and the
    logit-adjusted head."""

    smooth_head: float = field(default=0.4, metadata=only_with(loss=losses_with("smooth_head")))
    """Label smoothing of the largest class, for label-aware smoothing."""

    smooth_tail: float = field(default=0.1, metadata=only_with(loss=losses_with("smooth_tail")))
    """Label smoothing of the smallest class, for label-aware smoothing."""

    max_margin: float = field(default=0.5, metadata=only_with(loss=losses_with("max_margin")))
    """Margin of the smallest class in ldam."""

    margin_scale: float = field(default=30.0, metadata=only_with(loss=losses_with("margin_scale")))
    """Factor of the logits in ldam; 30 suits a cosine head."""

    focal_gamma: float = field(default=2.0, metadata=only_with(loss=losses_with("focal_gamma")))
    """Exponent of focal: how much rows that are right already lose weight."""

    beta: float = field(default=0.9999, metadata=only_with(loss=losses_with("beta")))
    """Of class-balanced: a class of n rows counts as (1 - beta^n) / (1 - beta) samples."""

    vs_gamma: float = field(default=0.05, metadata=only_with(loss=losses_with("vs_gamma")))
    """Of vs: logits of a class of n rows are multiplied by (n / largest n)^gamma."""

    lade_weight: float = field(default=0.1, metadata=only_with(loss=losses_with("lade_weight")))
    """Weight of LADE's regulariser beside the balanced softmax."""

    lade_square: float = field(default=0.1, metadata=only_with(lade_weight=Above(0)))
    """Weight of the square in LADE's regulariser; its paper has 0.01 on CIFAR-100-LT and 0.5 on
    ImageNet-LT."""

    distill_weight: float = field(
        default=0.5, metadata=only_with(loss=losses_with("distill_weight"))
    )
    """Weight of the old head's probabilities in gml+distillation, from 0 to 1."""

    distill_temperature: float = field(default=2.0, metadata=only_with(distill_weight=Above(0)))
    """Temperature of old and new head in gml+distillation."""

    head: Literal[
        "linear", "cosine", "learnable-scaling", "tau-normalised", "logit-adjusted", "nearest-mean"
    ] = "linear"
    """Form of the head. The last four are not drawn anew: they re-scale the old head's classes by
    learning or by the norm of their weights, take the training prior from its logits, or take the
    classes' mean features."""

    cosine_scale: float = field(default=16.0, metadata=only_with(head="cosine"))
    """Factor of a cosine head's cosines."""

    norm_power: float = field(default=1.0, metadata=only_with(head="tau-normalised"))
    """Of tau-normalised: a class's weight is divided by its norm to this power."""

    normalize: bool = field(default=False, metadata=only_with(head=("linear", "nearest-mean")))
    """Bring every feature vector to length 1 (times the root of the width) before the head."""

    standardize: bool = field(default=False, metadata=only_with(head="linear"))
    """Bring every feature to mean 0 and deviation 1 for the fit of a linear head, which then is
    folded back: one lr and one weight decay suit features of any scale."""

    sampler: Literal["instance", "class-balanced", "class-aware", "square-root", "progressive"] = (
        field(default="instance", metadata=_MINI_BATCHES)
    )
    """How mini-batches are drawn from the training rows."""

    samples_per_class: int = field(default=4, metadata=only_with(sampler="class-aware"))
    """Rows of each chosen class in a class-aware mini-batch."""

    solver: Literal["sgd", "adamw", "l-bfgs"] = field(default="sgd", metadata=_LEARNED)
    """Mini-batches by SGD or AdamW, or all rows at once by L-BFGS until it converges."""

    epochs: int | None = field(default=None, metadata=_LEARNED)
    """Passes over the training rows (or as many steps, for the other samplers); of l-bfgs ten times
    as many iterations at most. Not set: 10, and 200 with l-bfgs, which ends once it converges."""

    batch_size: int = field(default=128, metadata=_MINI_BATCHES)
    """Rows in one step."""

    lr: float | None = field(default=None, metadata=_MINI_BATCHES)
    """Learning rate of the first step. Not set: 0.1 with sgd, 0.001 with adamw."""

    schedule: Literal["cosine", "linear", "constant"] = field(
        default="cosine", metadata=_MINI_BATCHES
    )
    """How the learning rate goes on: falls to 0 along a cosine or a line, or stays."""

    momentum: float = field(default=0.9, metadata=only_with(solver="sgd"))
    """Momentum of SGD."""

    weight_decay: float = field(
        default=2e-4,
        metadata=only_with(head=("linear", "learnable-scaling"), solver=("sgd", "adamw")),
    )
    """Weight decay, on weight and bias."""

    views: bool = field(default=True, metadata=only_with(head=(*LEARNED, "nearest-mean")))
    """Draw each row's features at random from its clean image and its stored views."""

    feature_dropout: float = field(default=0.0, metadata=_LEARNED)
    """Share of the features that is set to 0 at random in each step, the others scaled up."""

    feature_noise: float = field(default=0.0, metadata=_LEARNED)
    """Noise on the features in each step, with the covariance that rows have within their classes,
    times this factor."""

    average_last: float = field(default=0.0, metadata=_LEARNED)
    """Share of the steps, the last ones, over which the head is averaged; 0 takes the last."""

    average_seeds: int = field(
        default=1, metadata=only_with(head=("linear", "cosine"), solver=("sgd", "adamw"))
    )
    """Heads of as many consecutive seeds, averaged into one."""

    seed: int = 0
    """Seed of the initial head, of the mini-batches and of the drawn views."""

    precision: Literal["float32", "bfloat16"] = field(default="float32", metadata=_MINI_BATCHES)
    """Of the factors of the matrix products; sums are in float32."""

    memory: Size | None = None
    """Most memory of the whole process, as 2GiB; larger features are read from a scratch file in
    the temporary folder (TMPDIR), with the same result; l-bfgs, which needs all rows in memory,
    says how much it lacks. Not set: all are held in memory."""

    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:K` or `auto`; a small head is fitted fastest on the CPU."""

    def __post_init__(self) -> None:
        """Refuse values that no fit could use."""
        check_choices(self)
        for name in ("epochs", "batch_size", "samples_per_class", "average_seeds"):
            value = getattr(self, name)
            require(name, value, value is None or value >= 1, "1 or more")
        for name in (
            "lr", "margin_scale", "cosine_scale", "distill_temperature",
        ):  # fmt: skip
            value = getattr(self, name)
            require(name, value, value is None or 0 < value < math.inf, "above 0")
        for name in (
            "weight_decay", "tau", "max_margin", "focal_gamma", "vs_gamma", "lade_weight",
            "lade_square", "norm_power", "feature_noise",
        ):  # fmt: skip
            require(name, getattr(self, name), 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("smooth_head", "smooth_tail", "momentum", "beta", "feature_dropout"):
            require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name in ("distill_weight", "average_last"):
            require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "from 0 to 1")
        require("power", self.power, 1 <= self.power < math.inf, "1 or more")
        require("seed", self.seed, 0 <= self.seed < 2**63, "from 0 to 2^63 - 1")
        if self.memory is not None:
            parse_size(self.memory)
        check_device(self.device)
        if self.standardize:
            fits = self.head == "linear" and not self.normalize
            require("standardize", self.standardize, fits, "off but for a linear head without "
                    "normalize")  # fmt: skip
        if self.sampler == "class-aware":
            require(
                "samples_per_class", self.samples_per_class,
                self.samples_per_class <= self.batch_size, "at most the batch size",
            )  # fmt: skip

    @property
    def n_epochs(self) -> int:
        """`epochs`, or as many as the solver takes where none are given."""
        return EPOCHS[self.solver] if self.epochs is None else self.epochs

    @property
    def first_lr(self) -> float:
        """`lr`, or that of the solver, sgd or adamw, where none is given."""
        return RATES[self.solver] if self.lr is None else self.lr

    def resolved(self) -> FitConfig:
        """The same with the solver's own numbers where none are given; l-bfgs has no rate."""
        rate = RATES.get(self.solver) if self.lr is None else self.lr
        return replace(self, epochs=self.n_epochs, lr=rate)


def without_unused(config: FitConfig) -> FitConfig:
    """The resolved settings with defaults for those that have no effect: equal for equal heads."""
    defaults = {name: getattr(FitConfig(), name) for name in unused_settings(config)}
    return replace(config.resolved(), **defaults)


def depends_on_seed(config: FitConfig) -> bool:
    """Whether heads of two seeds differ.

    Of the learned ones, only the factors of learnable scaling are initialised with fixed values;
    with all rows in every step nothing is drawn then. L-BFGS starts every other head at random
    values, and from there may reach another optimum: neither GML nor a cosine head is convex.
    """
    whole = config.solver == "l-bfgs" and config.head == "learnable-scaling"
    return config.head in LEARNED and not whole
