"""Open a source by what a user writes: a folder, a list file, or a named data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pipeline.datasets.digits import digits_longtail
from pipeline.datasets.folders import FolderSource
from pipeline.datasets.lists import ListSource
from pipeline.datasets.sources import ImageSource
from pipeline.errors import DatasetError

NAMED_SOURCES: Mapping[str, Callable[[], Mapping[str, ImageSource]]] = MappingProxyType(
    {"digits-lt": digits_longtail}
)
"""Data sets that need no path: name -> function that gives the sources by split."""


def open_source(
    spec: str | Path, *, root: Path | None = None, class_names: Sequence[str] | None = None
) -> ImageSource:
    """The source that `spec` names.

    Args:
        spec: an image folder `<class>/<image>`, a list file of `path label` lines, or NAME:SPLIT
            of a named data set, such as `digits-lt:train`.
        root: folder that a list's paths are relative to; not given: the list's own folder.
        class_names: classes of the training split, which then fix the labels: a split may lack
            some of them but have no others.

    Raises:
        DatasetError: if nothing of that name exists, or what is there cannot be a source.
    """
    name, _, split = str(spec).partition(":")
    if name in NAMED_SOURCES:
        return _named(name, split, class_names)
    path = Path(spec)
    if path.is_dir():
        return FolderSource(path, class_names)
    if path.is_file():
        return ListSource(path, root, class_names)
    raise DatasetError(
        f"{spec}: no such folder, list file or named data set; the named ones are "
        f"{', '.join(f'{known}:train' for known in NAMED_SOURCES)}."
    )


def _named(name: str, split: str, class_names: Sequence[str] | None) -> ImageSource:
    splits = NAMED_SOURCES[name]()
    if split not in splits:
        raise DatasetError(
            f"{name} has no split {split!r}; choose one of "
            f"{', '.join(f'{name}:{known}' for known in splits)}."
        )
    source = splits[split]
    if class_names is not None and tuple(class_names) != source.class_names:
        raise DatasetError(
            f"{name}:{split} has the classes {', '.join(source.class_names)}, which are not those "
            f"of the training split; take both splits from {name}."
        )
    return source
