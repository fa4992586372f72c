"""Many fits of one store compared: grids of settings, statistics over seeds, tables."""

from pipeline.studying.grid import grid_configs, parse_sweeps, study_members
from pipeline.studying.results import Measurement, Study, Variant, judged
from pipeline.studying.statistics import Spread, spread_of

__all__ = [
    "Measurement",
    "Spread",
    "Study",
    "Variant",
    "grid_configs",
    "judged",
    "parse_sweeps",
    "spread_of",
    "study_members",
]
