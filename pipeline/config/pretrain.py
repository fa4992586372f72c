"""How images become a trained classifier: stage 1, before anything of it is frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipeline.config.checks import check_channels, check_choices, check_device, require
from pipeline.config.extract import Channels
from pipeline.config.parsing import Size, parse_size
from pipeline.config.unused import Above, only_with

STEPS = (0.8, 0.9)
"""Shares of the epochs after which LDAM's code lowers the rate: 160 and 180 of 200."""

FEWEST_FOR_STEPS = 8
"""Epochs from which on the two steps are two: 7 would put both after the sixth, or 5.6 and 6.3."""

LARGEST = 1e6
"""Of any factor: no training has use for more, and float32 could not hold its products."""

AUGMENTATION_SETTINGS = frozenset({"padding", "fill", "smallest_crop"})
"""Settings whose use depends on the augmentation, which `auto` leaves to the network."""


@dataclass(frozen=True)
class PretrainConfig:
    """How `pretrain` trains a backbone and its first head.

    The defaults are the usual recipe for small images; the settings of LDAM-DRW (Cao et al. 2019)
    are loss ldam, schedule ldam-drw, warmup_epochs 5 and weight_decay 2e-4.
    """

    model: str = "cifar-resnet32"
    """Network by name: cifar-resnet20 to -110, torchvision/NAME, timm/NAME or
    PACKAGE.MODULE:FACTORY."""

    loss: Literal["cross-entropy", "balanced-softmax", "gml", "ldam"] = "cross-entropy"
    """Loss; ldam trains a cosine classifier with margins that are larger for smaller classes."""

    mixup: float = 0.0
    """Mix pairs of images, their share drawn from Beta(mixup, mixup) for each batch; 1 is usual, 0
    is none."""

    max_margin: float = field(default=0.5, metadata=only_with(loss="ldam"))
    """Margin of the smallest class in ldam."""

    margin_scale: float = field(default=30.0, metadata=only_with(loss="ldam"))
    """Factor of the cosines in ldam; it is part of the trained classifier."""

    beta: float = field(default=0.9999, metadata=only_with(schedule="ldam-drw"))
    """Of ldam-drw: a class of n rows counts as (1 - beta^n) / (1 - beta) samples."""

    epochs: int = 200
    """Passes over the training images."""

    batch_size: int = 128
    """Images in one step."""

    lr: float = 0.1
    """Learning rate of SGD, before the schedule."""

    schedule: Literal["cosine", "steps", "ldam-drw", "constant"] = "cosine"
    """How the learning rate goes on: falls to 0 along a cosine with every step; falls to 1/100 of
    itself after 80 % of the epochs and again after 90 %, of 8 or more; likewise with classes
    re-weighted by their effective numbers from 80 % on (ldam-drw); or stays."""

    warmup_epochs: int = 0
    """First epochs, in which the learning rate rises linearly."""

    momentum: float = 0.9
    """Momentum of SGD."""

    weight_decay: float = 5e-4
    """Weight decay, on all weights."""

    size: int | None = None
    """Side of the training images in pixels; not set: the model's own, or the images'."""

    augmentation: Literal["auto", "shift", "resized-crop"] = "auto"
    """Random shift after padding, for small images that all have one size; or a random part of
    the image resized to --size, for larger ones. `auto`: resized-crop where the model resizes."""

    padding: int = field(default=4, metadata=only_with(augmentation="shift"))
    """Pixels of padding around an image before it is shifted."""

    fill: Literal["black", "mean"] = field(default="black", metadata=only_with(padding=Above(0)))
    """Colour of that padding: black as in most training code, or the normalisation's mean."""

    smallest_crop: float = field(default=0.08, metadata=only_with(augmentation="resized-crop"))
    """Smallest share of the image's area that a resized crop keeps."""

    flip: bool = True
    """Mirror an image left to right with probability one half."""

    mean: Channels | None = None
    """Mean of x/255 in R,G,B that normalisation subtracts; not set: the model's own."""

    std: Channels | None = None
    """Deviation of x/255 in R,G,B that normalisation divides by; not set: the model's own."""

    evaluate_every: int = 10
    """Epochs between two evaluations on the validation and test images; 0 waits for the last. They
    are shown, and decide nothing: the weights of the last epoch are saved."""

    seed: int = 0
    """Seed of the first weights and of every random draw of the training."""

    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:K`."""

    autocast: Literal["none", "bfloat16"] = "none"
    """Arithmetic of convolutions and products. bfloat16 is much faster on CPUs and GPUs that have
    it; none is the default, so that a command trains the same way on every machine."""

    channels_last: bool = True
    """Run convolutions in the channels-last memory format, which is faster on CPUs and GPUs."""

    compile: bool = False
    """Compile the network with torch.compile; pays on GPUs and needs a C++ compiler."""

    workers: int = -1
    """Processes that read images which memory does not hold; -1 chooses by the machine."""

    memory: Size = "4GiB"
    """Most memory for decoded images; where they are more, they are read anew in each epoch."""

    def __post_init__(self) -> None:
        """Refuse values that no training could use."""
        check_choices(self)
        check_channels("mean", self.mean, lowest=0.0)
        check_channels("std", self.std, lowest=1e-6)
        for name in ("epochs", "batch_size"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("lr", "margin_scale"):
            fits = 0 < getattr(self, name) <= LARGEST
            require(name, getattr(self, name), fits, f"above 0 and at most {LARGEST:g}")
        for name in ("mixup", "max_margin", "weight_decay"):
            fits = 0 <= getattr(self, name) <= LARGEST
            require(name, getattr(self, name), fits, f"from 0 to {LARGEST:g}")
        for name in ("momentum", "beta"):
            require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name in ("warmup_epochs", "padding", "evaluate_every"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("size", self.size, self.size is None or self.size >= 1, "1 or more")
        crop = self.smallest_crop
        require("smallest_crop", crop, 0 < crop <= 1, "above 0 and at most 1")
        require("seed", self.seed, 0 <= self.seed < 2**63, "from 0 to 2^63 - 1")
        require("workers", self.workers, self.workers >= -1, "0 or more, or -1 to choose")
        weighted = self.schedule != "ldam-drw" or self.loss in {"cross-entropy", "ldam"}
        require("loss", self.loss, weighted, "ldam or cross-entropy with the schedule ldam-drw")
        if self.schedule in {"steps", "ldam-drw"}:
            fits = self.epochs >= FEWEST_FOR_STEPS
            needed = f"{FEWEST_FOR_STEPS} or more with the schedule {self.schedule}"
            require("epochs", self.epochs, fits, f"{needed}, whose rate falls twice")
        parse_size(self.memory)
        check_device(self.device)


def step_epochs(epochs: int) -> tuple[int, int]:
    """The epochs, from 0, in which the stepwise schedules lower the rate; of `epochs` in all."""
    first, second = (round(share * epochs) for share in STEPS)
    return first, second
