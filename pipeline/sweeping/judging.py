"""How sure a choice is: scores on `test`, intervals, the region within the noise, calibration.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.balancing.notes import balance_notes
from pipeline.bootstrap import Bootstrap, cells_within_noise, paired_bootstrap
from pipeline.calibration import Calibration, measure_calibration
from pipeline.ensemble import mixture_predictions
from pipeline.metrics import Bools, Ints, Scores
from pipeline.mixture import Mixture
from pipeline.scored import ScoredSplit
from pipeline.sweeping.inputs import SweepInputs
from pipeline.sweeping.measuring import MeasuredPlane
from pipeline.sweeping.selection import NoiseRegion, best_cell, noise_region
from pipeline.sweeping.sweep import CrossFit, Sweep

NOISE_REPLICATES = 400
NOISE_DRAWS = 2**23
"""Replicates at most for the region within the noise, and their product with the cells: each
redraws the plane."""


def doubts(inputs: SweepInputs, sweep: Sweep) -> list[str]:
    """What a reader should know of the heads and of the choice."""
    told = (name.replace("new", "New head") for name in inputs.names[1:])
    named = dict(zip(told, inputs.heads, strict=True))
    if len(named) == 1:
        named = {"The new head": inputs.heads[0]}
    judged = [inputs.scored] if inputs.test is None else [inputs.scored, inputs.test]
    notes = balance_notes(named, judged, folds=inputs.config.cross_fit > 0)
    if sweep.chosen_on is None and inputs.config.choose == "nll":
        notes.append(
            f"Nothing was calibrated: {sweep.split} is no split to choose on. Extract with --val, "
            "or choose by folds with --cross-fit 5."
        )
    return notes


def scores_on_test(inputs: SweepInputs, sweep: Sweep, cross_fit: CrossFit | None) -> Scores | None:
    """The ensemble on the split `test`; None where there is none."""
    if cross_fit is not None and inputs.split == "test":
        return cross_fit.scores
    return None if inputs.test is None else inputs.test.scores(inputs.heads, sweep.mixture)


def intervals(inputs: SweepInputs, sweep: Sweep, cross_fitted: Bools | None) -> Bootstrap:
    """Intervals of the ensemble, and of its lead over (1, 1) and over each head alone.

    Args:
        inputs: what was swept.
        sweep: the plane with its choice.
        cross_fitted: (N,) rows that are right at temperatures which other rows chose.
    """
    split = _judging(inputs, sweep)
    ones = Mixture((1.0,) * len(inputs.names), inputs.weights)
    compared: dict[str, Mixture | int] = {"ensemble": sweep.mixture}
    if sweep.temperatures != ones.temperatures or cross_fitted is not None:
        compared["(1, 1)"] = ones
    compared |= {name: k for k, name in enumerate(inputs.names)}
    right, labels = _right_rows(inputs, split, compared)
    if cross_fitted is not None and split is inputs.scored:
        right["ensemble"] = cross_fitted
    return paired_bootstrap(
        right, labels, len(inputs.store.class_names), split.name,
        replicates=inputs.config.replicates, seed=inputs.config.seed,
    )  # fmt: skip


def within_noise(inputs: SweepInputs, measured: MeasuredPlane) -> NoiseRegion:
    """The cells that the split's samples cannot tell from the best one."""
    sweep, hits, config = measured.sweep, measured.hits, inputs.config
    best = best_cell(sweep.t_old, sweep.t_new, sweep.harmonic_mean, sweep.lowest_recall)
    allowed = min(NOISE_REPLICATES, max(100, NOISE_DRAWS // hits.n_cells))
    replicates = min(config.replicates, allowed)
    within = cells_within_noise(hits, best, replicates=replicates, seed=config.seed)
    return noise_region(sweep.t_old, sweep.t_new, best, within)


def reliability(inputs: SweepInputs, sweep: Sweep) -> Calibration:
    """Reliability before and after, where the choice is judged."""
    split = _judging(inputs, sweep)
    return measure_calibration(
        lambda: inputs.blocks(split), inputs.names, sweep.temperatures, split=split.name,
        fitted_on=sweep.chosen_on, weights=inputs.weights,
    )  # fmt: skip


def _judging(inputs: SweepInputs, sweep: Sweep) -> ScoredSplit:
    """Where the choice is judged: on `test` if another split chose, else where it was measured."""
    if sweep.chosen_on == "val" and inputs.test is not None:
        return inputs.test
    return inputs.scored


def _right_rows(
    inputs: SweepInputs, split: ScoredSplit, compared: Mapping[str, Mixture | int]
) -> tuple[dict[str, Bools], Ints]:
    """Rows (N,) that each classifier gets right: a mixture of all heads, or a head's place."""
    right: dict[str, list[Bools]] = {name: [] for name in compared}
    labels = []
    for block in inputs.blocks(split):
        labels.append(block.labels)
        for name, which in compared.items():
            if isinstance(which, int):
                predictions = block.logits[which].argmax(axis=1)
            else:
                predictions = mixture_predictions(block.logits, which.temperatures, which.weights)
            right[name].append(predictions == block.labels)
    return {name: np.concatenate(parts) for name, parts in right.items()}, np.concatenate(labels)
