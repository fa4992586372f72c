"""The network with the new head, or with both heads, in the old classifier's place.

Legend: B images, C classes, D feature width, H and W pixels.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from pipeline.backbones import Tap
from pipeline.checkpoints import TrainedModel
from pipeline.checkpoints.model import head_module, put_module
from pipeline.datasets.preprocessing import N_CHANNELS, Preprocessing
from pipeline.errors import ExportError
from pipeline.heads import Head

TOLERANCE = 1e-4
"""Largest difference from the head's own logits, relative to the largest; float32 gives 1e-6."""


class TwoHeads(nn.Module):
    """Logarithm of the mean of two heads' probabilities, eq. (11)-(13).

    Softmax of the result is that mean, so it serves wherever logits do. It is computed without
    leaving the logarithm: a small probability stays a number where its softmax would be 0.

    Args:
        old: the old classifier, features (B, D) -> logits (B, C).
        new: the re-trained head, likewise.
        t_old: temperature of the old classifier, above 0.
        t_new: temperature of the new head, above 0.
    """

    def __init__(self, old: nn.Module, new: nn.Module, t_old: float, t_new: float) -> None:
        super().__init__()
        self.old, self.new = old, new
        self.t_old, self.t_new = float(t_old), float(t_new)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> log-probabilities (B, C)."""
        old = torch.log_softmax(self.old(features) / self.t_old, dim=-1)
        new = torch.log_softmax(self.new(features) / self.t_new, dim=-1)
        return torch.logaddexp(old, new) - math.log(2)


class ExportedNetwork(nn.Module):
    """A network behind the normalisation of its images.

    Args:
        network: normalised images (B, 3, H, W) -> logits (B, C).
        preprocessing: whose normalisation comes first; None leaves it to the caller.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        self.network = network
        self.flips = preprocessing is not None and preprocessing.channels == "BGR"
        mean, std = (0.0,) * N_CHANNELS, (1.0,) * N_CHANNELS
        if preprocessing is not None:
            mean, std = preprocessing.mean, preprocessing.std
        self.normalizes = preprocessing is not None
        # The same product and sum as `Preprocessing.normalize`, for pixels that are x/255 already.
        shape = (1, N_CHANNELS, 1, 1)
        factor = 1 / torch.tensor(std, dtype=torch.float64)
        offset = -torch.tensor(mean, dtype=torch.float64) * factor
        self.register_buffer("factor", factor.float().view(shape), persistent=False)
        self.register_buffer("offset", offset.float().view(shape), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in 0..1, or normalised where that is the caller's -> (B, C)."""
        if self.normalizes:
            images = images * self.get_buffer("factor") + self.get_buffer("offset")
            if self.flips:
                images = images.flip(1)
        logits: Tensor = self.network(images)
        return logits


def build_classifier(
    model: TrainedModel, head: Head, temperatures: tuple[float, float] | None
) -> nn.Module:
    """A copy of the network that classifies with the new head, or with both.

    Nothing is assumed about the network but what `TrainedModel` says: that one module turns
    features into logits. The result is tried against the head's own logits.

    Args:
        model: the trained classifier.
        head: the re-trained head of its features.
        temperatures: (t_old, t_new) for the ensemble; None for the new head alone.

    Returns:
        Normalised images (B, 3, H, W) -> logits (B, C), in evaluation mode, on the CPU.

    Raises:
        ExportError: if the head does not fit, or the network does more with its classifier's
            output than hand it on.
    """
    if (model.n_classes, model.feature_width) != head.weight.shape:
        raise ExportError(
            f"The head is {head.weight.shape} (classes, features), but the checkpoint's classifier "
            f"is {(model.n_classes, model.feature_width)}: they do not belong together."
        )
    network = copy.deepcopy(model.module).eval().requires_grad_(False)
    new = linear(head)
    put_module(network, model.classifier_name, new)
    _require_plain_end(network, model, head)
    if temperatures is not None:
        old = head_module(model.classifier)
        put_module(network, model.classifier_name, TwoHeads(old, new, *temperatures))
    return network.eval().requires_grad_(False)


class NormalizedLinear(nn.Linear):
    """A linear layer that brings features to length 1 first."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        return super().forward(nn.functional.normalize(features, dim=-1))


def linear(head: Head) -> nn.Linear:
    """The head as a layer."""
    n_classes, width = head.weight.shape
    layer = (NormalizedLinear if head.normalized else nn.Linear)(width, n_classes)
    state = {"weight": torch.tensor(head.weight), "bias": torch.tensor(head.bias)}
    layer.load_state_dict(state)
    return layer.requires_grad_(False)


def _require_plain_end(network: nn.Module, model: TrainedModel, head: Head) -> None:
    """Try the network on noise: what comes out must be what the head makes of the features."""
    side = model.preprocessing.crop or 32  # any side does: only the end of the network is judged
    noise = torch.rand((2, N_CHANNELS, side, side), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), Tap(network, model.classifier_name) as tap:
        features, logits = tap(noise)
    wanted = torch.from_numpy(head.logits(features.numpy()))
    difference = float((logits - wanted).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise ExportError(
            f"The {model.backbone} of {model.source} changes what its classifier "
            f"{model.classifier_name!r} gives (by {difference:.2g}), so a new head in that place "
            "would not give its own logits: this network cannot be exported."
        )
