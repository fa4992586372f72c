"""What a checkpoint turns into."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import nn

from cache import Classifier
from pipeline.datasets.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A frozen classifier and all that is needed to run it as its authors did."""

    family: str
    """Name of the checkpoint family."""

    backbone: str
    """Registry name of the network."""

    module: nn.Module
    """The whole network in evaluation mode on the CPU: images (B, 3, H, W) -> logits (B, C)."""

    classifier_name: str
    """Dotted name of the module in it that turns features (B, D) into logits."""

    classifier: Classifier
    """The same step as a linear head: `classifier.logits(features)` are the module's logits."""

    preprocessing: Preprocessing
    """How its authors prepared test images."""

    source: str
    """Path of the checkpoint."""

    sha256: str
    """Of the checkpoint file."""

    notes: tuple[str, ...] = ()
    """What a user should know about how the file was read, one sentence each."""

    @property
    def n_classes(self) -> int:
        """C."""
        return int(self.classifier.weight.shape[0])

    @property
    def feature_width(self) -> int:
        """D."""
        return int(self.classifier.weight.shape[1])

    def backbone_digest(self) -> str:
        """Sha256 over names, types, shapes and bytes of all weights but the classifier's.

        BatchNorm's count of training batches is left out: it changes no output, and files of
        before 2018 lack it.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            is_head = name.startswith(f"{self.classifier_name}.")
            if is_head or name.endswith(".num_batches_tracked"):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
