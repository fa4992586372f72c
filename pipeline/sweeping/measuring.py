"""The plane of one grid: what every cell gets right, and how far its confidence can be trusted.

Legend: K new heads, To and Tn temperatures of the old and the new heads.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.metrics import Floats
from pipeline.plane import HitPlane, Member, collect_hits, plane_members
from pipeline.plane.confidence import ConfidencePlanes, measure_confidence
from pipeline.plane.scores import measure
from pipeline.progress import OnProgress, Steps
from pipeline.sweeping.inputs import SweepInputs
from pipeline.sweeping.sweep import Sweep


@dataclass(frozen=True)
class MeasuredPlane:
    """A plane and what it was made from."""

    sweep: Sweep
    """Its metrics."""

    hits: HitPlane
    """Which rows every cell gets right."""


def measure_plane(
    inputs: SweepInputs,
    t_old: Floats,
    t_new: Floats,
    factors: tuple[float, ...],
    on_progress: OnProgress | None,
) -> MeasuredPlane:
    """Measure every pair of two temperatures.

    Args:
        inputs: what to read.
        t_old: (To,) ascending, of the old head.
        t_new: (Tn,) ascending, of the first new head.
        factors: (K,) what `t_new` is multiplied by for each new head.
        on_progress: called with a snapshot, in rows, after each block.
    """
    store, scored = inputs.store, inputs.scored
    hits = collect_hits(
        inputs.blocks(), _members(inputs, t_old, t_new, factors), len(store.class_names),
        make_chunk=inputs.make_chunk, threads=inputs.threads, bit_bytes=inputs.memory // 2,
        on_rows=Steps(scored.n_samples, on_progress).reach,
    )  # fmt: skip
    sweep = Sweep(
        split=scored.name, t_old=t_old, t_new=t_new, **measure(hits, store.class_counts),
        class_names=tuple(store.class_names), n_samples=scored.n_samples,
        n_failed=scored.n_failed, test_views=scored.test_views, factors=factors,
        weights=inputs.weights,
        provenance={
            "store": store.identity.to_json(),
            "head": inputs.heads[0].provenance.to_json(),
            "heads": [head.provenance.to_json() for head in inputs.heads],
        },
    )  # fmt: skip
    return MeasuredPlane(sweep, hits)


def measure_confidence_of(inputs: SweepInputs, measured: MeasuredPlane) -> ConfidencePlanes:
    """Likelihood and calibration in every cell."""
    sweep = measured.sweep
    members = _members(inputs, sweep.t_old, sweep.t_new, sweep.factors)
    return measure_confidence(
        inputs.blocks(), members, measured.hits, make_chunk=inputs.make_chunk,
        threads=inputs.threads,
    )  # fmt: skip


def _members(
    inputs: SweepInputs, t_old: Floats, t_new: Floats, factors: tuple[float, ...]
) -> tuple[Member, ...]:
    """The heads on the two axes."""
    n_new = len(inputs.heads)
    return plane_members(t_old, t_new, n_new, weights=inputs.weights, factors=factors)
