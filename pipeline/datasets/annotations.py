"""Images that a JSON file of the COCO form lists, as iNaturalist publishes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.datasets.labelling import as_labels
from pipeline.datasets.paths import Rewrites, below_root, rewriter
from pipeline.datasets.sources import FileSource
from pipeline.errors import DatasetError


class AnnotationSource(FileSource):
    """`images` (id, file_name), `annotations` (image_id, category_id), `categories` (id, name).

    Classes are the categories in the order of their ids; ids are the file names.

    Args:
        file: the JSON file.
        root: folder that the file names are relative to; not given: the JSON file's own folder.
        class_names: names that fix the labels, usually those of the training split.
        rewrites: beginnings of paths to replace.

    Raises:
        DatasetError: if the file is not of that form, or a path leaves the root.
    """

    def __init__(
        self,
        file: Path | str,
        root: Path | str | None = None,
        class_names: Sequence[str] | None = None,
        rewrites: Rewrites = (),
    ) -> None:
        root = Path(file).parent if root is None else root
        rewrite = rewriter(rewrites)
        try:
            content = json.loads(Path(file).read_text(encoding="utf-8"))
            categories = sorted(content["categories"], key=lambda category: category["id"])
            # Names may repeat in other branches of a taxonomy; ids do not.
            names = _distinct([(str(each["name"]), each["id"]) for each in categories])
            name_of = {each["id"]: name for each, name in zip(categories, names, strict=True)}
            class_of = {each["image_id"]: each["category_id"] for each in content["annotations"]}
            paths = [below_root(rewrite(e["file_name"]), str(file)) for e in content["images"]]
            values = [name_of[class_of[each["id"]]] for each in content["images"]]
        except OSError as error:
            raise DatasetError(f"{file}: cannot be read ({error.strerror}).") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{file}: is no JSON of the COCO form with images, annotations and categories "
                f"({type(error).__name__}: {error})."
            ) from None
        labels, class_names = as_labels(values, class_names or names, str(file))
        super().__init__(str(file), root, paths, labels, class_names)


def _distinct(named: Sequence[tuple[str, object]]) -> list[str]:
    """Names, with the id behind those that occur twice."""
    times = Counter(name for name, _ in named)
    return [name if times[name] == 1 else f"{name} ({key})" for name, key in named]
