"""The stage `pretrain`: train a backbone and its first head on labelled images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.identity import samples_digest
from pipeline.backbones import Backbone
from pipeline.checkpoints import TrainedModel
from pipeline.checkpoints.own import FORMAT, HISTORY, TRAINING_IMAGES, VERSION, write_file
from pipeline.config import PretrainConfig
from pipeline.datasets import (
    ImageSource,
    Preprocessing,
    SourceOptions,
    open_sources,
    overlap_notes,
)
from pipeline.devices import choose_device
from pipeline.errors import OutputExistsError, TrainingError
from pipeline.exhaustion import is_exhaustion
from pipeline.files import refuse_existing
from pipeline.metrics import Scores
from pipeline.progress import OnProgress, Steps
from pipeline.training.evaluation import evaluate_network
from pipeline.training.holding import Supply, supply_images
from pipeline.training.locking import sole_training
from pipeline.training.loop import EpochRecord, Trainer
from pipeline.training.network import build_network, chosen_network, require_fits
from pipeline.training.saving import (
    FREE_FIELDS,
    UNFINISHED_FORMAT,
    is_ours,
    read_file,
    require_same,
    unfinished_path,
)
from pipeline.versions import versions


@dataclass(frozen=True)
class Pretraining:
    """What a training left behind."""

    checkpoint: Path
    """The trained classifier, for `extract`."""

    history: tuple[EpochRecord, ...]
    """Every epoch, those of an interrupted run included."""

    scores: Mapping[str, Scores]
    """Of the last epoch, by split; empty where nothing was trained in this run."""

    computed: int
    """Epochs of this run."""

    seconds: float
    """Seconds of this run."""

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "checkpoint": str(self.checkpoint),
            "computed": self.computed,
            "seconds": self.seconds,
            "history": [asdict(record) for record in self.history],
            "scores": {split: scores.to_json() for split, scores in self.scores.items()},
        }


@dataclass(frozen=True)
class Callbacks:
    """Where a training tells how it goes; each is called as it happens."""

    on_begin: Callable[[str], None] = lambda _: None
    """With lines that describe what is trained, on what."""

    on_progress: OnProgress = lambda _: None
    """After every batch."""

    on_epoch: Callable[[EpochRecord, Mapping[str, Scores]], None] = lambda _epoch, _scores: None
    """After every epoch, with the scores where there was an evaluation."""


@dataclass
class _Run:
    """A training on its way."""

    out: Path
    config: PretrainConfig
    sources: dict[str, ImageSource]
    backbone: Backbone
    start: TrainedModel | None
    preprocessing: Preprocessing
    device: torch.device
    report: Callbacks
    history: list[EpochRecord] = field(default_factory=list)
    scores: dict[str, Scores] = field(default_factory=dict)

    @property
    def train(self) -> ImageSource:
        """The training images."""
        return self.sources["train"]

    @property
    def class_counts(self) -> Tensor:
        """(C,) training images of each class."""
        return _labels(self.train).bincount(minlength=len(self.train.class_names))

    @property
    def unfinished(self) -> Path:
        """Where the state lies until the training is complete."""
        return unfinished_path(self.out)

    def identity(self) -> dict[str, Any]:
        """All that decides the weights, as plain values."""
        decided = {k: v for k, v in asdict(self.config).items() if k not in FREE_FIELDS}
        prepared = self.preprocessing.to_json().items()
        return decided | {
            "device": self.device.type,
            **{f"preprocessing.{name}": value for name, value in prepared},
            "first weights": "drawn" if self.start is None else self.start.sha256,
            TRAINING_IMAGES: samples_digest(self.train.ids, self.train.labels),
            "class names": list(self.train.class_names),
        }


def pretrain(
    sources: Mapping[str, ImageSource | Path | str],
    out: Path | str,
    config: PretrainConfig | None = None,
    *,
    root: Path | str | None = None,
    start: TrainedModel | Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Callbacks | None = None,
) -> Pretraining:
    """Train a backbone with its head, and save what `extract` loads.

    After every epoch the state is made durable beside `out`; a training that was interrupted at any
    instant and resumed gives the same weights, on a CPU to the bit for the same number of threads.
    The weights of the last epoch are saved: what validation and test images say chooses nothing.

    Args:
        sources: images by split, as for `open_sources`; `train` at least.
        out: checkpoint to write, once the training is complete.
        config: settings; the defaults where not given.
        root: folder that the paths of list files are relative to.
        start: checkpoint whose weights before the classifier to begin with, and whose
            preprocessing to use; random weights where not given.
        resume: go on after the last whole epoch; begin where none is, and change nothing where the
            same training is complete already.
        overwrite: replace an existing checkpoint of a training, once the new one is complete.
        report: told how it goes.

    Raises:
        ConfigError: if there is no such network or device, or the network cannot take the images.
        CheckpointError: if `start` does not hold a model that is known and complete.
        DatasetError: if a source is missing, empty, contradicts the training images or is the same.
        OutputExistsError: if `out` exists, or an unfinished training of it.
        TrainingError: if another process trains this checkpoint, the training diverges, the
            device's memory is used up, or an unfinished training was begun with other settings.
        KeyboardInterrupt: on Ctrl-C.
    """
    begun, out = time.perf_counter(), Path(out)
    refuse_existing(out, overwrite=True)  # a place where no file can be has no room for a lock
    with sole_training(out):
        _refuse(out, resume=resume, overwrite=overwrite)
        options = SourceOptions(Path(root) if root is not None else None)
        images = open_sources(sources, options, required=("train",))
        run = _planned(out, config or PretrainConfig(), images, start, report or Callbacks())
        if overwrite:
            run.unfinished.unlink(missing_ok=True)
        computed = _completed(run, resume=resume)
    seconds = time.perf_counter() - begun
    return Pretraining(run.out, tuple(run.history), run.scores, computed, seconds)


def _completed(run: _Run, *, resume: bool) -> int:
    """The number of epochs that it took to complete the training, none where it was complete."""
    if resume and run.out.exists() and not run.unfinished.exists():
        run.history[:] = _finished(run)
        return 0
    saved = _begun(run)
    try:
        return _train(run, saved)
    except (MemoryError, RuntimeError) as error:
        if not is_exhaustion(error):
            raise
        raise TrainingError(
            f"The memory of {run.device} is used up: train with a --batch-size below "
            f"{run.config.batch_size}, or hold fewer images with --memory."
        ) from None


def _planned(
    out: Path,
    config: PretrainConfig,
    sources: dict[str, ImageSource],
    start: TrainedModel | Path | str | None,
    report: Callbacks,
) -> _Run:
    """The training with its network's description, its preprocessing and its device."""
    device = choose_device(config.device)
    backbone, start, preprocessing = chosen_network(config, start)
    _require_every_class(sources["train"])
    return _Run(out, config, sources, backbone, start, preprocessing, device, report)


