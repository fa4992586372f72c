"""What a sweep reads and how.

Legend: B rows of a block, C classes, D feature width, K new heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache import Store
from pipeline.config import SweepConfig, parse_size
from pipeline.cores import available_cores
from pipeline.ensemble import LogitBlock
from pipeline.errors import EvaluationError
from pipeline.heads import Head, require_same_identity
from pipeline.mixture import Mixture, head_names
from pipeline.plane.arithmetic import chunks_on
from pipeline.plane.partitions import MakeChunk
from pipeline.scored import ScoredSplit, is_scorable, scored_split

THREAD_BYTES = 2**27
"""Memory that a thread may need at its worst (128 MiB), see `duels.WORK_BYTES` and `hits.CHUNK`."""


@dataclass(frozen=True)
class SweepInputs:
    """A store's split with the heads that meet on the plane."""

    scored: ScoredSplit
    """Split that the grid is measured on."""

    test: ScoredSplit | None
    """The split `test`, where it can be scored."""

    heads: tuple[Head, ...]
    """The K new heads that have a weight."""

    names: tuple[str, ...]
    """(1 + K,) of the old and every new head."""

    config: SweepConfig
    """The grids and how to choose."""

    weights: tuple[float, ...]
    """(1 + K,) above 0, of the old and the new heads in the ensemble."""

    make_chunk: MakeChunk
    """The arithmetic."""

    @property
    def store(self) -> Store:
        """Features (N, D) and old logits (N, C)."""
        return self.scored.store

    @property
    def split(self) -> str:
        """Name of the split that the grid is measured on."""
        return self.scored.name

    @property
    def may_choose(self) -> bool:
        """Whether temperatures may be chosen on the split."""
        return self.split == "val" or self.config.cross_fit > 0

    @property
    def memory(self) -> int:
        """Bytes that the sweep may take."""
        return parse_size(self.config.memory)

    @property
    def threads(self) -> int:
        """As many as were asked for, where the memory allows them."""
        allowed = max(1, self.memory // 2 // THREAD_BYTES)
        return min(self.config.threads or available_cores(), allowed)

    def blocks(self, of: ScoredSplit | None = None) -> Iterator[LogitBlock]:
        """Logits (B, C) of the old and the new heads, of the sweep's split or another one."""
        return (of or self.scored).blocks([None, *self.heads])


def open_inputs(store: Store, heads: Sequence[Head], config: SweepConfig) -> SweepInputs:
    """Check everything that can be checked before the work.

    Args:
        store: features and old logits.
        heads: the new heads; those of weight 0 are left out.
        config: the settings.

    Raises:
        EvaluationError: if there is no head, the weights are not those of the heads or leave
            nothing to sweep, or the split cannot be scored as asked for.
        HeadError: if a head belongs to another store, or heads suit different test views.
    """
    if not heads:
        raise EvaluationError("A sweep needs a re-trained head beside the old one.")
    for head in heads:
        require_same_identity(head, store)
    weights = _weights(config, 1 + len(heads))
    kept = [k for k, weight in enumerate(weights) if weight]
    new = tuple(heads[k - 1] for k in kept[1:])
    own = "val" if "val" in store and not config.cross_fit else "test"
    split = own if config.split == "auto" else config.split
    scored = scored_split(store, split, new, config.test_views)
    test = scored if split == "test" else None
    if test is None and is_scorable(store, "test"):
        test = scored_split(store, "test", new, config.test_views)
    return SweepInputs(
        scored=scored,
        test=test,
        heads=new,
        names=tuple(head_names(len(heads))[k] for k in kept),
        config=config,
        weights=tuple(float(weights[k]) for k in kept),
        make_chunk=chunks_on(config.device),
    )


def _weights(config: SweepConfig, n_heads: int) -> tuple[float, ...]:
    """Weights of the old and the new heads, with something on either axis of the plane."""
    ones = (1.0,) * n_heads
    weights = Mixture(ones, config.weights).weights or ones
    if weights[0] and any(weights[1:]):
        return weights
    raise EvaluationError(
        "A sweep combines the old head with new ones: the weight of the old one, which comes "
        "first, and that of a new one must be above 0. New heads without the old one are scored "
        "with nolb evaluate, as --weights 0,1,1."
    )
