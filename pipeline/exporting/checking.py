"""An exported file compared with the store: their predictions of the same images.

Legend: N images, C classes, S the side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cache import Split, Store
from pipeline.checkpoints import TrainedModel
from pipeline.datasets import ShiftedViews
from pipeline.errors import ExportError, UnreadableImageError
from pipeline.exporting.formats import Exported
from pipeline.exporting.inputs import as_inputs, misfit
from pipeline.heads import Head
from pipeline.lookup import ImageLookup
from pipeline.mixture import Mixture
from pipeline.progress import OnProgress, Steps
from pipeline.reading import read_mixed
from pipeline.scored import ScoredSplit

BATCH = 256
"""Images that are checked at once."""


@dataclass(frozen=True)
class Agreement:
    """How an exported file's predictions compare with those that the store gives."""

    n_images: int
    """Test images that were run through the file."""

    n_different: int
    """Images of which the file predicts another class."""

    n_unreadable: int
    """Images that were left out because they could not be read."""


def compare_with_store(
    exported: Exported,
    store: Store,
    head: Head,
    lookup: ImageLookup,
    n_checked: int | None = None,
    on_progress: OnProgress | None = None,
    workers: int = -1,
) -> Agreement:
    """Run the file on test images and compare with what the store's clean features give.

    A subset is spread evenly over the split, which is usually sorted by class.

    Args:
        exported: the file.
        store: with the split `test`.
        head: the new head, alone or beside the old one as the file's temperatures say.
        lookup: where the images are.
        n_checked: how many of them; None for all.
        on_progress: called with a snapshot, in images, after each batch.
        workers: processes that read the images, as `ExtractConfig.workers`.
    """
    temperatures = exported.description.temperatures
    mixture = None if temperatures is None else Mixture(temperatures)
    wanted = ScoredSplit(store, "test").predictions([head], mixture)
    split = store["test"]
    usable = np.flatnonzero(split.usable)
    n = len(usable) if n_checked is None else min(n_checked, len(usable))
    picked = np.linspace(0, len(usable) - 1, n).round().astype(np.int64)
    images = _TestImages(lookup, [split.ids[row] for row in usable[picked]])
    described = exported.description
    batches = read_mixed(
        images, described.preprocessing, ShiftedViews(), BATCH, exported.device, workers
    )
    different = checked = 0
    steps = Steps(n, on_progress)
    for batch in batches:
        for rows, (pixels,) in batch.alike:
            if misfit(pixels, described) is None:
                found = exported.run(as_inputs(pixels, described)).argmax(axis=1)
                different += int((found != wanted[picked[list(rows)]]).sum())
                checked += len(rows)
        steps.reach(batch.rows.stop)
    return Agreement(checked, different, n - checked)


def side_of_images(split: Split, lookup: ImageLookup, model: TrainedModel) -> int:
    """Side of the first readable image of a split after its preprocessing.

    Raises:
        ExportError: if it is not square, or none of the first images can be read.
    """
    reason = ""
    for row in range(min(BATCH, split.n_samples)):
        try:
            pixels = model.preprocessing.to_uint8(lookup.read(split.ids[row]))
        except UnreadableImageError as error:
            reason = reason or str(error)
            continue
        height, width = pixels.shape[:2]
        if height != width:
            raise ExportError(
                f"The test images are {width} x {height}, not square: an exported program takes "
                "square images; extract with --crop."
            )
        return int(height)
    raise ExportError(
        f"None of the first test images can be read at {lookup.name} ({reason}): give the folder "
        "that the ids of the test split are relative to."
    )


class _TestImages:
    """Images of a split that are found by their ids.

    Args:
        lookup: where they are.
        ids: (N,) of the images.
    """

    def __init__(self, lookup: ImageLookup, ids: Sequence[str]) -> None:
        self._lookup = lookup
        self.ids = tuple(ids)

    def read(self, row: int) -> Image.Image:
        """The image of a row; raises UnreadableImageError as `ImageLookup.read`."""
        return self._lookup.read(self.ids[row])
