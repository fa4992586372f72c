"""Images in one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.datasets.sources import FileSource
from pipeline.errors import DatasetError, listed

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What counts as an image in a folder: torchvision's IMG_EXTENSIONS, so that lists agree."""


class FolderSource(FileSource):
    """A folder `<class>/<image>`; classes and images are listed as torchvision's ImageFolder does.

    Ids are POSIX paths relative to the folder.

    Args:
        folder: the folder.
        class_names: names that fix the labels, usually those of the training split, some of which
            may be absent here. Not given: the class folders in alphabetical order.

    Raises:
        DatasetError: if the folder is missing, has no class folders, an empty one, or one that
            `class_names` lacks.
    """

    def __init__(self, folder: Path | str, class_names: Sequence[str] | None = None) -> None:
        found = _class_folders(Path(folder))
        names = found if class_names is None else list(class_names)
        label_of = {name: label for label, name in enumerate(names)}
        if unknown := [name for name in found if name not in label_of]:
            raise DatasetError(
                f"{folder}: the classes of the training split do not include {listed(unknown)}; "
                f"rename the class folders or take them out."
            )
        ids: list[str] = []
        labels: list[int] = []
        for name in found:
            images = list(_images_below(Path(folder), name))
            if not images:
                raise DatasetError(
                    f"{Path(folder) / name}: the class folder holds no images "
                    f"({' '.join(IMAGE_SUFFIXES)}); fill it or delete it."
                )
            ids += images
            labels += [label_of[name]] * len(images)
        super().__init__(str(folder), folder, ids, labels, names)


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder.")
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not found:
        raise DatasetError(
            f"{folder}: holds no class folders; an image folder has the form <class>/<image>."
        )
    return found


def _images_below(folder: Path, class_name: str) -> Iterator[str]:
    """Relative POSIX paths of a class's images, nested ones too, in torchvision's order."""
    for place, _, files in sorted(os.walk(folder / class_name, followlinks=True)):
        relative = Path(place).relative_to(folder).as_posix()
        for file in sorted(files):
            if file.lower().endswith(IMAGE_SUFFIXES):
                yield f"{relative}/{file}"
