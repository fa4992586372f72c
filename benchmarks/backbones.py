"""Every model of torchvision and of timm's families: the tap's features times the head.

    python -m benchmarks.backbones torchvision [PATTERN]
    python -m benchmarks.backbones timm [PATTERN]

For each model: random weights, two random images, one pass through the tap; features times head
against the model's own output. Prints a line a model and how many agree, were refused (with the
reason) or disagree. timm's are one of each of its modules: the smallest of the first `CANDIDATES`,
where that is below `LARGEST`.
"""

from __future__ import annotations

import fnmatch
import gc
import sys
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import nn

from pipeline.backbones import Tap, find_backbone
from pipeline.backbones.finding import without_memory
from pipeline.checkpoints.library import linear_form
from pipeline.errors import NolbError

TOLERANCE = 1e-4
"""Relative to the largest logit; float32 sums of some thousand products agree to about 1e-6."""

LARGEST = 40_000_000
"""Parameters of the largest timm model that is tried."""

CANDIDATES = 4
"""Models of each of timm's modules, the first by name, whose smallest is tried."""


def agreement(name: str) -> float:
    """Largest difference between features times head and the output, over the largest logit.

    Raises:
        NolbError: if the model is refused.
    """
    backbone = find_backbone(name)
    torch.manual_seed(0)
    network = backbone.build(10).eval()
    randomise(network, backbone.classifier)
    side = backbone.preprocessing.crop or 224
    with torch.inference_mode(), Tap(network, backbone.classifier) as tap:
        features, logits = tap(torch.randn(2, 3, side, side))
    head = linear_form(name, network.get_submodule(backbone.classifier))
    recomputed = head.logits(features.numpy())
    if not np.ptp(logits.numpy()) > 0:
        raise AssertionError(f"{name}: all logits are {logits[0, 0]}, which shows nothing")
    return float(np.abs(recomputed - logits.numpy()).max() / np.abs(logits.numpy()).max())


def randomise(network: nn.Module, classifier: str) -> None:
    """A head that is not zero, as fresh ViTs have it, and BatchNorm that is not the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
    head = network.get_submodule(classifier)
    for tensor in (getattr(head, "weight", None), getattr(head, "bias", None)):
        if isinstance(tensor, nn.Parameter):
            nn.init.normal_(tensor, std=0.1)


def torchvision_names() -> list[str]:
    """All classification models."""
    import torchvision.models as library

    return [f"torchvision/{name}" for name in library.list_models(module=library)]


def timm_names() -> Iterator[str]:
    """A small model of each of timm's modules."""
    import timm

    for module in timm.list_modules():
        sizes = {}
        for name in timm.list_models(module=module)[:CANDIDATES]:
            try:
                network = without_memory(partial(timm.create_model, name))
            except Exception as error:
                print(f"{'timm/' + name:45} timm cannot build it: {str(error)[:60]}")
                continue
            sizes[name] = sum(weight.numel() for weight in network.parameters())
        if sizes and min(sizes.values()) <= LARGEST:
            yield f"timm/{min(sizes, key=sizes.__getitem__)}"


def main() -> None:
    """Try the models that the arguments name."""
    library, pattern = (*sys.argv[1:], "*")[:2]
    names = torchvision_names() if library == "torchvision" else timm_names()
    counts = {"agree": 0, "refused": 0, "DISAGREE": 0}
    for name in names:
        if not fnmatch.fnmatch(name.partition("/")[2], pattern):
            continue
        begun = time.perf_counter()
        try:
            difference = agreement(name)
        except NolbError as refusal:
            verdict, detail = "refused", str(refusal)
        else:
            verdict = "agree" if difference < TOLERANCE else "DISAGREE"
            detail = f"{difference:.1e}"
        counts[verdict] += 1
        print(f"{name:45} {verdict:8} {time.perf_counter() - begun:6.1f} s  {detail}", flush=True)
        gc.collect()
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    print(f"torch {torch.__version__}; tolerance {TOLERANCE:g} of the largest logit")
    sys.exit(counts["DISAGREE"] > 0)


if __name__ == "__main__":
    main()
