"""One epoch of training, and all that the next one depends on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.config import PretrainConfig
from pipeline.datasets import Preprocessing
from pipeline.devices import autocast
from pipeline.errors import TrainingError, first_line
from pipeline.samplers import instance
from pipeline.training.augmentation import Mix, Shift, draw_mix
from pipeline.training.draws import EpochDraws, global_seed
from pipeline.training.images import Images
from pipeline.training.network import memory_format
from pipeline.training.objectives import Objective
from pipeline.training.schedules import class_weights, learning_rate

STEPS_BETWEEN_CHECKS = 50
"""Steps after which it is looked whether the loss is still a number: on a GPU a look makes the CPU
wait, and the weights of an epoch are saved only behind one."""


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did."""

    epoch: int
    """Its number, from 1."""

    loss: float
    """Mean training loss, augmentation and mixup included."""

    accuracy: float
    """Share of the training images that were right as they went by; where images are mixed, each
    label counts as much as its image."""

    lr: float
    """Learning rate of the last step."""

    seconds: float
    """That the epoch took."""


class Trainer:
    """A network in training.

    Args:
        network: images (B, 3, H, W) -> logits (B, C), on the device; trained in place.
        images: N training images.
        labels: (N,) int64, on the CPU.
        class_counts: (C,) training images of each class.
        preprocessing: normalises the images.
        shift: augmentation of batches, where the images come without one.
        config: settings.
        device: where it runs.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        labels: Tensor,
        *,
        class_counts: Tensor,
        preprocessing: Preprocessing,
        shift: Shift | None,
        config: PretrainConfig,
        device: torch.device,
    ) -> None:
        self.network = network.to(device).to(memory_format=memory_format(config))
        self._run = _compiled(self.network) if config.compile else self.network
        self._images = images
        self._labels = labels
        self._counts = class_counts.to(device)
        self._preprocessing = preprocessing
        self._shift = shift
        self._config = config
        self._device = device
        self._objective = Objective(config, self._counts)
        self._optimizer = torch.optim.SGD(
            self.network.parameters(),
            config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )

    def state(self) -> dict[str, Any]:
        """Weights and momentum; all else follows from settings and epoch."""
        return {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over weights and momentum of an earlier run."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])

    def run_epoch(self, epoch: int, on_batch: Callable[[int], None]) -> EpochRecord:
        """Train on every image once.

        Args:
            epoch: from 0.
            on_batch: called with the number of images of each batch behind it.

        Raises:
            TrainingError: if the loss is no number any more, or the network cannot be compiled.
        """
        begun = time.perf_counter()
        config, draws = self._config, EpochDraws(self._config.seed, epoch)
        order = list(instance(self._labels, config.batch_size, draws.order))
        weights = class_weights(config, epoch, self._counts)
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        self.network.train()
        rate = config.lr
        with global_seed(config.seed, "network", epoch), repeatable():
            for step, (rows, pixels) in enumerate(
                zip(order, self._images.batches(epoch, order), strict=True)
            ):
                rate = learning_rate(config, epoch, step / len(order))
                for group in self._optimizer.param_groups:
                    group["lr"] = rate
                sums += self._step(pixels, self._labels[rows], weights, draws)
                if (step + 1) % STEPS_BETWEEN_CHECKS == 0 or step + 1 == len(order):
                    self._require_number(sums, epoch)
                on_batch(len(rows))
        loss, right = (sums / len(self._labels)).tolist()
        return EpochRecord(epoch + 1, loss, right, rate, time.perf_counter() - begun)

    def _step(
        self, pixels: Tensor, labels: Tensor, weights: Tensor | None, draws: EpochDraws
    ) -> Tensor:
        """One step of SGD.

        Returns:
            (2,) float64: loss and images that were right, both summed over the batch.
        """
        labels = labels.to(self._device, non_blocking=True)
        if self._shift is not None:
            pixels = self._shift(pixels, draws.images)
        x = self._preprocessing.normalize(pixels)
        mix = draw_mix(len(x), self._config.mixup, draws.shares, draws.images, self._device)
        if mix is not None:
            x = mix.images(x)
        x = x.contiguous(memory_format=memory_format(self._config))
        with autocast(self._config.autocast, self._device), understandable():
            logits = self._run(x)
        logits = logits.float()
        loss = self._objective(logits, labels, weights, mix)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        right = _right(logits.detach(), labels, mix)
        return torch.stack((loss.detach().double() * len(x), right.double()))

    def _require_number(self, sums: Tensor, epoch: int) -> None:
        """Raise where the training has diverged."""
        if not torch.isfinite(sums).all():
            raise TrainingError(
                f"The loss is no number any more in epoch {epoch + 1}: the training diverges. "
                f"Train with an lr below {self._config.lr:g}, or with more warmup_epochs than "
                f"{self._config.warmup_epochs}."
            )


@contextmanager
def understandable() -> Iterator[None]:
    """Turn what the compiler raises into one sentence; its errors have no public class."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = first_line(error)
        raise TrainingError(
            f"torch.compile cannot compile the network ({reason}): train without --compile."
        ) from error


@contextmanager
def repeatable() -> Iterator[None]:
    """Have cuDNN choose the same, deterministic algorithms in every run; no effect on a CPU."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        yield


def _right(logits: Tensor, labels: Tensor, mix: Mix | None) -> Tensor:
    """How many images of the batch were right, a scalar."""
    predicted = logits.argmax(dim=1)
    right = (predicted == labels).sum()
    if mix is None:
        return right
    return mix.share * right + (1 - mix.share) * (predicted == labels[mix.partner]).sum()


def _compiled(network: nn.Module) -> nn.Module:
    """The network through torch.compile; its weights stay those of the network."""
    return cast("nn.Module", torch.compile(network))
