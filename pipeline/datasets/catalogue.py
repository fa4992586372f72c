"""Open a source by what a user writes: a folder, a file, or a named data set.

What may follow behind a comma are settings of that one source: `table.parquet,label=species`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from pipeline.datasets import cifar, tables
from pipeline.datasets.annotations import AnnotationSource
from pipeline.datasets.archives import TarSource
from pipeline.datasets.arrays import read_npz
from pipeline.datasets.digits import digits_longtail
from pipeline.datasets.folders import FolderSource
from pipeline.datasets.hub import HubSource
from pipeline.datasets.labelling import reordered
from pipeline.datasets.lists import ListSource
from pipeline.datasets.overlaps import refuse_training_images, same_images
from pipeline.datasets.paths import Rewrites
from pipeline.datasets.sources import ImageSource, RelabelledSource
from pipeline.datasets.splitting import share_of, split_source
from pipeline.errors import DatasetError

LONGTAIL_SUFFIX = "-lt"

NAMED_SOURCES = (
    "digits-lt",
    *cifar.NAMES,
    *(f"{name}{LONGTAIL_SUFFIX}" for name in cifar.NAMES),
    "hf",
)
"""What may stand before a colon."""

Source = ImageSource | Path | str | float
"""Images as they are given: open, by name, or for any split but `train` as a share of it."""

DEFAULT_IMBALANCE = 100.0
"""Of CIFAR-LT, where nothing else is said: the one that most tables show."""


@dataclass(frozen=True)
class SourceOptions:
    """What several kinds of sources share."""

    root: Path | None = None
    """Folder that listed paths are relative to, or that holds torchvision's data sets."""

    class_names: tuple[str, ...] | None = None
    """C names in the order of the labels; not given: those of the source."""

    class_order: tuple[int, ...] | None = None
    """(C,) listed label of each row of the head, where its training re-ordered the classes."""

    rewrites: Rewrites = ()
    """Beginnings of listed paths to replace, (OLD, NEW)."""


@dataclass(frozen=True)
class _Spec:
    """A source as a user writes it, in parts."""

    text: str
    """All of it, for messages."""

    name: str
    """Path, or what stands before the colon of a named data set."""

    split: str
    """Behind the colon."""

    settings: dict[str, str]
    """Behind the commas."""

    def take(self, *known: str) -> dict[str, str]:
        """The settings, which must be among these.

        Raises:
            DatasetError: naming one that is not.
        """
        for key in self.settings:
            if key not in known:
                raise DatasetError(
                    f"{self.text}: there is no setting {key!r} of such a source; "
                    f"{'known are ' + ', '.join(known) if known else 'it takes none'}."
                )
        return self.settings


def open_sources(
    sources: Mapping[str, Source],
    options: SourceOptions | None = None,
    *,
    split_seed: int = 0,
    required: Collection[str] = ("train", "test"),
) -> dict[str, ImageSource]:
    """Every split; the training images name the classes.

    Args:
        sources: by split: a source, what `open_source` takes, or for any split but `train` a
            fraction such as 0.2, which takes that share of every class out of `train`.
        options: root, class names and the like.
        split_seed: of that choice, see `split_source`.
        required: splits that must be given, `train` among them.

    Raises:
        DatasetError: if a required split is missing, or a source is missing, empty, contradicts
            the training images or is the same.
    """
    options = options or SourceOptions()
    missing = set(required) - set(sources)
    if missing:
        raise DatasetError(f"This needs images for {' and '.join(sorted(missing))}.")
    for name, given in sources.items():
        if name != "train" and _is_same(given, sources["train"]):
            raise same_images(name)
    train = _as_source(sources["train"], replace(options, class_order=None))
    shares = {
        name: share
        for name, source in sources.items()
        if name != "train" and (share := share_of(source)) is not None
    }
    parts = split_source(train, shares, split_seed) if shares else {"train": train}
    # The other splits follow the training split's names; the head's order comes on top of both.
    listed = replace(options, class_names=train.class_names, class_order=None)
    opened = {
        name: parts[name] if name in parts else _as_source(given, listed)
        for name, given in sources.items()
    }
    for name, source in opened.items():
        if name not in parts:
            refuse_training_images(name, source, train)
    if options.class_order is None:
        return opened
    return {name: _in_order(source, options.class_order) for name, source in opened.items()}


def _is_same(one: Source, other: Source) -> bool:
    """Whether two sources are one, as far as that shows before they are opened."""
    if isinstance(one, ImageSource) or isinstance(other, ImageSource):
        return one is other
    return str(one) == str(other)


def _as_source(source: Source, options: SourceOptions) -> ImageSource:
    """A source as it is, or by its path or name."""
    return source if isinstance(source, ImageSource) else open_source(str(source), options)


def open_source(spec: str | Path, options: SourceOptions | None = None) -> ImageSource:
    """The source that `spec` names.

    Args:
        spec: an image folder `<class>/<image>`; a list file of `path label` lines; a `.csv` or
            `.parquet` table; `.tar` shards; an `.npz` file; a `.json` file of the COCO form; or
            NAME:SPLIT of a named data set, such as `digits-lt:train` or `cifar100-lt:train`.
        options: root, class names and the like. With class names, which then fix the labels, a
            source may lack some classes but have no others.

    Raises:
        DatasetError: if nothing of that name exists, or what is there cannot be a source.
    """
    options = options or SourceOptions()
    parsed = _parse(str(spec))
    opener = _opener(parsed)
    if opener is None:
        raise DatasetError(
            f"{spec}: no such folder, list or other file, or named data set; the named ones are "
            f"{', '.join(f'{known}:train' for known in NAMED_SOURCES)}."
        )
    source = opener(parsed, options)
    return source if options.class_order is None else _in_order(source, options.class_order)


