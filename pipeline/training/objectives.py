"""The loss of a training step, from the losses by name, LDAM, class weights and mixup.

B batch rows, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config import PretrainConfig
from pipeline.losses import LOSSES
from pipeline.losses.margins import margin_shares
from pipeline.training.augmentation import Mix


class Objective:
    """Loss of logits (B, C), as the settings have it.

    Args:
        config: loss and its own settings.
        class_counts: (C,) training images of each class, 1 or more, on the device.
    """

    def __init__(self, config: PretrainConfig, class_counts: Tensor) -> None:
        self._name = config.loss
        self._counts = class_counts
        margins = config.max_margin * margin_shares(class_counts)
        self._scaled_margins = config.margin_scale * margins.float()

    def __call__(
        self, logits: Tensor, labels: Tensor, weights: Tensor | None, mix: Mix | None
    ) -> Tensor:
        """The loss of one batch, a scalar.

        Args:
            logits: (B, C) float32; of ldam, cosines times its scale.
            labels: (B,) int64.
            weights: (C,) of the classes, or None for equal ones.
            mix: how the images were mixed; the loss is mixed likewise.
        """
        loss = self._of(logits, labels, weights)
        if mix is None:
            return loss
        other = self._of(logits, labels[mix.partner], weights)
        return torch.lerp(other, loss, mix.share)

    def _of(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        if self._name == "ldam":
            # s (cos - margin) at the label, s cos elsewhere; s is in the logits already.
            margins = functional.one_hot(labels, logits.shape[1]) * self._scaled_margins
            logits = logits - margins
        elif weights is None:
            return LOSSES[self._name](logits, labels, self._counts)
        return functional.cross_entropy(logits, labels, weight=weights)
