"""The one pass over the images: read, run the model, write, with all three overlapping."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache import Shard, ShardRecord, Store, StoreWriter
from cache.closable import Closable
from pipeline.checkpoints import TrainedModel
from pipeline.config import ExtractConfig
from pipeline.datasets import ImageSource, Views
from pipeline.devices import too_many_images
from pipeline.errors import CheckpointError, ExtractionError
from pipeline.extracting.device_decoding import BatchDecoder, Decoder, EncodedReader
from pipeline.extracting.running import RunningModel, Started
from pipeline.progress import Clock, OnProgress, Snapshot
from pipeline.reading import (
    BatchReader,
    ImageBatch,
    RowRange,
    default_workers,
    read_ahead,
    require_readable,
)

AHEAD = 2
"""Batches that a GPU may be ahead of the copies of its results, so that it never waits for them."""

WAITING_SHARDS = 2
"""Finished shards that may wait for the disk; more would hide a slow disk and fill the memory."""

LOGIT_TOLERANCE = {"none": 1e-3, "bfloat16": 5e-2}
"""Largest difference between live and recomputed logits, relative to the largest logit.

float32 sums of some thousand products agree to about 1e-5; bfloat16 has 8 bits, 2^-8 = 4e-3 a
product. A wrong layer or a forgotten scale is off by its full size."""


@dataclass
class ShardArrays:
    """The arrays of one shard while it is being filled."""

    features: NDArray[np.floating[Any]]
    """(1 + V, n, D) in the store's type: of the clean images, then of each view."""

    logits: NDArray[np.float32]
    """(n, C) of the clean images."""

    failures: dict[int, str] = field(default_factory=dict)
    """Reasons by row."""


