"""Labelled images in a fixed order, and the geometry that turns one into a model's input."""

from pipeline.datasets.catalogue import NAMED_SOURCES, open_source
from pipeline.datasets.digits import digits_longtail
from pipeline.datasets.folders import FolderSource
from pipeline.datasets.lists import ListSource
from pipeline.datasets.longtail import exponential_counts, subsample
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.datasets.sources import ArraySource, ImageSource
from pipeline.datasets.views import ViewSpec

__all__ = [
    "NAMED_SOURCES",
    "ArraySource",
    "FolderSource",
    "ImageSource",
    "ListSource",
    "Preprocessing",
    "ViewSpec",
    "digits_longtail",
    "exponential_counts",
    "open_source",
    "subsample",
]
