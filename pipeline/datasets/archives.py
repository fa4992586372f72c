"""Images in tar shards, as WebDataset writes them, read in place without unpacking."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob
from io import BytesIO
from pathlib import Path

from pipeline.datasets.folders import IMAGE_SUFFIXES
from pipeline.datasets.labelling import as_labels
from pipeline.datasets.sources import ImageSource
from pipeline.errors import DatasetError, UnreadableImageError, listed

LABEL_SUFFIXES = (".cls", ".json")
"""Where a sample's label stands: a number or name, or the field `label` of a JSON object."""

MOST_LABEL_BYTES = 65_536
"""A label is short; a longer member is something else."""


@dataclass
class _Sample:
    """Where one sample lies."""

    image: tuple[str, int, int] | None = None
    """Shard, offset and size of the image's bytes."""

    label: int | str | None = None
    """As the shard says."""

    suffixes: list[str] = field(default_factory=list)
    """What the shard holds of it, for messages."""


class TarSource(ImageSource):
    """Tar shards in which members of one sample share their name up to the first dot.

    `000017.jpg` and `000017.cls` (a number or a name), or `000017.json` with a field `label`, are
    one sample. The headers are read once; an image is read from its place in the shard.

    Args:
        shards: files in their order, as paths, a pattern with `*`, or `name-{000..007}.tar`.
        class_names: C names; see `as_labels`.

    Raises:
        DatasetError: if a shard is missing, compressed or damaged, or a sample lacks image or
            label.
    """

    def __init__(
        self, shards: Sequence[Path | str] | str, class_names: Sequence[str] | None = None
    ) -> None:
        name = shards if isinstance(shards, str) else f"{len(shards)} shards"
        files = shard_files(shards) if isinstance(shards, str) else [str(s) for s in shards]
        samples: dict[str, _Sample] = {}
        for file in files:
            _index(file, samples)
        self._places: list[tuple[str, int, int]] = []
        labels: list[int | str] = []
        for key, sample in samples.items():
            if sample.image is None or sample.label is None:
                lacking = "image" if sample.image is None else "label"
                raise DatasetError(
                    f"{name}: the sample {key!r} has no {lacking} but {listed(sample.suffixes)}; "
                    f"it needs an image and one of {', '.join(LABEL_SUFFIXES)}."
                )
            self._places.append(sample.image)
            labels.append(sample.label)
        if len({type(label) for label in labels}) > 1:
            labels = [str(label) for label in labels]
        numbers, names = as_labels(labels, class_names, name)
        super().__init__(name, tuple(samples), numbers, names)

    def file(self, row: int) -> BytesIO:
        """The image of a row as its part of a shard.

        Raises:
            UnreadableImageError: if the shard cannot be read.
        """
        shard, offset, size = self._places[row]
        try:
            with Path(shard).open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise UnreadableImageError(f"{shard}: {error.strerror}") from None
        return BytesIO(content)


def shard_files(pattern: str) -> list[str]:
    """The files that a pattern names.

    Raises:
        DatasetError: if there are none.
    """
    braces = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if braces:
        first, last = braces[2], braces[3]
        return [
            f"{braces[1]}{number:0{len(first)}d}{braces[4]}"
            for number in range(int(first), int(last) + 1)
        ]
    files = sorted(glob(pattern)) if "*" in pattern else [pattern]  # noqa: PTH207  any folder
    if not files:
        raise DatasetError(f"{pattern}: no such shards.")
    return files


def _index(shard: str, samples: dict[str, _Sample]) -> None:
    """Note where every sample of a shard lies."""
    seen: set[str] = set()
    for member, content in _members(shard):
        folder, _, base = member.name.rpartition("/")
        stem, dot, suffix = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        if key in samples and key not in seen:
            raise DatasetError(f"{shard}: the sample {key!r} stands in an earlier shard already.")
        seen.add(key)
        sample = samples.setdefault(key, _Sample())
        sample.suffixes.append(f"{dot}{suffix}")
        if base.lower().endswith(IMAGE_SUFFIXES):
            sample.image = (shard, member.offset_data, member.size)
        elif content is not None and (label := _label(content, suffix)) is not None:
            sample.label = label


def _members(shard: str) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Files of a shard; the content too of those that may be labels."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                small = member.size <= MOST_LABEL_BYTES and member.name.endswith(LABEL_SUFFIXES)
                file = archive.extractfile(member) if small else None
                yield member, None if file is None else file.read()
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(
            f"{shard}: is damaged or no uncompressed tar file ({error}); images gain nothing from "
            f"compression, so unpack it with gunzip."
        ) from None
    except OSError as error:
        raise DatasetError(f"{shard}: cannot be read ({error.strerror}).") from None


def _label(content: bytes, suffix: str) -> int | str | None:
    """The label in a member, a number where it is one."""
    text = content.decode("utf-8", "replace").strip()
    if suffix == "json":
        try:
            found = json.loads(text)
        except ValueError:
            return None
        found = found.get("label", found.get("cls")) if isinstance(found, dict) else found
        text = "" if found is None else str(found)
    if not text:
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else text
