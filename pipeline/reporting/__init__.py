"""What `nolb report` shows: gathered from a store and a head, drawn as a page and for papers."""

from pipeline.reporting.confusion import LostClass, lost_classes
from pipeline.reporting.content import Contender, Content, gather
from pipeline.reporting.page import render_page
from pipeline.reporting.papers import write_for_papers
from pipeline.reporting.plane import CellHits, hits_of_cells, sweep_of
from pipeline.reporting.thumbnails import Thumbnails, make_thumbnails

__all__ = [
    "CellHits",
    "Contender",
    "Content",
    "LostClass",
    "Thumbnails",
    "gather",
    "hits_of_cells",
    "lost_classes",
    "make_thumbnails",
    "render_page",
    "sweep_of",
    "write_for_papers",
]
