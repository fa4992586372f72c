"""Predictions of every cell, for callers that need more than what is right.

Legend: N rows, C classes, To and Tn temperatures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.ensemble import Logits, mixture_predictions
from pipeline.plane.candidates import find_candidates
from pipeline.plane.duels import RIVALS_UP_TO, WORK_BYTES, Contenders, plane_size, won_cells
from pipeline.plane.members import Member
from pipeline.plane.partitions import MakeChunk, NumpyChunk


def plane_predictions(
    logits: Sequence[Logits], members: Sequence[Member], make_chunk: MakeChunk = NumpyChunk
) -> NDArray[np.intp]:
    """Predicted class (N, To, Tn) in every cell, as `mixture_predictions` gives it.

    Args:
        logits: (N, C) of each head, the old one first; -inf is allowed, but not for a whole row.
        members: of `plane_members`.
        make_chunk: the arithmetic.
    """
    margins = [member.logit_margin for member in members]
    chunk = make_chunk(logits)
    candidates = find_candidates(chunk.surviving(margins), logits, margins)
    rivals = candidates.counts[candidates.rows]
    several = np.flatnonzero((rivals > 1) & (rivals <= RIVALS_UP_TO))
    contenders = Contenders(candidates.rows[several], candidates.classes[several], several)
    won = won_cells(chunk, logits, members, candidates, contenders)
    n_cells = plane_size(members)
    predictions = np.empty((len(logits[0]), n_cells), np.intp)
    predictions[candidates.rows] = candidates.classes[:, None]  # right where there is only one
    for row, label, bits in zip(contenders.rows, contenders.classes, won, strict=True):
        predictions[row, np.unpackbits(bits, count=n_cells).view(bool)] = label
    for row in np.flatnonzero(candidates.counts > RIVALS_UP_TO):
        predictions[row] = _directly([v[[row]] for v in logits], members)
    shape = [len(next(m.temperatures for m in members if m.axis == axis)) for axis in (0, 1)]
    return predictions.reshape(-1, *shape)


def _directly(logits: Sequence[Logits], members: Sequence[Member]) -> NDArray[np.intp]:
    """Predicted class (cells,) of one row, whose logits are (1, C), in every cell."""
    n_cells = plane_size(members)
    n_new = len(next(m.temperatures for m in members if m.axis == 1))
    step = max(1, WORK_BYTES // (64 * logits[0].shape[1]))
    parts = []
    for start in range(0, n_cells, step):
        cells = np.arange(start, min(start + step, n_cells))
        steps = (cells // n_new, cells % n_new)
        parts.append(
            mixture_predictions(
                [v[np.zeros(len(cells), np.intp)] for v in logits],
                [m.temperatures[steps[m.axis]] for m in members],
                [m.weight for m in members],
            )
        )
    return np.concatenate(parts)
