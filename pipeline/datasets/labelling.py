"""Labels as data sets write them, numbers or names, as 0..C-1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SHOWN, DatasetError, listed


def as_labels(
    values: Sequence[object] | NDArray[Any],
    class_names: Sequence[str] | None,
    where: str,
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels (N,) and class names (C).

    Numbers are labels already. Names are looked up in `class_names`, or sorted where there are
    none. Without `class_names` numbered classes are called "0", "1", ..., and every one must occur.

    Args:
        values: N numbers or N names.
        class_names: C names, usually those of the training split, some of which may be absent.
        where: what messages call the source.

    Raises:
        DatasetError: if a label is negative, too large, skips a class, or is an unknown name.
    """
    plain: list[object] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    numbers = [value for value in plain if isinstance(value, int)]
    if plain and len(numbers) == len(plain):
        return _from_numbers(numbers, class_names, where)
    words = [str(value) for value in plain]
    names = tuple(sorted(set(words))) if class_names is None else tuple(class_names)
    label_of = {name: label for label, name in enumerate(names)}
    if unknown := sorted(set(words) - set(names)):
        raise DatasetError(
            f"{where}: the classes of the training split do not include {listed(unknown)}; "
            f"rename the classes or take them out."
        )
    return np.array([label_of[word] for word in words], np.int64), names


def _from_numbers(
    labels: Sequence[int], class_names: Sequence[str] | None, where: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if class_names is None:
        class_names = [str(label) for label in _every_label(labels, where)]
    n_classes = len(class_names)
    for row, label in enumerate(labels):
        if not 0 <= label < n_classes:
            raise DatasetError(
                f"{where}: the label {label} of row {row} is outside 0..{n_classes - 1}."
            )
    return np.array(labels, np.int64), tuple(class_names)


def _every_label(labels: Sequence[int], where: str) -> range:
    """0..C-1, all of which must occur where the labels alone say how many classes there are."""
    present = set(labels)
    highest = max(present, default=-1)
    # A mistyped label can be huge: look no further than the first few gaps.
    gaps = [label for label in range(min(highest, len(labels) + SHOWN)) if label not in present]
    if gaps:
        raise DatasetError(
            f"{where}: labels go up to {highest}, but {listed(gaps)} never "
            f"{'occurs' if len(gaps) == 1 else 'occur'}; number the classes 0..C-1 without gaps, "
            f"or name them all with --class-names."
        )
    return range(highest + 1)


def reordered(
    labels: NDArray[np.int64], class_names: Sequence[str], order: Sequence[int]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels and names in another order of the classes.

    Some training code sorts the classes, so that row k of its head is not class k of the lists.

    Args:
        labels: (N,) as listed.
        class_names: C names as listed.
        order: (C,) the listed label of each row of the head.

    Raises:
        DatasetError: if the order does not name every class once.
    """
    if sorted(order) != list(range(len(class_names))):
        raise DatasetError(
            f"A class order names each of the labels 0..{len(class_names) - 1} once; this one has "
            f"{len(order)} entries, {len(set(order))} of them different."
        )
    row_of = np.argsort(np.asarray(order))
    return row_of[labels].astype(np.int64), tuple(class_names[label] for label in order)


def read_class_names(path: Path | str) -> tuple[str, ...]:
    """Class names from a text file, one a line in the order of the labels.

    Raises:
        DatasetError: if the file cannot be read or has an empty line between names.
    """
    names = [line.strip() for line in _text(path).rstrip().split("\n")]
    if "" in names:
        raise DatasetError(f"{path}: line {names.index('') + 1} is empty; it needs a class's name.")
    return tuple(names)


def read_class_order(path: Path | str) -> tuple[int, ...]:
    """A class order from a text file of whole numbers between spaces, commas or line ends.

    Raises:
        DatasetError: if the file cannot be read or holds anything else.
    """
    words = _text(path).replace(",", " ").replace("[", " ").replace("]", " ").split()
    try:
        return tuple(int(word) for word in words)
    except ValueError as error:
        raise DatasetError(
            f"{path}: a class order holds whole numbers, the listed label of each row of the head "
            f"({error})."
        ) from None


def read_shares(path: Path | str) -> tuple[float, ...]:
    """How frequent classes are, from a text file of numbers between spaces, commas or line ends.

    Raises:
        DatasetError: if the file cannot be read or holds anything else.
    """
    words = _text(path).replace(",", " ").split()
    try:
        return tuple(float(word) for word in words)
    except ValueError as error:
        raise DatasetError(
            f"{path}: the frequencies of classes are numbers, one for each class in the order of "
            f"the labels ({error})."
        ) from None


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: is not a text file in UTF-8.") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}).") from None