class ForwardPass:
    """Fills a store with what a model makes of images.

    Args:
        model: the trained classifier.
        images: the images of each split.
        views: the views of each split that has any.
        config: settings of the extraction.
        device: where the model runs.
        on_progress: called with a snapshot after every batch.
        local_size: processes on this machine that share its cores.
        decoder: what decodes JPEG files on the device; `None` leaves them to the readers, who
            alone make views.
    """

    def __init__(
        self,
        model: TrainedModel,
        images: Mapping[str, ImageSource],
        views: Mapping[str, Views],
        config: ExtractConfig,
        device: torch.device,
        on_progress: OnProgress | None,
        local_size: int = 1,
        decoder: Decoder | None = None,
    ) -> None:
        self._local_size = local_size
        self._decoder = decoder
        self.clock = Clock()
        self.computed = 0
        self._model = model
        self._images = dict(images)
        self._views = dict(views)
        self._config = config
        self._device = device
        self._on_progress = on_progress
        self._checked = False

    def fill(self, writer: StoreWriter, shards: Sequence[Shard], *, whole: bool = True) -> None:
        """Compute shards of a store.

        Args:
            writer: the store.
            shards: what to compute.
            whole: they are all that the store lacks; otherwise progress counts these alone.

        Raises:
            ExtractionError: if the model or the images are unusable.
            KeyboardInterrupt: on Ctrl-C, with a message that says what is stored.
        """
        own = sum(shard.n_rows for shard in shards)
        work = _Work(
            total=sum(len(s.ids) for s in self._images.values()) if whole else own,
            rows_left=own,
            passes_left=sum(shard.n_rows * self._versions(shard.split) for shard in shards),
        )
        for split in {shard.split for shard in shards}:
            require_readable(split, self._images[split])
        model = RunningModel(
            self._model, self._device, autocast=self._config.autocast,
            channels_last=self._config.channels_last,
        )  # fmt: skip
        self.clock.start()
        try:
            with _Background(writer) as pen:
                batches = self._batches(shards)
                for shard in shards:
                    arrays = self._compute(shard, batches, model, work)
                    with self.clock.part("writing"):
                        pen.write(shard, arrays)
                with self.clock.part("writing"):
                    pen.finish()
        except KeyboardInterrupt:
            left = len(writer.missing())
            raise KeyboardInterrupt(
                f"Interrupted with {left} shards still to do; what is finished is stored. "
                "Go on with the same command; an extraction takes --resume."
            ) from None
        finally:
            self.computed += work.rows_done
            self.clock.stop()

    def seal(self, writer: StoreWriter) -> Store:
        """Finish the store; the time counts as writing."""
        with self.clock.part("writing"):
            store = writer.seal()
        self.clock.stop()
        return store

    def _batches(self, shards: Sequence[Shard]) -> Iterator[ImageBatch]:
        """Decoded batches of the shards, in order; a batch never spans two shards."""
        size = self._config.batch_size
        work = [
            RowRange(shard.split, start, min(start + size, shard.stop))
            for shard in shards
            for start in range(shard.start, shard.stop, size)
        ]
        workers = self._config.workers
        if workers < 0:
            workers = default_workers(self._device.type, self._local_size)
        preprocessing = self._model.preprocessing
        if self._decoder is not None:
            encoded = EncodedReader(self._images, preprocessing, work)
            decode = BatchDecoder(self._images, preprocessing, self._decoder, self._device)
            return map(decode, read_ahead(encoded, workers, pin_memory=False))
        reader = BatchReader(self._images, preprocessing, self._views, work)
        return read_ahead(reader, workers, pin_memory=self._device.type == "cuda")

    def _compute(
        self, shard: Shard, batches: Iterator[ImageBatch], model: RunningModel, work: _Work
    ) -> ShardArrays:
        """Run the model over one shard's batches, and tell how far the work is after each."""
        classifier = self._model.classifier
        n_classes, width = classifier.weight.shape
        n_rows = shard.stop - shard.start
        # Rows that no image fills stay NaN: they are the failed ones.
        arrays = ShardArrays(
            np.full((self._versions(shard.split), n_rows, width), np.nan, self._config.dtype),
            np.full((n_rows, n_classes), np.nan, np.float32),
        )
        launched: deque[_Launched] = deque()
        ahead = AHEAD if self._device.type == "cuda" else 0
        filled = shard.start
        while filled < shard.stop:
            with self.clock.part("reading"):
                batch = next(batches)
            self._note_failures(batch, arrays)
            with self.clock.part("forward"):
                launched.append(self._launch(batch, model))
                while len(launched) > ahead:
                    self._collect(launched.popleft(), shard.start, arrays)
            filled = batch.rows.stop
            work.finish(batch.rows.stop - batch.rows.start, self._versions(shard.split))
            if self._on_progress is not None:
                self._on_progress(work.snapshot(self.clock))
        with self.clock.part("forward"):
            while launched:
                self._collect(launched.popleft(), shard.start, arrays)
        return arrays

    def _note_failures(self, batch: ImageBatch, arrays: ShardArrays) -> None:
        """Remember unreadable images, or stop at the first where the settings are strict."""
        arrays.failures.update(batch.failures)
        if self._config.strict and batch.failures:
            row, reason = next(iter(batch.failures.items()))
            name = self._images[batch.rows.split].ids[row]
            raise ExtractionError(
                f"{name} cannot be read ({reason}): mend it and go on with --resume, or leave "
                "--strict out to mark such rows as failed."
            )

    def _launch(self, batch: ImageBatch, model: RunningModel) -> _Launched:
        """Start the model on one batch; a GPU goes on by itself."""
        n_rows = batch.rows.stop - batch.rows.start
        good = [i for i in range(n_rows) if batch.rows.start + i not in batch.failures]
        try:
            started = model.start(batch.images if good else [])
        except torch.OutOfMemoryError:
            raise too_many_images(n_rows, self._device) from None
        return _Launched(batch.rows.start, good, started)

    def _collect(self, launched: _Launched, shard_start: int, arrays: ShardArrays) -> None:
        """Put one batch's features and logits into the shard's arrays."""
        good = launched.good
        rows = np.asarray(good, np.int64) + (launched.start - shard_start)
        for view, (features, logits) in enumerate(launched.started.wait()):
            with np.errstate(over="ignore"):  # infinite float16 is reported when it is written
                arrays.features[view, rows] = features[good]
            if view == 0:
                self._check_logits(features[good], logits[good])
                arrays.logits[rows] = logits[good]

    def _check_logits(self, features: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        """Once a run, hold the tapped features times the old head against the model's output."""
        if self._checked or not np.isfinite(logits).all():
            return  # values that are not finite get their own message when they are written
        self._checked = True
        recomputed = self._model.classifier.logits(features)
        difference = float(np.abs(recomputed - logits).max())
        scale = float(np.abs(logits).max())
        if difference > LOGIT_TOLERANCE[self._config.autocast] * scale:
            raise CheckpointError(
                f"The tapped features times the old head miss the model's own logits by up to "
                f"{difference:.3g} (largest logit {scale:.3g}): the head of "
                f"{self._model.source} is not linear in the input of "
                f"{self._model.classifier_name!r}, so name its family with --model."
            )

    def _versions(self, split: str) -> int:
        """1 + V, the forward passes that an image takes."""
        return 1 + (self._views[split].count if split in self._views else 0)


@dataclass
class _Work:
    """How far a run over some shards is."""

    total: int
    """Rows that progress counts, those of earlier runs included."""

    rows_left: int
    """Rows still to do in this run."""

    passes_left: int
    """Forward passes still to do: 1 + V for a row."""

    rows_done: int = 0
    """Rows done in this run."""

    passes_done: int = 0
    """Forward passes done in this run."""

    def finish(self, n_rows: int, versions: int) -> None:
        """Note that some rows are done, each in as many versions."""
        self.rows_left -= n_rows
        self.rows_done += n_rows
        self.passes_left -= n_rows * versions
        self.passes_done += n_rows * versions

    def snapshot(self, clock: Clock) -> Snapshot:
        """The state after the last batch."""
        return Snapshot(
            done=self.total - self.rows_left,
            total=self.total,
            fresh=self.rows_done,
            seconds=clock.seconds,
            shares=clock.shares(),
            # Images with views take longer: those of one split say little of another's.
            work_left=self.passes_left / self.passes_done,
        )


@dataclass(frozen=True)
class _Launched:
    """A batch that the model has been started on."""

    start: int
    """First row of the split."""

    good: list[int]
    """Rows within the batch whose image could be read."""

    started: Started
    """What the model makes of the clean images, then of each view."""


class _Background(Closable):
    """Writes finished shards in a thread of its own, while the model goes on.

    One thread, because a writer commits one shard after the other. Leaving the block waits for
    what is under way, so that an interruption loses no finished shard.
    """

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nolb-writer")
        self._pending: deque[Future[ShardRecord]] = deque()

    def close(self) -> None:
        """Wait for the shards under way."""
        self._pool.shutdown(wait=True)

    def write(self, shard: Shard, arrays: ShardArrays) -> None:
        """Hand a shard over; waits where the disk is slower than the model.

        Raises:
            StoreError: if an earlier shard could not be written.
        """
        while len(self._pending) >= WAITING_SHARDS:
            self._pending.popleft().result()
        self._pending.append(
            self._pool.submit(
                self._writer.write_shard,
                shard,
                features=arrays.features[0],
                logits=arrays.logits if self._writer.spec.store_logits else None,
                views=arrays.features[1:] if len(arrays.features) > 1 else None,
                failures=arrays.failures,
            )
        )

    def finish(self) -> None:
        """Wait for every shard, and raise what went wrong with any of them."""
        while self._pending:
            self._pending.popleft().result()
