"""One step's rows, and who has them: all in this process, or a share in each of several.

A head's gradient is a sum over rows, and a loss needs the logits of the whole batch but no
features. So several processes fit one head by adding up twice a step: the logits, to which each
contributes its own rows, and the products of the logits' gradient with the features.
B batch rows, b of them in this process, D feature width, G seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

IndexBatch = Tensor
"""(G, B) int64 on the CPU: rows of one step for each of G seeds; row n of version v (0 is the clean
one, v is view v - 1) has the number v * N + n."""


class Places(NamedTuple):
    """Where the rows of this process stand in a batch."""

    at: Tensor
    """(G, b) int64 in 0..B-1."""

    real: Tensor
    """(G, b) bool; False fills up where another seed has more rows here."""


class Batch(NamedTuple):
    """Rows of one step."""

    features: Tensor
    """(G, b, D) of the rows of this process."""

    labels: Tensor
    """(G, B) of all rows."""

    places: Places | None = None
    """None where this process has all rows, b = B."""


class Share(Protocol):
    """What of every batch this process has, and how it comes together with the others'."""

    @property
    def whole(self) -> bool:
        """Whether this process has all rows."""

    def gathered(self, own: Tensor, batch: Batch) -> Tensor:
        """Values (G, B, ...) of all rows, from (G, b, ...) of those of this process."""

    def own(self, values: Tensor, batch: Batch) -> Tensor:
        """Values (G, b, ...) of this process's rows, 0 for those that only fill up."""

    def once(self, value: float) -> float:
        """The value in one process and 0 in the others, for what a sum shall hold once."""

    def add_up_(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""


class Alone:
    """All rows are here."""

    whole = True

    def gathered(self, own: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002  # nothing to do
        """The same."""
        return own

    def own(self, values: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002  # nothing to do
        """The same."""
        return values

    def once(self, value: float) -> float:
        """The same."""
        return value

    def add_up_(self, values: Tensor) -> Tensor:
        """The same."""
        return values


class Shared:
    """Each of several processes has some rows.

    Args:
        add_up: replaces a tensor by its sum over the processes, in each of them.
        leads: True in one process.
    """

    whole = False

    def __init__(self, add_up: Callable[[Tensor], None], *, leads: bool) -> None:
        self._add_up, self._leads = add_up, leads

    def gathered(self, own: Tensor, batch: Batch) -> Tensor:
        """Every row comes from one process, and the others add 0 to it: exact."""
        at, real = _placed(batch, own)
        whole = own.new_zeros(*batch.labels.shape, *own.shape[2:])
        whole.scatter_add_(1, at, torch.where(real, own, own.new_zeros(())))
        return self.add_up_(whole)

    def own(self, values: Tensor, batch: Batch) -> Tensor:
        """Those at the batch's places."""
        at, real = _placed(batch, values)
        return torch.where(real, values.gather(1, at), values.new_zeros(()))

    def once(self, value: float) -> float:
        """The value where this process leads."""
        return value if self._leads else 0.0

    def add_up_(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        self._add_up(values)
        return values


ALONE = Alone()


def _placed(batch: Batch, like: Tensor) -> Places:
    """A batch's places, for values (G, ..., ...) of as many dimensions."""
    assert batch.places is not None, "shared rows come with their places"  # noqa: S101
    at, real = (
        part.view(*part.shape, *[1] * (like.dim() - 2)).expand(-1, -1, *like.shape[2:])
        for part in batch.places
    )
    return Places(at, real)
