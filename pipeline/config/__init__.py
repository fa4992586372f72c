"""The settings of every stage.

A stage's settings are one frozen dataclass: the library takes it, the command line builds its
options from it, a recipe of `configs/` fills it (`pipeline.recipes`). The docstring under a field
is its help text.
Nothing here imports numpy or torch, so that `--help` answers at once.
"""

from pipeline.config.balance import BalanceConfig
from pipeline.config.building import build_config, field_help, refuse_unknown
from pipeline.config.checks import typed, value_type
from pipeline.config.extract import ExtractConfig
from pipeline.config.fit import FitConfig
from pipeline.config.parsing import (
    LARGEST_GRID,
    Size,
    Temperatures,
    Weights,
    parse_size,
    parse_temperatures,
    parse_weights,
)
from pipeline.config.pretrain import PretrainConfig
from pipeline.config.sweep import DEFAULT_GRID, FEWEST_REPLICATES, SweepConfig

__all__ = [
    "DEFAULT_GRID",
    "FEWEST_REPLICATES",
    "LARGEST_GRID",
    "BalanceConfig",
    "ExtractConfig",
    "FitConfig",
    "PretrainConfig",
    "Size",
    "SweepConfig",
    "Temperatures",
    "Weights",
    "build_config",
    "field_help",
    "parse_size",
    "parse_temperatures",
    "parse_weights",
    "refuse_unknown",
    "typed",
    "value_type",
]
