"""Figures: every class's recall (the paper's Figures 1-3), the temperature plane, calibration."""

from pipeline.figures.canvas import require_figure_format
from pipeline.figures.recalls import recall_bars
from pipeline.figures.reliability import reliability_diagrams
from pipeline.figures.temperatures import temperature_heatmaps

__all__ = [
    "recall_bars",
    "reliability_diagrams",
    "require_figure_format",
    "temperature_heatmaps",
]
