"""Many fits of one store compared: grids of settings, statistics over seeds, tables and files."""

from pipeline.studying.files import refuse_existing_study, save_study, study_folder
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
    "refuse_existing_study",
    "save_study",
    "spread_of",
    "study_folder",
    "study_members",
]
