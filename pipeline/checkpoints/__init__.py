"""Trained classifiers from the files that they were saved in."""

from pipeline.checkpoints.inspection import Inspection, inspect_checkpoint
from pipeline.checkpoints.model import TrainedModel
from pipeline.checkpoints.registry import FAMILIES, Family, load_checkpoint

__all__ = [
    "FAMILIES",
    "Family",
    "Inspection",
    "TrainedModel",
    "inspect_checkpoint",
    "load_checkpoint",
]
