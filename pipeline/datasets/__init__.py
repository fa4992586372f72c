"""Labelled images in a fixed order, and the geometry that turns one into a model's input."""

from pipeline.datasets.annotations import AnnotationSource
from pipeline.datasets.archives import TarSource
from pipeline.datasets.arrays import read_npz
from pipeline.datasets.catalogue import NAMED_SOURCES, SourceOptions, open_source, open_sources
from pipeline.datasets.cifar import cifar_source
from pipeline.datasets.digits import digits_longtail
from pipeline.datasets.folders import FolderSource
from pipeline.datasets.hub import HubSource
from pipeline.datasets.labelling import read_class_names, read_class_order, read_shares
from pipeline.datasets.lists import ListSource
from pipeline.datasets.longtail import (
    exponential_counts,
    published_rows,
    step_counts,
    subsample,
)
from pipeline.datasets.overlaps import overlap_notes
from pipeline.datasets.paths import parse_rewrites
from pipeline.datasets.preprocessing import Preprocessing
from pipeline.datasets.sources import ArraySource, ImageSource, RelabelledSource
from pipeline.datasets.splitting import SubsetSource, split_source
from pipeline.datasets.tables import TableSource
from pipeline.datasets.views import ShiftedViews, Views, ViewSpec

__all__ = [
    "NAMED_SOURCES",
    "AnnotationSource",
    "ArraySource",
    "FolderSource",
    "HubSource",
    "ImageSource",
    "ListSource",
    "Preprocessing",
    "RelabelledSource",
    "ShiftedViews",
    "SourceOptions",
    "SubsetSource",
    "TableSource",
    "TarSource",
    "ViewSpec",
    "Views",
    "cifar_source",
    "digits_longtail",
    "exponential_counts",
    "open_source",
    "open_sources",
    "overlap_notes",
    "parse_rewrites",
    "published_rows",
    "read_class_names",
    "read_class_order",
    "read_npz",
    "read_shares",
    "split_source",
    "step_counts",
    "subsample",
]
