"""The temperatures that a plane chooses, where its split may choose.

Legend: K new heads.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.calibration import fit_temperatures
from pipeline.metrics import Floats
from pipeline.progress import OnProgress
from pipeline.sweeping.inputs import SweepInputs
from pipeline.sweeping.measuring import MeasuredPlane, measure_plane
from pipeline.sweeping.selection import best_cell, finer_grid
from pipeline.sweeping.sweep import choose


def measure_and_choose(inputs: SweepInputs, on_progress: OnProgress | None) -> MeasuredPlane:
    """The plane of the configured grids, made finer where that was asked for, with its choice."""
    t_old, t_new = np.unique(inputs.config.t_old), np.unique(inputs.config.t_new)
    if inputs.may_choose and inputs.config.choose == "nll":
        return _likeliest(inputs, t_old, t_new, on_progress)
    factors = (1.0,) * len(inputs.heads)
    measured = measure_plane(inputs, t_old, t_new, factors, on_progress)
    if not inputs.may_choose:
        return measured
    for _ in range(inputs.config.refine):
        sweep = measured.sweep
        i, j = best_cell(t_old, t_new, sweep.harmonic_mean, sweep.lowest_recall)
        t_old, t_new = finer_grid(t_old, i), finer_grid(t_new, j)
        measured = measure_plane(inputs, t_old, t_new, factors, on_progress)
    return MeasuredPlane(choose(measured.sweep), measured.hits)


def _likeliest(
    inputs: SweepInputs, t_old: Floats, t_new: Floats, on_progress: OnProgress | None
) -> MeasuredPlane:
    """Each head's own temperature of best likelihood, and the plane with its cell among others."""
    (found,) = fit_temperatures(inputs.blocks, 1 + len(inputs.heads))
    fitted = np.array([float(f"{t:.5g}") for t in found])  # five digits can be typed
    t_old, t_new = np.union1d(t_old, fitted[0]), np.union1d(t_new, fitted[1])
    factors = tuple((fitted[1:] / fitted[1]).tolist())
    measured = measure_plane(inputs, t_old, t_new, factors, on_progress)
    chosen = (float(fitted[0]), float(fitted[1]))
    sweep = dataclasses.replace(
        measured.sweep, chosen=chosen, chosen_on=inputs.split, chosen_by="nll"
    )
    return MeasuredPlane(sweep, measured.hits)