def _begun(run: _Run) -> dict[str, Any] | None:
    """The state of an unfinished training, which must be this one; None where there is none."""
    if not run.unfinished.exists():
        return None
    saved = read_file(run.unfinished, UNFINISHED_FORMAT)
    require_same(run.unfinished, saved["identity"], run.identity())
    return saved


def _train(run: _Run, saved: dict[str, Any] | None) -> int:
    """All epochs that are still to do, and the finished checkpoint; the number of those epochs."""
    trainer, supply = _prepared(run)
    if saved is not None:
        trainer.restore(saved)
        run.history[:] = [EpochRecord(**record) for record in saved["history"]]
    config, first = run.config, len(run.history)
    on_batch = _counter(run, first)
    durable = first
    try:
        for epoch in range(first, config.epochs):
            run.history.append(trainer.run_epoch(epoch, on_batch))
            write_file(run.unfinished, _unfinished(run, trainer))
            durable = epoch + 1
            run.scores = _scores(run, trainer, supply) if _is_evaluated(config, epoch) else {}
            run.report.on_epoch(run.history[-1], run.scores)
        if first == config.epochs:  # the last run ended between its last epoch and its result
            run.scores = _scores(run, trainer, supply)
        write_file(run.out, _classifier(run, trainer))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted after {durable} of {config.epochs} epochs; go on with --resume."
        ) from None
    run.unfinished.unlink(missing_ok=True)
    return config.epochs - first


