"""A trained model on its device, run over batches of decoded images.

Legend: B images of a batch, V views, C classes, D feature width, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.backbones.tap import Tap
from pipeline.checkpoints import TrainedModel
from pipeline.devices import autocast

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Features (B, D) and logits (B, C) of one version of the images."""


@dataclass(frozen=True)
class Started:
    """A batch that the model has been started on."""

    outputs: list[tuple[Tensor, Tensor]]
    """(B, D) features and (B, C) logits of the clean images, then of each view."""

    done: torch.cuda.Event | None = None
    """When `outputs` may be read; None where they may be at once."""

    def wait(self) -> list[Outputs]:
        """The outputs, as soon as they are there."""
        if self.done is not None:
            self.done.synchronize()
        return [(features.numpy(), logits.numpy()) for features, logits in self.outputs]


class RunningModel:
    """A model in evaluation mode on a device.

    Args:
        model: the trained classifier, whose network moves to the device.
        device: where it runs.
        autocast: as `ExtractConfig.autocast`.
        channels_last: as `ExtractConfig.channels_last`.
    """

    def __init__(
        self,
        model: TrainedModel,
        device: torch.device,
        *,
        autocast: Literal["none", "bfloat16"] = "none",
        channels_last: bool = False,
    ) -> None:
        self._model, self._device, self._autocast = model, device, autocast
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._module = model.module.eval().to(device).to(memory_format=self._layout)

    @torch.inference_mode()
    def start(self, versions: Iterable[Tensor]) -> Started:
        """Start the model on one batch; a GPU goes on by itself.

        Args:
            versions: (B, H, W, 3) uint8 RGB of the clean images, then of each view.

        Raises:
            OutOfMemoryError: if they do not fit into the device's memory.
            ExtractionError: if the model refuses them.
        """
        with Tap(self._module, self._model.classifier_name) as tap:
            outputs = [self._forward(pixels, tap) for pixels in versions]
        done = None
        if self._device.type == "cuda":
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(self._device))
        return Started(outputs, done)

    def _forward(self, pixels: Tensor, tap: Tap) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C), on their way to this memory."""
        x = self._model.preprocessing.normalize(pixels.to(self._device, non_blocking=True))
        with autocast(self._autocast, self._device):
            features, logits = tap(x.contiguous(memory_format=self._layout))
        return _to_host(features.float()), _to_host(logits.float())


def _to_host(values: Tensor) -> Tensor:
    """Copy to page-locked memory without waiting; what is here already stays as it is."""
    if values.device.type == "cpu":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