def _parse(text: str) -> _Spec:
    """Name, split and settings of `NAME[:SPLIT][,KEY=VALUE]...`."""
    settings: dict[str, str] = {}
    body = text
    # A path may hold commas itself: only what ends in KEY=VALUE comes off, and no existing file.
    while not Path(body).exists() and (found := re.fullmatch(r"(.+),([a-z_]+)=([^,]*)", body)):
        body, key, value = found.groups()
        settings[key] = value
    name, _, split = body.partition(":")
    if name not in NAMED_SOURCES:
        return _Spec(text, body, "", settings)
    if name == "hf":
        name, _, split = body.rpartition(":")
    return _Spec(text, name, split, settings)


def _opener(spec: _Spec) -> Callable[[_Spec, SourceOptions], ImageSource] | None:
    """What opens a source of that form; None where nothing does."""
    kind = spec.name.partition(":")[0]
    if kind in NAMED_SOURCES:
        return _NAMED[kind]
    path = Path(spec.name)
    if path.is_dir():
        return _folder
    if path.suffix in _BY_SUFFIX and (path.is_file() or re.search(r"[*{]", spec.name)):
        return _BY_SUFFIX[path.suffix]
    return _list if path.is_file() else None


def _folder(spec: _Spec, options: SourceOptions) -> ImageSource:
    spec.take()
    return FolderSource(spec.name, options.class_names)


def _list(spec: _Spec, options: SourceOptions) -> ImageSource:
    spec.take()
    return ListSource(spec.name, options.root, options.class_names, options.rewrites)


def _table(spec: _Spec, options: SourceOptions) -> ImageSource:
    columns = spec.take("path", "label")
    return tables.TableSource(
        spec.name, options.root, options.class_names, rewrites=options.rewrites, **columns
    )


def _tar(spec: _Spec, options: SourceOptions) -> ImageSource:
    spec.take()
    return TarSource(spec.name, options.class_names)


def _npz(spec: _Spec, options: SourceOptions) -> ImageSource:
    return read_npz(spec.name, options.class_names, **spec.take("images", "labels"))


def _annotations(spec: _Spec, options: SourceOptions) -> ImageSource:
    spec.take()
    return AnnotationSource(spec.name, options.root, options.class_names, options.rewrites)


def _digits(spec: _Spec, options: SourceOptions) -> ImageSource:
    spec.take()
    splits = digits_longtail()
    if spec.split not in splits:
        raise DatasetError(
            f"{spec.name} has no split {spec.split!r}; choose one of "
            f"{', '.join(f'{spec.name}:{known}' for known in splits)}."
        )
    return _named_as_asked(splits[spec.split], spec, options)


def _cifar(spec: _Spec, options: SourceOptions) -> ImageSource:
    longtail = spec.name.endswith(LONGTAIL_SUFFIX)
    known = ("imbalance", "type", "seed", "download") if longtail else ("download",)
    settings = spec.take(*known)
    try:
        imbalance = float(settings.get("imbalance", DEFAULT_IMBALANCE)) if longtail else None
        seed = int(settings.get("seed", 0))
    except ValueError as error:
        raise DatasetError(f"{spec.text}: {error}; imbalance and seed are numbers.") from None
    source = cifar.cifar_source(
        spec.name.removesuffix(LONGTAIL_SUFFIX),
        spec.split,
        root=options.root,
        imbalance=imbalance,
        kind=settings.get("type", "exp"),
        seed=seed,
        download=settings.get("download") == "yes",
    )
    return _named_as_asked(source, spec, options)


def _hub(spec: _Spec, options: SourceOptions) -> ImageSource:
    columns = spec.take("config", "image", "label")
    name = spec.name.partition(":")[2]
    if not name or not spec.split:
        raise DatasetError(f"{spec.text}: write hf:NAME:SPLIT, such as hf:beans:train.")
    return HubSource(
        name,
        spec.split,
        options.class_names,
        config=columns.get("config"),
        image=columns.get("image"),
        label=columns.get("label"),
    )


def _named_as_asked(source: ImageSource, spec: _Spec, options: SourceOptions) -> ImageSource:
    """A data set that has class names of its own, which cannot be others."""
    if options.class_names is not None and options.class_names != source.class_names:
        raise DatasetError(
            f"{spec.text} has the classes {', '.join(source.class_names[:10])} ..., which are not "
            f"those of the training split; take both splits from {spec.name}."
        )
    return source


def _in_order(source: ImageSource, order: Sequence[int]) -> ImageSource:
    labels, names = reordered(source.labels, source.class_names, order)
    return RelabelledSource(source, labels, names)


_NAMED: Mapping[str, Callable[[_Spec, SourceOptions], ImageSource]] = MappingProxyType(
    {"digits-lt": _digits, "hf": _hub}
    | dict.fromkeys((*cifar.NAMES, *(f"{n}{LONGTAIL_SUFFIX}" for n in cifar.NAMES)), _cifar)
)

_BY_SUFFIX: Mapping[str, Callable[[_Spec, SourceOptions], ImageSource]] = MappingProxyType(
    dict.fromkeys(tables.SUFFIXES, _table) | {".tar": _tar, ".npz": _npz, ".json": _annotations}
)
