"""Samplers: which training rows make up the mini-batches of one epoch.

Every sampler has the form `(labels, batch_size, generator) -> iterator of row indices`; a
setting of its own is a keyword-only argument named like the field of `FitConfig` that fills it, and
`progress` is how far the fit has come: 0 in its first epoch, 1 in its last.
All take ceil(N / batch_size) steps an epoch. Draws come from the CPU generator given, so they are
the same for any number of threads and leave torch's global generator alone.
N training rows, C classes, B batch rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Generator, Tensor

Sampler = Callable[[Tensor, int, Generator], Iterator[Tensor]]
"""`(labels (N,) int64, batch_size, generator) -> one epoch's batches, each (B,) int64 rows`."""


def instance(labels: Tensor, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Every row once, in random order.

    Batches are of nearly equal size, at most `batch_size`: a short last batch would weigh each of
    its rows many times as much as the others.

    Args:
        labels: (N,) int64.
        batch_size: largest B.
        generator: CPU generator; advanced by the draw.
    """
    order = torch.randperm(len(labels), generator=generator)
    yield from order.tensor_split(_steps(labels, batch_size))


def class_balanced(labels: Tensor, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Rows drawn with replacement: a class at random, then one of its rows at random.

    Args:
        labels: (N,) int64; only classes that have rows are drawn.
        batch_size: B of every batch.
        generator: CPU generator; advanced by the draw.
    """
    table = _rows_by_class(labels)
    n_drawn = _steps(labels, batch_size) * batch_size
    classes = torch.randint(len(table.counts), (n_drawn,), generator=generator)
    yield from _rows_of(classes, table, batch_size, generator)


def square_root(labels: Tensor, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Rows drawn with replacement: a class in proportion to the root of its rows, then one of them.

    Half way between the rows' own frequencies and balanced classes: Kang et al. 2020, eq. (1) with
    q = 1/2.

    Args:
        labels: (N,) int64; only classes that have rows are drawn.
        batch_size: B of every batch.
        generator: CPU generator; advanced by the draw.
    """
    table = _rows_by_class(labels)
    roots = table.counts.double().sqrt()
    return _drawn(table, roots / roots.sum(), _steps(labels, batch_size), batch_size, generator)


def progressive(
    labels: Tensor, batch_size: int, generator: Generator, *, progress: float
) -> Iterator[Tensor]:
    """Rows drawn with replacement: at first each row alike, in the end each class alike.

    Progressively-balanced sampling, Kang et al. 2020, eq. (2): in between, class j is drawn with
    probability (1 - progress) * N_j / N + progress / C.

    Args:
        labels: (N,) int64; only classes that have rows are drawn.
        batch_size: B of every batch.
        generator: CPU generator; advanced by the draw.
        progress: 0 in the first epoch to 1 in the last.
    """
    table = _rows_by_class(labels)
    own = table.counts.double() / len(labels)
    mixed = (1 - progress) * own + progress / len(table.counts)
    return _drawn(table, mixed, _steps(labels, batch_size), batch_size, generator)


def class_aware(
    labels: Tensor, batch_size: int, generator: Generator, *, samples_per_class: int
) -> Iterator[Tensor]:
    """Distinct classes, then the same number of rows of each, so that class means are defined.

    Classes come from a shuffled deck that is used up before the next is begun: at any time no
    class has been drawn more than once more often than another. A class's rows differ within a
    batch, except where it has fewer than `samples_per_class`; those are drawn with replacement.

    Args:
        labels: (N,) int64; only classes that have rows are drawn.
        batch_size: B is the largest multiple of `samples_per_class` that neither exceeds this nor
            needs more classes than there are.
        generator: CPU generator; advanced by the draw.
        samples_per_class: rows of each chosen class, at most `batch_size`.
    """
    table = _rows_by_class(labels)
    n_classes = len(table.counts)
    per_batch = min(batch_size // samples_per_class, n_classes)
    steps = _steps(labels, batch_size)
    classes = torch.stack(list(_dealt(n_classes, per_batch, steps, generator))).flatten()
    picks = _subsets(table.counts[classes], samples_per_class, generator)
    rows = table.rows[table.starts[classes].unsqueeze(1) + picks]
    yield from rows.view(steps, per_batch * samples_per_class)


SAMPLERS: Mapping[str, Callable[..., Iterator[Tensor]]] = MappingProxyType(
    {
        "instance": instance,
        "class-balanced": class_balanced,
        "class-aware": class_aware,
        "square-root": square_root,
        "progressive": progressive,
    }
)
"""Samplers by the names that `FitConfig.sampler` knows."""


class _RowsByClass(NamedTuple):
    """Rows sorted by class; class k of those that have rows owns starts[k] and the counts[k] on."""

    rows: Tensor
    starts: Tensor
    counts: Tensor


def _rows_by_class(labels: Tensor) -> _RowsByClass:
    counts = labels.bincount()
    counts = counts[counts > 0]
    return _RowsByClass(labels.argsort(stable=True), counts.cumsum(0) - counts, counts)


def _steps(labels: Tensor, batch_size: int) -> int:
    """Batches of one epoch."""
    return -(-len(labels) // batch_size)


def _drawn(
    table: _RowsByClass, probabilities: Tensor, steps: int, batch_size: int, generator: Generator
) -> Iterator[Tensor]:
    """Batches (B,) of a class by its probability, float64, then one of its rows at random."""
    edges = probabilities.cumsum(0)
    places = torch.rand(steps * batch_size, generator=generator, dtype=torch.float64)
    # Rounding may leave the last edge just below a place; the last class takes that too.
    classes = torch.searchsorted(edges, places, right=True).clamp_max_(len(edges) - 1)
    yield from _rows_of(classes, table, batch_size, generator)


def _rows_of(
    classes: Tensor, table: _RowsByClass, batch_size: int, generator: Generator
) -> Iterator[Tensor]:
    """Batches (B,) of one row at random for each of the classes, a multiple of B."""
    picks = _uniform(table.counts[classes], generator)
    yield from table.rows[table.starts[classes] + picks].view(-1, batch_size)


def _uniform(bounds: Tensor, generator: Generator) -> Tensor:
    """One integer from 0 to bound - 1 for each bound, of bounds' shape.

    In float64 the product with a number below 1 stays below the bound for any count below 2^53.
    """
    fractions = torch.rand(bounds.shape, generator=generator, dtype=torch.float64)
    return (fractions * bounds).long()


def _dealt(n_classes: int, per_batch: int, steps: int, generator: Generator) -> Iterator[Tensor]:
    """Hands of `per_batch` distinct classes from a deck that is shuffled anew when it runs out."""
    deck = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(deck) < per_batch:
            fresh = torch.randperm(n_classes, generator=generator)
            held = torch.isin(fresh, deck)  # these must not come twice into this hand
            deck = torch.cat([deck, fresh[~held], fresh[held]])
        yield deck[:per_batch]
        deck = deck[per_batch:]


def _subsets(sizes: Tensor, n: int, generator: Generator) -> Tensor:
    """For each size (M,), n integers below it, (M, n): distinct where the size allows it.

    Floyd's algorithm (Bentley and Floyd 1987) for all sizes at once: the j-th pick is uniform
    below size - n + j + 1, and where that was picked before, it is size - n + j itself.
    """
    picks = torch.empty(len(sizes), n, dtype=torch.int64)
    for j in range(n):
        top = sizes - n + j
        pick = _uniform((top + 1).clamp_min(1), generator)
        taken = (picks[:, :j] == pick.unsqueeze(1)).any(dim=1)
        picks[:, j] = torch.where(taken, top, pick)
    repeated = _uniform(sizes.unsqueeze(1).expand(-1, n), generator)
    return torch.where((sizes >= n).unsqueeze(1), picks, repeated)
