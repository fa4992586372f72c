"""CIFAR-10 and CIFAR-100 through torchvision, whole or long-tailed as published.

Nearly all long-tailed work draws the same subsets with the code of LDAM-DRW (Cao et al. 2019):
numpy's legacy generator seeded with 0, one shuffle of each class's rows in the order of the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.longtail import exponential_counts, published_rows, step_counts
from pipeline.datasets.sources import ArraySource
from pipeline.errors import DatasetError

NAMES = ("cifar10", "cifar100")

COUNTS = {"exp": exponential_counts, "step": step_counts}

DEFAULT_ROOT = Path("data")
"""Where torchvision's examples keep their data."""


def cifar_source(
    name: str,
    split: str,
    *,
    root: Path | None = None,
    imbalance: float | None = None,
    kind: str = "exp",
    seed: int = 0,
    download: bool = False,
) -> ArraySource:
    """A split of CIFAR; ids are `SPLIT/ROW` with the row of torchvision's order.

    Args:
        name: cifar10 or cifar100.
        split: `train`, or `test`, which is never thinned out.
        root: folder that holds torchvision's copy.
        imbalance: largest class over smallest in `train`; not given: all images.
        kind: `exp`, sizes that fall geometrically, or `step`, two sizes.
        seed: of the subset; 0 is LDAM's, MiSLAS's, PaCo's and RIDE's, 1 is LADE's.
        download: fetch the data set where it is missing.

    Raises:
        DatasetError: if split or kind is unknown, the data are not there, or a class would be
            left empty.
    """
    if split not in {"train", "test"}:
        raise DatasetError(f"{name} has the splits train and test, not {split!r}.")
    if kind not in COUNTS:
        raise DatasetError(f"An imbalance is of the kind {' or '.join(COUNTS)}, not {kind!r}.")
    data = _torchvision(name, split == "train", root or DEFAULT_ROOT, download=download)
    labels = np.asarray(data.targets, np.int64)
    rows = np.arange(len(labels))
    if imbalance is not None and split == "train":
        n_classes = len(data.classes)
        counts = COUNTS[kind](len(labels) // n_classes, imbalance, n_classes)
        rows = published_rows(labels, counts, seed)
    ids: Sequence[str] = [f"{split}/{row:05d}" for row in rows]
    return ArraySource(data.data[rows], labels[rows], data.classes, ids)


def _torchvision(name: str, train: bool, root: Path, *, download: bool) -> Any:
    """Torchvision's data set: `data` (N, 32, 32, 3), `targets`, `classes`."""
    import torchvision.datasets as library

    kind = library.CIFAR10 if name == "cifar10" else library.CIFAR100
    try:
        return kind(root=str(root), train=train, download=download)
    except (RuntimeError, OSError) as error:
        raise DatasetError(
            f"{root}: holds no whole copy of {name} as torchvision keeps it ({error}); name its "
            f"folder with --root, or fetch it with {name}:train,download=yes."
        ) from None
