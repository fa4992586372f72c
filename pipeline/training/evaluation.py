"""Every class's recall of a network in training, on images that it is not trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import PretrainConfig
from pipeline.datasets import Preprocessing
from pipeline.metrics import Scores, score
from pipeline.training.images import Images
from pipeline.training.network import memory_format

BATCH_SIZE = 256


@torch.inference_mode()
def predictions_of(
    network: nn.Module,
    images: Images,
    n_samples: int,
    preprocessing: Preprocessing,
    config: PretrainConfig,
) -> Tensor:
    """Predicted class of every image, (N,) int64 on the CPU.

    The network runs in evaluation mode and float32, as `extract` runs it; it is left in the mode
    in which it came.
    """
    was_training = network.training
    network.eval()
    try:
        found = []
        for pixels in images.batches(0, torch.arange(n_samples).split(BATCH_SIZE)):
            x = preprocessing.normalize(pixels)
            logits = network(x.contiguous(memory_format=memory_format(config)))
            found.append(logits.argmax(dim=1))
        return torch.cat(found).cpu()
    finally:
        network.train(was_training)


def evaluate_network(
    network: nn.Module,
    images: Images,
    labels: Tensor,
    class_counts: Tensor,
    class_names: tuple[str, ...],
    split: str,
    preprocessing: Preprocessing,
    config: PretrainConfig,
) -> Scores:
    """All metrics of the network on one split.

    Args:
        network: images (B, 3, H, W) -> logits (B, C).
        images: N images.
        labels: (N,) int64.
        class_counts: (C,) training images of each class.
        class_names: C names.
        split: where the images come from.
        preprocessing: normalises the images.
        config: memory format.
    """
    predictions = predictions_of(network, images, len(labels), preprocessing, config)
    return score(predictions.numpy(), labels.numpy(), class_counts.numpy(), class_names, split)
