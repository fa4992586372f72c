"""From features and labels to linear heads; tensors only, no store and no file."""

from pipeline.fitting.many import fit_head_on_rows, fit_heads_on_rows
from pipeline.fitting.rows import Convergence, LinearFit, LinearMap, Rows, TrainingRows

__all__ = [
    "Convergence",
    "LinearFit",
    "LinearMap",
    "Rows",
    "TrainingRows",
    "fit_head_on_rows",
    "fit_heads_on_rows",
]