def _prepared(run: _Run) -> tuple[Trainer, Supply]:
    """The network with its first weights, and the images."""
    train, config = run.train, run.config
    network = build_network(run.backbone, len(train.class_names), config, run.start)
    run.report.on_begin(
        f"network        {run.backbone.name}, {sum(w.numel() for w in network.parameters()):,} "
        f"weights, on {run.device}"
    )
    run.report.on_begin(f"preprocessing  {run.preprocessing.describe()}")
    supply = supply_images(run.sources, run.preprocessing, config, run.device)
    run.report.on_begin(
        f"images         {len(train):,} of {len(train.class_names)} classes; {supply.described}"
    )
    for note in overlap_notes(run.sources):
        run.report.on_begin(f"note           {note}")
    require_fits(network, run.preprocessing.normalize(supply.sample), run.backbone.name)
    trainer = Trainer(
        network,
        supply.splits["train"],
        _labels(train),
        class_counts=run.class_counts,
        preprocessing=run.preprocessing,
        shift=supply.shift,
        config=config,
        device=run.device,
    )
    return trainer, supply


def _counter(run: _Run, first: int) -> Callable[[int], None]:
    """What counts the images that the network has seen, and tells."""
    n_samples, report = len(run.train), run.report.on_progress
    return Steps(run.config.epochs * n_samples, report, done=first * n_samples).advance


def _is_evaluated(config: PretrainConfig, epoch: int) -> bool:
    """Whether the recalls are looked at after this epoch, from 0."""
    every = config.evaluate_every or config.epochs
    return epoch + 1 == config.epochs or (epoch + 1) % every == 0


def _scores(run: _Run, trainer: Trainer, supply: Supply) -> dict[str, Scores]:
    """The metrics of every split but the training images."""
    return {
        split: evaluate_network(
            trainer.network,
            supply.splits[split],
            _labels(source),
            run.class_counts,
            run.train.class_names,
            split,
            run.preprocessing,
            run.config,
        )
        for split, source in run.sources.items()
        if split != "train"
    }


def _labels(source: ImageSource) -> Tensor:
    """(N,) int64; a copy, as the source's own are read-only."""
    return torch.from_numpy(source.labels.copy())


def _unfinished(run: _Run, trainer: Trainer) -> dict[str, Any]:
    """What a resumed training goes on from."""
    return trainer.state() | {
        "format": UNFINISHED_FORMAT,
        "version": VERSION,
        "identity": run.identity(),
        "history": [asdict(record) for record in run.history],
        "versions": versions(),
    }


def _classifier(run: _Run, trainer: Trainer) -> dict[str, Any]:
    """The finished file: plain values and tensors, with all that `extract` needs to know."""
    weights = trainer.network.state_dict()
    return {
        "format": FORMAT,
        "version": VERSION,
        "backbone": run.backbone.name,
        "classifier": "cosine" if run.config.loss == "ldam" else "linear",
        "scale": run.config.margin_scale if run.config.loss == "ldam" else 1.0,
        "preprocessing": asdict(run.preprocessing),
        "class_names": list(run.train.class_names),
        "class_counts": run.class_counts.tolist(),
        "state_dict": {name: tensor.cpu().contiguous() for name, tensor in weights.items()},
        "identity": run.identity(),
        HISTORY: [asdict(record) for record in run.history],
        "versions": versions(),
    }


def _finished(run: _Run) -> tuple[EpochRecord, ...]:
    """The history of a training that is complete, if it is this one."""
    saved = read_file(run.out, FORMAT)
    if HISTORY not in saved:
        raise TrainingError(
            f"{run.out} holds a classifier that extract saved, and no training: give another name, "
            "or begin anew with --overwrite."
        )
    require_same(run.out, saved["identity"], run.identity())
    return tuple(EpochRecord(**record) for record in saved[HISTORY])


def _refuse(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse what is there already, unless it is to be gone on with or replaced."""
    if resume:
        refuse_existing(out, overwrite=True, replaceable=is_ours)
        return
    refuse_existing(out, overwrite=overwrite, replaceable=is_ours)
    unfinished = unfinished_path(out)
    if unfinished.exists() and not overwrite:
        raise OutputExistsError(
            f"{unfinished} holds an unfinished training: go on with --resume, or begin anew with "
            "--overwrite."
        )


def _require_every_class(train: ImageSource) -> None:
    """Raise where a class has nothing to be learned from."""
    present = set(train.labels.tolist())
    absent = [name for label, name in enumerate(train.class_names) if label not in present]
    if absent:
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise TrainingError(
            f"Class {absent[0]!r}{more} has no training image: give images of every class, or "
            "take its name out."
        )
