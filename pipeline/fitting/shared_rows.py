"""Training rows of which each of several processes has a consecutive part.

N training rows, n of them in this process, V views, B batch rows, b of them here, G seeds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.fitting.rows import LinearMap, Rows
from pipeline.fitting.shares import Batch, IndexBatch, Places, Share


class SharedRows:
    """All rows, for a process that has features of some.

    Every process draws the same mini-batches from all of the labels, and reads its own rows.

    Args:
        own: features and labels of the n rows of this process.
        first: number of the first of them among all N.
        labels: (N,) int64 of all rows, on the CPU.
        class_counts: (C,) int64 of all rows.
        share: how the processes come together.
    """

    def __init__(
        self, own: Rows, first: int, labels: Tensor, class_counts: Tensor, share: Share
    ) -> None:
        self.labels, self.class_counts, self.share = labels, class_counts, share
        self.n_versions, self.like = own.n_versions, own.like
        self.teacher: LinearMap | None = own.teacher
        self._own, self._first, self._n_own = own, first, len(own.labels)

    def stream(self, batches: Iterator[IndexBatch]) -> Iterator[Batch]:
        """Own features, and all labels, of one step after the other."""
        asked: deque[tuple[Tensor, Places]] = deque()

        def own_batches() -> Iterator[IndexBatch]:
            for batch in batches:
                places = self._places(batch)
                asked.append((self.labels[batch % len(self.labels)], places))
                yield self._own_numbers(batch, places)

        device = self.like.device
        for read in self._own.stream(own_batches()):
            labels, places = asked.popleft()
            here = Places(places.at.to(device), places.real.to(device))
            yield Batch(read.features, labels.to(device), here)

    def _places(self, batch: IndexBatch) -> Places:
        """Where in the batch rows of this process stand, as many for each seed."""
        row = batch % len(self.labels)
        mine = (row >= self._first) & (row < self._first + self._n_own)
        n_mine = mine.sum(dim=1, keepdim=True)
        # Stable: own places come first, in their order.
        at = (~mine).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(n_mine.max())]
        return Places(at, torch.arange(at.shape[1]) < n_mine)

    def _own_numbers(self, batch: IndexBatch, places: Places) -> IndexBatch:
        """Numbers (G, b) by which the own rows know them; those that fill up are row 0."""
        chosen = batch.gather(1, places.at)
        row, version = chosen % len(self.labels), chosen // len(self.labels)
        return torch.where(places.real, version * self._n_own + row - self._first, 0)
