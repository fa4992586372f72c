"""What `nolb report` shows: gathered from a store and a head, drawn as a page and for papers."""

from pipeline.reporting.confusion import LostClass, lost_classes
from pipeline.reporting.content import Contender, Content, gather
from pipeline.reporting.grid import Grid, grid_of_sweep
from pipeline.reporting.page import render_page
from pipeline.reporting.papers import write_for_papers
from pipeline.reporting.thumbnails import Thumbnails, make_thumbnails

__all__ = [
    "Contender",
    "Content",
    "Grid",
    "LostClass",
    "Thumbnails",
    "gather",
    "grid_of_sweep",
    "lost_classes",
    "make_thumbnails",
    "render_page",
    "write_for_papers",
]
