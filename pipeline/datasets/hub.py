"""Hugging Face data sets, from the hub or saved on disk."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pipeline.datasets.labelling import as_labels
from pipeline.datasets.sources import ImageSource
from pipeline.errors import DatasetError, UnreadableImageError, first_line, listed


class HubSource(ImageSource):
    """One split of a data set of the library `datasets` (the extra `hub`).

    Ids are `SPLIT/ROW`. Class names are those of the label column where it has them.

    Args:
        name: a data set of the hub, a folder that the library can load, or one that
            `save_to_disk` wrote.
        split: name of the split.
        class_names: C names, usually those of the training split.
        config: the data set's configuration, where it has several.
        image: column of images; not given: the only one.
        label: column of labels; not given: the only column of class labels.

    Raises:
        DatasetError: if the library, the data set, the split or a column is missing.
    """

    def __init__(
        self,
        name: str,
        split: str,
        class_names: Sequence[str] | None = None,
        *,
        config: str | None = None,
        image: str | None = None,
        label: str | None = None,
    ) -> None:
        rows = _load(name, split, config)
        import datasets

        self._image = image or _only(rows, datasets.Image, name, "image")
        label = label or _only(rows, datasets.ClassLabel, name, "label")
        for column in (self._image, label):
            if column not in rows.column_names:
                raise DatasetError(
                    f"{name}: has no column {column!r} but {', '.join(rows.column_names)}."
                )
        # Bytes, so that a damaged image costs one row and not the run.
        self._rows = rows.cast_column(self._image, datasets.Image(decode=False))
        known = getattr(rows.features[label], "names", None)
        if class_names is None:
            class_names = known
        values: list[Any] = list(rows[label])
        if known is not None and values and not isinstance(values[0], str):
            values = [known[value] for value in values]  # names survive another order of classes
        labels, names = as_labels(values, class_names, name)
        super().__init__(name, [f"{split}/{row:07d}" for row in range(len(rows))], labels, names)

    def file(self, row: int) -> str | BytesIO:
        """Path or content of the image of a row.

        Raises:
            UnreadableImageError: if neither is stored.
        """
        stored = self._rows[row][self._image]
        if stored.get("bytes") is not None:
            return BytesIO(stored["bytes"])
        if stored.get("path") is None:
            raise UnreadableImageError("neither bytes nor a path are stored")
        return str(stored["path"])


def _load(name: str, split: str, config: str | None) -> Any:
    try:
        import datasets
    except ImportError:
        raise DatasetError(
            f"{name}: Hugging Face data sets need the library: pip install 'nolb[hub]'."
        ) from None
    try:
        if Path(name, "dataset_dict.json").is_file() or Path(name, "state.json").is_file():
            loaded = datasets.load_from_disk(name)
            if isinstance(loaded, datasets.DatasetDict):
                loaded = loaded[split]
            return loaded
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub's and the loaders' errors are many
        raise DatasetError(f"hf:{name}:{split} cannot be loaded ({first_line(error)}).") from None


def _only(rows: Any, kind: type[Any], name: str, what: str) -> str:
    """The one column of a kind; for labels also the column of that name."""
    columns: list[str] = [column for column, of in rows.features.items() if isinstance(of, kind)]
    if len(columns) == 1:
        return columns[0]
    if what in rows.column_names:
        return what
    raise DatasetError(
        f"{name}: {len(columns)} of its columns {listed(rows.column_names)} hold {what}s; name "
        f"one with ,{what}=COLUMN."
    )
