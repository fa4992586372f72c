"""A re-trained classifier as one file that others can run, and such files read back."""

from pipeline.exporting.checking import BATCH, Agreement, compare_with_store, side_of_images
from pipeline.exporting.description import Description, image_side
from pipeline.exporting.formats import FORMATS, Exported, open_export, write_export
from pipeline.exporting.inputs import as_inputs, misfit
from pipeline.exporting.network import ExportedNetwork, build_classifier
from pipeline.exporting.origin import model_of_identity
from pipeline.exporting.patching import patch_checkpoint

__all__ = [
    "BATCH",
    "FORMATS",
    "Agreement",
    "Description",
    "Exported",
    "ExportedNetwork",
    "as_inputs",
    "build_classifier",
    "compare_with_store",
    "image_side",
    "misfit",
    "model_of_identity",
    "open_export",
    "patch_checkpoint",
    "side_of_images",
    "write_export",
]
