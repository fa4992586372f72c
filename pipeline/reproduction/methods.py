"""The methods that a comparison has: checkpoints that are extracted once, or finished stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cache import Classifier, Store, open_store
from pipeline.config import ExtractConfig
from pipeline.datasets import ImageSource, SourceOptions, open_sources
from pipeline.errors import ConfigError, DatasetError, EvaluationError
from pipeline.extracting.identities import record_of_identity
from pipeline.extracting.plan import prepare_model
from pipeline.metrics import Ints
from pipeline.old_head import require_old_head
from pipeline.progress import ProgressReport
from pipeline.reproduction.fits import SPLIT, Method, Say
from pipeline.reproduction.paper import METHODS, SCRATCH
from pipeline.stages.extract import extract

FAMILY_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "balms": "BSCE",
        "bagoftricks": "DiVE",
        "classifier-balancing": "cRT",
        "lade": "LADE",
        "mislas": "MiSLAS",
        "paco": "PaCo",
        "ride": "RIDE",
    }
)
"""Method of the paper whose files a checkpoint family's usually are."""

SHARED = ("class_names", "training images", "test images")
"""What methods must agree in to be compared."""


@dataclass(frozen=True)
class Inputs:
    """What a user gives: files, each with the name of its method or none."""

    checkpoints: Sequence[tuple[str | None, Path]] = ()
    """Trained classifiers to extract."""

    stores: Sequence[tuple[str | None, Path]] = ()
    """Finished stores."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """Images by split, for the checkpoints."""

    options: SourceOptions = field(default_factory=SourceOptions)
    """Root of listed paths and the like."""

    split_seed: int = 0
    """Seed of the split that shares make."""

    models: Mapping[str | None, str] = field(default_factory=dict)
    """What to load a checkpoint as, by its name; under None, any other."""


@contextmanager
def open_methods(
    inputs: Inputs, out: Path, config: ExtractConfig, say: Say, *, show_progress: bool = False
) -> Iterator[list[Method]]:
    """Every method's store, checked to be of the same data; extracted where it is not there yet.

    Args:
        inputs: checkpoints and stores.
        out: folder for extracted stores, NAME.zarr; those of an earlier run are used again where
            they are of the same checkpoint, images and settings.
        config: settings of the extraction.
        say: called with a line for each method.
        show_progress: show a bar while images are extracted.

    Raises:
        ConfigError: if nothing is given, two methods have one name, or images are missing.
        EvaluationError: if a store has no old head or no test split, or two are of different data.
        CheckpointError, DatasetError, StoreError: as `extract`.
    """
    _require_something(inputs)
    images: dict[str, ImageSource] = {}
    if inputs.checkpoints:
        images = open_sources(inputs.sources, inputs.options, split_seed=inputs.split_seed)
    with ExitStack() as opened:
        methods: list[Method] = []
        for given, path in inputs.checkpoints:
            one = _extracted(given, path, images, out, inputs, config, say, show_progress)
            opened.enter_context(one.store)
            _add(methods, one)
        for given, path in inputs.stores:
            store = opened.enter_context(open_store(path))
            family = record_of_identity(store.identity).family
            name = _name(given, family, store.classifier, path, "--store", say)
            say(f"reading   {name} from {path}")
            _add(methods, Method(name, store))
        for one in methods:
            require_old_head(one.store)
            _require_same_data(methods[0], one)
        _require_several_networks(methods)
        yield methods


def canonical(name: str) -> str:
    """A method's name as the paper writes it; other names stay as they are."""
    known = {method.lower(): method for method in (*METHODS, SCRATCH)}
    return known.get(name.lower(), name)


def _require_something(inputs: Inputs) -> None:
    """Refuse what cannot be begun."""
    if not inputs.checkpoints and not inputs.stores:
        raise ConfigError(
            "There is nothing to compare: give --checkpoint [NAME=]FILE or --store [NAME=]STORE, "
            f"NAME one of {', '.join(METHODS)}."
        )
    lacking = [f"--{split} SRC" for split in ("train", "test") if split not in inputs.sources]
    if inputs.checkpoints and lacking:
        raise ConfigError(
            f"{inputs.checkpoints[0][1]} has to be extracted: give {' and '.join(lacking)}, or a "
            "finished store with --store instead."
        )


