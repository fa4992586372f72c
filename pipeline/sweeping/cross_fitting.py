"""A choice judged by folds: every row is scored at temperatures that other rows chose.

Legend: N rows, K new heads, F folds.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.calibration import fit_temperatures
from pipeline.ensemble import mixture_predictions
from pipeline.metrics import Bools, Floats, Ints, count_per_class, score_hits
from pipeline.plane.scores import measure
from pipeline.sweeping.inputs import SweepInputs
from pipeline.sweeping.measuring import MeasuredPlane
from pipeline.sweeping.selection import best_cell, stratified_folds
from pipeline.sweeping.sweep import CrossFit


def cross_fit(inputs: SweepInputs, measured: MeasuredPlane) -> tuple[CrossFit, Bools]:
    """Choose on all folds but one, score that one; and which rows (N,) are right so."""
    store, labels = inputs.store, measured.hits.labels
    folds = stratified_folds(labels, inputs.config.cross_fit, inputs.config.seed)
    if inputs.config.choose == "nll":
        chosen, right = _by_likelihood(inputs, folds)
    else:
        chosen, right = _by_recall(inputs, measured, folds)
    n_classes = len(store.class_names)
    scores = score_hits(
        count_per_class(labels[right], n_classes), count_per_class(labels, n_classes),
        store.class_counts, store.class_names, inputs.split, measured.sweep.n_failed,
    )  # fmt: skip
    scores = dataclasses.replace(scores, predictor="ensemble", test_views=inputs.scored.test_views)
    return CrossFit(tuple(tuple(fold) for fold in chosen.tolist()), scores), right


def _by_likelihood(inputs: SweepInputs, folds: Ints) -> tuple[Floats, Bools]:
    """Temperatures (F, 1 + K) that are likeliest on the other folds; the rows (N,) right so."""
    n_heads = 1 + len(inputs.heads)
    chosen = fit_temperatures(inputs.blocks, n_heads, folds, inputs.config.cross_fit)
    right, done = np.zeros(len(folds), bool), 0
    for block in inputs.blocks():
        rows = slice(done, done + len(block.labels))
        own = list(chosen[folds[rows]].T)
        right[rows] = mixture_predictions(block.logits, own, inputs.weights) == block.labels
        done = rows.stop
    return chosen, right


def _by_recall(inputs: SweepInputs, measured: MeasuredPlane, folds: Ints) -> tuple[Floats, Bools]:
    """Temperatures (F, 1 + K) of the other folds' best cell; the rows (N,) right so."""
    sweep, hits = measured.sweep, measured.hits
    chosen = np.ones((inputs.config.cross_fit, 1 + len(inputs.heads)))
    right = np.zeros(len(folds), bool)
    for fold in range(inputs.config.cross_fit):
        own = folds == fold
        planes = measure(hits, inputs.store.class_counts, ~own)
        i, j = best_cell(sweep.t_old, sweep.t_new, planes["harmonic_mean"], planes["lowest_recall"])
        right[own] = hits.rows(i, j)[own]
        chosen[fold] = sweep.t_old[i], *(sweep.t_new[j] * factor for factor in sweep.factors)
    return chosen, right
