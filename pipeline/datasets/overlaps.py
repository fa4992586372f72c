"""Images that two splits share, by their files.

What was learned or chosen on an image says nothing when it is scored on the same one. Sources
without files, such as arrays, tell nothing of where their images come from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import combinations

from pipeline.datasets.sources import ImageSource
from pipeline.errors import DatasetError, UnreadableImageError


def shared_rows(one: ImageSource, other: ImageSource) -> list[int]:
    """Rows of `one` whose file is an image of `other` too, in their order."""
    row_of = {place: row for row, place in enumerate(_places(one))}
    if not row_of:
        return []
    return sorted(row_of[place] for place in _places(other) if place in row_of)


def refuse_training_images(name: str, source: ImageSource, train: ImageSource) -> None:
    """Refuse a split that is the training images over again.

    Raises:
        DatasetError: if it is, with what to give instead.
    """
    if len(source) == len(train) == len(shared_rows(source, train)):
        raise same_images(name)


def same_images(name: str) -> DatasetError:
    """The error for a split that names the training images."""
    return DatasetError(
        f"The images given for {name} are those of train, which tell nothing of others: give "
        "others, or a share of them such as 0.2. (Those of train are scored in any store by "
        "nolb evaluate --split train.)"
    )


def overlap_notes(images: Mapping[str, ImageSource]) -> tuple[str, ...]:
    """A sentence for every two splits that share images.

    Args:
        images: by split.
    """
    in_order = sorted(images, key=lambda name: {"train": 0, "val": 1}.get(name, 2))
    return tuple(
        _note(name, first, images[name], rows)
        for first, name in combinations(in_order, 2)
        if (rows := shared_rows(images[name], images[first]))
    )


def _note(name: str, first: str, source: ImageSource, rows: list[int]) -> str:
    """What two splits share, and what that does to the scores."""
    spoiled = "scores on it are too good" if first == "train" else "what is chosen on one fits both"
    return (
        f"{len(rows):,} of the {len(source):,} images of {name} are images of {first} too, such as "
        f"{source.ids[rows[0]]}: {spoiled}."
    )


def _places(source: ImageSource) -> Iterator[str]:
    """The file of every image, links in its folder's path followed; none without files."""
    folders: dict[str, str] = {}  # a look at the disk for each folder, and not for each file
    for row in range(len(source)):
        try:
            file = source.file(row)
        except UnreadableImageError:
            return
        if not isinstance(file, str):
            return
        start = file.rfind("/") + 1
        folder = file[:start]
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        yield f"{folders[folder]}/{file[start:]}"
