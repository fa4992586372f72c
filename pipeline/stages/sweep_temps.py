"""The stage `sweep-temps`: the ensemble at every pair of temperatures, and an honest choice.

Legend: N rows, C classes, D feature width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cache import Store
from pipeline.config import SweepConfig
from pipeline.heads import Head
from pipeline.mixture import heads_of
from pipeline.progress import OnProgress
from pipeline.sweeping.choosing import measure_and_choose
from pipeline.sweeping.cross_fitting import cross_fit
from pipeline.sweeping.inputs import SweepInputs, open_inputs
from pipeline.sweeping.judging import doubts, intervals, reliability, scores_on_test, within_noise
from pipeline.sweeping.measuring import MeasuredPlane, measure_confidence_of
from pipeline.sweeping.sweep import Sweep


def sweep_temps(
    store: Store,
    head: Head | Sequence[Head],
    config: SweepConfig | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Sweep:
    """Measure the ensemble, eq. (11)-(13), at every pair of temperatures (Table 7), exactly.

    Every cell has the predictions of `mixture_predictions`, to the last tie. On the split `val`
    temperatures are chosen: the cell of the best harmonic mean (ties: the higher lowest recall,
    then the nearest to (1, 1) in log temperature), or the temperatures of best likelihood of each
    head. Another split chooses only with `cross_fit`, and is then scored by folds that had no part
    in their own choice; else the grid only shows what happens, and (1, 1) is kept.

    Args:
        store: features (N, D) and old logits (N, C).
        head: the re-trained head, or several, which share one axis of the plane; one of weight 0
            is left out.
        config: the grids, in any order, the split and how to choose.
        on_progress: called with a snapshot, in rows, after each block.

    Raises:
        EvaluationError: if the split is missing, has no usable row or holds NaN, the weights are
            not those of the heads or leave nothing to sweep, or test views are asked for that are
            not there.
        HeadError: if a head belongs to another store, or nothing is said of test views and the
            heads were balanced for different ones.
    """
    inputs = open_inputs(store, heads_of(head), config or SweepConfig())
    return _judged(inputs, measure_and_choose(inputs, on_progress))


def _judged(inputs: SweepInputs, measured: MeasuredPlane) -> Sweep:
    """The sweep with its scores on `test`, its uncertainty and its calibration."""
    config, sweep = inputs.config, measured.sweep
    folds, right = cross_fit(inputs, measured) if config.cross_fit else (None, None)
    planes = measure_confidence_of(inputs, measured) if config.calibration else None
    calibrates = config.calibration or config.choose == "nll"
    return dataclasses.replace(
        sweep,
        cross_fit=folds,
        test_scores=scores_on_test(inputs, sweep, folds),
        warnings=(*sweep.warnings, *doubts(inputs, sweep)),
        bootstrap=intervals(inputs, sweep, right) if config.replicates else None,
        noise=within_noise(inputs, measured) if config.replicates else None,
        calibration=reliability(inputs, sweep) if calibrates else None,
        more={} if planes is None else {"nll": planes.nll, "ece": planes.ece},
    )