def _extracted(
    given: str | None,
    path: Path,
    images: Mapping[str, ImageSource],
    out: Path,
    inputs: Inputs,
    config: ExtractConfig,
    say: Say,
    show_progress: bool,
) -> Method:
    """A checkpoint's store: a new one, an unfinished one gone on with, or the finished one."""
    named = given and canonical(given)
    wanted = inputs.models.get(named, inputs.models.get(None))
    if wanted is not None:
        config = replace(config, model=wanted)
    model = prepare_model(path, config)
    name = _name(given, model.family, model.classifier, path, "--checkpoint", say)
    _require_classes(name, path, model.n_classes, images["train"])
    target = out / f"{_file_name(name)}.zarr"
    say(f"extracting {name} from {path} into {target}")
    if not show_progress:
        result = extract(model, images, target, config, resume=True)
    else:
        with ProgressReport("extract", "images") as progress:
            result = extract(
                model, images, target, config, resume=True, on_progress=progress.update
            )
    if not result.computed:
        say(f"          {target} is complete already: used again")
    return Method(name, result.store)


def _require_classes(name: str, path: Path, n_classes: int, train: ImageSource) -> None:
    """Refuse a checkpoint for other classes than those of the images."""
    if n_classes != len(train.class_names):
        raise DatasetError(
            f"{name} ({path}) is for {n_classes} classes, but the training images have "
            f"{len(train.class_names)}: give the data that it was trained on, or leave it out."
        )


def _name(
    given: str | None, family: str, classifier: Classifier, path: Path, option: str, say: Say
) -> str:
    """The name given, or one that the checkpoint's family suggests, which is said."""
    if given is not None:
        return canonical(given)
    name = FAMILY_METHODS.get(family, family)
    if family == "ldam-drw":  # its code trains both; LDAM's classifier is a cosine
        name = "LDAM" if classifier.normalized else "CE"
    say(
        f"note      {path} is called {name} after its family {family}; for another row of the "
        f"paper, name it: {option} NAME={path}"
    )
    return name


def _add(methods: list[Method], one: Method) -> None:
    """One more method, of a name that no other has."""
    if any(one.name == other.name for other in methods):
        raise ConfigError(
            f"Two methods are called {one.name}: give them names of their own, as "
            f"--checkpoint NAME=FILE or --store NAME=STORE."
        )
    methods.append(one)


def _require_same_data(first: Method, other: Method) -> None:
    """Refuse to compare methods on different classes or images."""
    pairs = (
        (first.store.class_names, other.store.class_names),
        (first.store.identity.samples.get("train"), other.store.identity.samples.get("train")),
        (first.store.identity.samples.get(SPLIT), other.store.identity.samples.get(SPLIT)),
    )
    for what, (this, that) in zip(SHARED, pairs, strict=True):
        if this != that:
            sizes = _sizes(first.store), _sizes(other.store)
            raise EvaluationError(
                f"{first.name} and {other.name} cannot be compared: their {what} differ "
                f"({first.name}: {sizes[0]}; {other.name}: {sizes[1]}). Extract both from the same "
                "images, or compare them in runs of their own."
            )
    if not np.array_equal(_labels(first.store), _labels(other.store)):
        raise EvaluationError(
            f"{first.name} and {other.name} cannot be compared: other test images could be read "
            "when they were extracted. Extract both again."
        )


def _require_several_networks(methods: Sequence[Method]) -> None:
    """Refuse one network under two names: it would be compared with itself.

    Two extractions of it, as with and without views, are something to compare, but not under names
    of the paper's methods, whose claims are judged.
    """
    for one, other in combinations(methods, 2):
        this, that = one.store.identity, other.store.identity
        alike = this == that or (
            {one.name, other.name} <= {*METHODS, SCRATCH}
            and (this.checkpoint, this.backbone, this.classifier)
            == (that.checkpoint, that.backbone, that.classifier)
        )
        if alike:
            raise EvaluationError(
                f"{one.name} and {other.name} are one and the same network, which cannot be "
                f"compared with itself: give the checkpoint or store of another as {other.name}."
            )


def _labels(store: Store) -> Ints:
    """(N,) class of each test image that could be read."""
    split = store[SPLIT]
    return np.asarray(split.labels[split.usable])


def _sizes(store: Store) -> str:
    """Classes and images in words."""
    parts = [f"{len(store.class_names)} classes"]
    parts += [f"{store[name].n_samples:,} {name} images" for name in store.splits]
    return ", ".join(parts)


def _file_name(name: str) -> str:
    """A method's name as the name of a file."""
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in name.lower())
    return kept or "method"
