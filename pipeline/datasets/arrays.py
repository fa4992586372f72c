"""Images in a NumPy file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.labelling import as_labels
from pipeline.datasets.sources import ArraySource
from pipeline.errors import DatasetError


def read_npz(
    path: Path | str,
    class_names: Sequence[str] | None = None,
    *,
    images: str = "images",
    labels: str = "labels",
) -> ArraySource:
    """The source in an `.npz` file; nothing pickled in it is loaded.

    Args:
        path: the file, with images (N, H, W) or (N, H, W, 3) uint8 and labels (N,), numbers or
            names; `class_names` (C,) and `ids` (N,) where it has them.
        class_names: C names, usually those of the training split.
        images: name of the array of images.
        labels: name of the array of labels; one of shape (N, 1) is taken too.

    Raises:
        DatasetError: if the file is missing or damaged, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            for name in (images, labels):
                if name not in stored:
                    raise DatasetError(
                        f"{path}: has no array {name!r} but {', '.join(stored)}; name them with "
                        f"{path},images=NAME,labels=NAME."
                    )
            pixels, values = stored[images], stored[labels]
            own = _texts(stored["class_names"]) if "class_names" in stored else None
            ids = _texts(stored["ids"]) if "ids" in stored else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: cannot be read as an .npz file ({error}).") from None
    if values.ndim == 2 and values.shape[1] == 1:  # noqa: PLR2004  a column, as MedMNIST has it
        values = values[:, 0]
    if own is not None and class_names is not None and values.dtype.kind in "iu":
        values = np.array(own)[values]  # names survive another order of the classes
    numbers, names = as_labels(values, class_names or own, str(path))
    return ArraySource(pixels, numbers, names, ids)


def _texts(values: NDArray[np.str_]) -> list[str]:
    return [str(value) for value in values.tolist()]
