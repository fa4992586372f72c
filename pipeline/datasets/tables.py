"""Images that a table lists: a CSV or Parquet file, or a DataFrame, with paths and labels."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.datasets.labelling import as_labels
from pipeline.datasets.paths import Rewrites, below_root, rewriter
from pipeline.datasets.sources import FileSource
from pipeline.errors import DatasetError

if TYPE_CHECKING:
    from pandas import DataFrame

SUFFIXES = (".csv", ".parquet")

PATH_COLUMN, LABEL_COLUMN = "path", "label"


class TableSource(FileSource):
    """Rows with the path of an image and its class, as a number 0..C-1 or a name.

    Ids are the paths. A file that is listed but missing shows only when it is read.

    Args:
        table: a `.csv` or `.parquet` file, or a pandas DataFrame.
        root: folder that the paths are relative to; not given: the table's own folder.
        class_names: C names; see `as_labels`.
        path: name of the column of paths.
        label: name of the column of labels.
        rewrites: beginnings of paths to replace.

    Raises:
        DatasetError: if the table cannot be read, lacks a column or a value, or a path leaves the
            root.
    """

    def __init__(
        self,
        table: Path | str | DataFrame,
        root: Path | str | None = None,
        class_names: Sequence[str] | None = None,
        *,
        path: str = PATH_COLUMN,
        label: str = LABEL_COLUMN,
        rewrites: Rewrites = (),
    ) -> None:
        file = Path(table) if isinstance(table, Path | str) else None
        name = str(file) if file is not None else "table in memory"
        if root is None:
            root = "." if file is None else file.parent
        columns = _columns(table, (path, label), name)
        rewrite = rewriter(rewrites)
        ids = [
            below_root(rewrite(str(value)), f"{name}, row {row}")
            for row, value in enumerate(columns[path])
        ]
        labels, names = as_labels(columns[label], class_names, name)
        super().__init__(name, root, ids, labels, names)


def _columns(
    table: Path | str | DataFrame, wanted: Sequence[str], name: str
) -> Mapping[str, list[object]]:
    """The wanted columns, without gaps."""
    columns = _read_csv(Path(table)) if str(table).endswith(".csv") else _read_frame(table, name)
    found = {}
    for column in wanted:
        if column not in columns:
            raise DatasetError(
                f"{name}: has no column {column!r} but {', '.join(columns)}; name the columns "
                f"with {name},path=COLUMN,label=COLUMN."
            )
        values = columns[column]
        gaps = [row for row, value in enumerate(values) if _is_gap(value)]
        if gaps:
            raise DatasetError(f"{name}: row {gaps[0]} has no {column!r}; every row needs one.")
        found[column] = values
    return found


def _is_gap(value: object) -> bool:
    """Whether a table has nothing in that place: None, NaN or an empty text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _read_csv(file: Path) -> dict[str, list[object]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file}: cannot be read as CSV ({error}).") from None
    if not rows:
        raise DatasetError(f"{file}: holds no rows below its line of column names.")
    columns: dict[str, list[object]] = {name: [row[name] for row in rows] for name in rows[0]}
    # A column of whole numbers is one of numbers, as it is in any other kind of table.
    for name, values in columns.items():
        if all(re.fullmatch("[0-9]{1,18}", str(value)) for value in values):
            columns[name] = [int(str(value)) for value in values]
    return columns


def _read_frame(table: Path | str | DataFrame, name: str) -> dict[str, list[object]]:
    """Columns of a Parquet file or a DataFrame."""
    if isinstance(table, Path | str):
        try:
            from pyarrow import parquet
        except ImportError:
            raise DatasetError(
                f"{name}: Parquet files need pyarrow: pip install 'nolb[tables]'."
            ) from None
        try:
            columns: dict[str, list[object]] = parquet.read_table(table).to_pydict()
        except Exception as error:  # pyarrow's errors share no base class of their own
            raise DatasetError(f"{name}: cannot be read as Parquet ({error}).") from None
        return columns
    return {str(column): table[column].tolist() for column in table.columns}
