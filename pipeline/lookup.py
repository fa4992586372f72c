"""Images found again by the ids that a store keeps of them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from PIL import Image

from pipeline.datasets import ImageSource, open_source
from pipeline.datasets.decoding import read_rgb
from pipeline.errors import DatasetError, UnreadableImageError


class ImageLookup:
    """The images of a split, by id.

    Args:
        spec: the folder that the ids are relative to, or a named data set, as `digits-lt:test`.

    Raises:
        DatasetError: if there is no such folder or data set.
    """

    def __init__(self, spec: str | Path) -> None:
        self.name = str(spec)
        self._folder: Path | None = Path(spec) if Path(spec).is_dir() else None
        self._source: ImageSource | None = None
        if self._folder is None:
            if Path(spec).is_file():
                raise DatasetError(
                    f"{spec} is a file: give the folder that its paths are relative to."
                )
            self._source = open_source(spec)
            self._rows = {each: row for row, each in enumerate(self._source.ids)}

    def read(self, sample_id: str) -> Image.Image:
        """The image of that id in RGB.

        Raises:
            UnreadableImageError: with the reason, if there is none or it cannot be decoded.
        """
        if self._source is not None:
            if sample_id not in self._rows:
                raise UnreadableImageError("no such sample")
            return self._source.read(self._rows[sample_id])
        path = PurePosixPath(sample_id)
        if path.is_absolute() or ".." in path.parts:
            raise UnreadableImageError("its id leaves the folder")
        return read_rgb(f"{self._folder}/{sample_id}")
