"""Parts of a source: some of its rows, and seeded stratified splits for data that come in one."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from io import BytesIO

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pipeline.datasets.sources import ImageSource
from pipeline.errors import DatasetError


class SubsetSource(ImageSource):
    """Some rows of another source, in a given order.

    Args:
        source: N samples.
        rows: distinct row numbers of it, in the order in which they are wanted.
        name: what messages call the part.

    Raises:
        DatasetError: if there are no rows, or one stands there twice.
    """

    def __init__(self, source: ImageSource, rows: ArrayLike, name: str) -> None:
        self._source = source
        self._rows: NDArray[np.int64] = np.array(rows, dtype=np.int64)
        ids = [source.ids[row] for row in self._rows]
        super().__init__(name, ids, source.labels[self._rows], source.class_names)

    def read(self, row: int) -> Image.Image:
        """The image of a row of the part."""
        return self._source.read(int(self._rows[row]))

    def file(self, row: int) -> str | BytesIO | None:
        """File of a row of the part."""
        return self._source.file(int(self._rows[row]))


def split_source(
    source: ImageSource, shares: Mapping[str, float], seed: int = 0
) -> dict[str, ImageSource]:
    """Disjoint parts with the same mixture of classes; what no share takes is `train`.

    A class of n samples gives round(n * share) of them to a part, one at least. Which ones is
    decided by a hash of the seed and the sample's id alone: the split is the same on any machine,
    in any order of the files, and a sample that is added later moves few others.

    Args:
        source: N samples.
        shares: fraction of each class for each part but `train`, such as {"val": .1, "test": .2}.
        seed: of the split.

    Raises:
        DatasetError: if the shares are no fractions or leave nothing, or if a class has fewer
            samples than there are parts.
    """
    if not shares or min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        given = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise DatasetError(f"Shares must lie above 0 and leave something to train on, not {given}.")
    rows: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    for label, name in enumerate(source.class_names):
        members = np.flatnonzero(source.labels == label)
        if len(members) == 0:
            continue
        drawn = sorted(members.tolist(), key=lambda row: _draw(seed, source.ids[row]))
        for part, size in _sizes(len(drawn), shares, name).items():
            rows[part] += drawn[:size]
            drawn = drawn[size:]
        rows["train"] += drawn
    return {part: SubsetSource(source, sorted(chosen), part) for part, chosen in rows.items()}


def _sizes(n_samples: int, shares: Mapping[str, float], class_name: str) -> dict[str, int]:
    """Samples of one class for each part but `train`."""
    sizes = {part: max(1, int(n_samples * share + 0.5)) for part, share in shares.items()}
    if sum(sizes.values()) >= n_samples:
        # Shares near 1 of a small class round up to all of it: each part keeps its one.
        sizes = dict.fromkeys(shares, 1)
    if len(sizes) >= n_samples:
        raise DatasetError(
            f"Class {class_name!r} has {n_samples} samples, too few for one in each of "
            f"{', '.join(['train', *shares])}; take the class out or give the splits yourself."
        )
    return sizes


def _draw(seed: int, sample_id: str) -> bytes:
    return blake2b(f"{seed}/{sample_id}".encode(), digest_size=16).digest()


def share_of(text: object) -> float | None:
    """The fraction that a user wrote in the place of a source, `0.2`; None for anything else."""
    try:
        share = float(str(text))
    except ValueError:
        return None
    return share if 0 < share < 1 else None


def balanced_rows(labels: NDArray[np.int64], n_rows: int, seed: int) -> NDArray[np.int64]:
    """Rows drawn so that every class that occurs comes about equally often.

    The classes take turns in an order that is drawn anew each round; within a class every sample
    comes once before any comes again.

    Args:
        labels: (N,).
        n_rows: how many to draw.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    waiting: list[list[int]] = [[] for _ in members]
    drawn: list[int] = []
    while len(drawn) < n_rows:
        for turn in generator.permutation(len(members)):
            if not waiting[turn]:
                waiting[turn] = generator.permutation(members[turn]).tolist()
            drawn.append(waiting[turn].pop())
    return np.array(drawn[:n_rows], dtype=np.int64)


def shuffled_rows(n_samples: int, n_rows: int, seed: int) -> NDArray[np.int64]:
    """Rows in a random order; each comes once before any comes again.

    Args:
        n_samples: how many there are, N.
        n_rows: how many to draw.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    rounds = [generator.permutation(n_samples) for _ in range(-(-n_rows // n_samples))]
    return np.concatenate([np.empty(0, np.int64), *rounds])[:n_rows]
