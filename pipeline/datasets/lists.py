"""Images that a text file lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.datasets.labelling import as_labels
from pipeline.datasets.paths import Rewrites, below_root, rewriter
from pipeline.datasets.sources import FileSource
from pipeline.errors import DatasetError


class ListSource(FileSource):
    """A text file with one `path label` a line; blank lines and lines from `#` on are skipped.

    Labels are 0..C-1. A file that is listed but missing shows only when it is read, so that one
    lost image costs one row. Ids are the listed paths.

    Args:
        list_file: the list; paths may hold spaces, the label is the last word of a line.
        root: folder that the paths are relative to; not given: the list's own folder.
        class_names: C names, usually those of the training split, some of which may be absent
            here. Not given: "0", "1", ..., and then every class must occur.
        rewrites: beginnings of paths to replace, for a copy of the data that lies otherwise.

    Raises:
        DatasetError: naming the line, if it has no such form, leaves the root or repeats a path;
            if a label is out of range; if the list or the root is missing.
    """

    def __init__(
        self,
        list_file: Path | str,
        root: Path | str | None = None,
        class_names: Sequence[str] | None = None,
        rewrites: Rewrites = (),
    ) -> None:
        root = Path(list_file).parent if root is None else root
        if not Path(root).is_dir():
            raise DatasetError(f"{root}: no such folder; --root is where the list's paths begin.")
        n_classes = None if class_names is None else len(class_names)
        rewrite = rewriter(rewrites)
        line_of: dict[str, int] = {}
        labels: list[int] = []
        for number, line in _lines(Path(list_file)):
            where = f"{list_file}, line {number}"
            path, label = _entry(line, where, n_classes, rewrite)
            if path in line_of:
                raise DatasetError(
                    f"{where}: {path!r} stands in line {line_of[path]} already; remove one."
                )
            line_of[path] = number
            labels.append(label)
        numbers, names = as_labels(labels, class_names, str(list_file))
        super().__init__(str(list_file), root, tuple(line_of), numbers, names)


def _lines(list_file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are neither blank nor comments."""
    try:
        text = list_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(
            f"{list_file}: is not a text file; a list has `path label` lines in UTF-8."
        ) from None
    except OSError as error:
        raise DatasetError(f"{list_file}: the list cannot be read ({error.strerror}).") from error
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _entry(
    line: str, where: str, n_classes: int | None, rewrite: Callable[[str], str]
) -> tuple[str, int]:
    """Path and label of one line."""
    parts = line.rsplit(maxsplit=1)
    if len(parts) != 2 or not re.fullmatch(r"-?[0-9]{1,18}", parts[1]):  # noqa: PLR2004  path, label
        raise DatasetError(
            f"{where}: needs `path label` with a whole number as label; got {line!r}."
        )
    path, label = below_root(rewrite(parts[0]), where), int(parts[1])
    if label < 0 or (n_classes is not None and label >= n_classes):
        known = "0.." if n_classes is None else f"0..{n_classes - 1}"
        raise DatasetError(f"{where}: the label {label} is outside {known}.")
    return path, label
