"""Compute the damaged shards of a store again, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cache import (
    IdentityMismatchError,
    Reopened,
    reopen_store,
    resume_store,
    salvage_header,
    samples_digest,
)
from cache.layout import Header
from pipeline.datasets import ImageSource, SourceOptions, open_sources
from pipeline.extracting.noted import BY_HAND, noted_config
from pipeline.extracting.plan import ExtractionPlan, plan_extraction, prepare_model
from pipeline.progress import OnProgress, counting
from pipeline.team import Team


def repair(
    path: Path | str,
    checkpoint: Path | str | None,
    sources: Mapping[str, ImageSource | Path | str],
    *,
    root: Path | str | None = None,
    model: str = "auto",
    on_shard: OnProgress | None = None,
    on_progress: OnProgress | None = None,
) -> Reopened:
    """Mend a damaged store, in the settings that it has noted.

    The damaged store stays until the repaired one is complete; a repair that was interrupted goes
    on where it was. Nothing is begun before checkpoint and images are known to be the store's own.

    Args:
        path: a finished store.
        checkpoint: the file of its extraction; `None` where its model came by name.
        sources: its images by split, as for `open_sources`.
        root: folder that the paths of list files are relative to.
        model: its `ExtractConfig.model`, where that is PACKAGE.MODULE:FACTORY, a function that
            runs only where it is named; every other one is noted in the store.
        on_shard: called with a snapshot, in shards, while the store is looked at.
        on_progress: called with a snapshot after every batch that is computed.

    Returns:
        What was whole, and what was computed again.

    Raises:
        CheckpointError: if the file does not hold a model that is known and complete.
        ConfigError: if the store notes no settings that can be used, as `noted_config`.
        DatasetError: if a source is missing or empty, or contradicts the model.
        IdentityMismatchError: if the store is of another checkpoint, other images or other numbers.
        StoreError: if there is no store, another process writes it, or nothing says any more what
            it held.
        ExtractionError: if an image that could be read cannot be read any more.
        KeyboardInterrupt: on Ctrl-C, after the finished shards were made durable.
    """
    images = open_sources(sources, SourceOptions(Path(root) if root is not None else None))
    plan = plan_repair(path, checkpoint, images, model=model, on_progress=on_progress)
    found = reopen_store(path, on_shard=on_shard and counting(on_shard))
    complete_repair(path, plan, on_progress=on_progress)
    return found


def plan_repair(
    path: Path | str,
    checkpoint: Path | str | None,
    images: Mapping[str, ImageSource],
    *,
    model: str = "auto",
    on_progress: OnProgress | None = None,
) -> ExtractionPlan:
    """The store's own extraction, before anything is begun: the first part of `repair`.

    Args:
        path: as for `repair`.
        checkpoint: as for `repair`.
        images: its images by split.
        model: as for `repair`.
        on_progress: called after every batch of a recalibration.

    Raises:
        CheckpointError, ConfigError, DatasetError, IdentityMismatchError, StoreError: as `repair`.
    """
    path = Path(path)
    header = salvage_header(path)
    config = noted_config(path, header, model)
    prepared = prepare_model(checkpoint, config)
    samples = {name: samples_digest(each.ids, each.labels) for name, each in images.items()}
    given = replace(header.identity, checkpoint=prepared.sha256, samples=samples)
    # Other files are told before BatchNorm would be recalibrated with them.
    _require_same(path, given.differences(header.identity))
    plan = plan_extraction(prepared, images, config, team=Team(), on_progress=on_progress)
    _require_same(path, Header.of(plan.spec).differences(header))
    return plan


def complete_repair(
    path: Path | str, plan: ExtractionPlan, *, on_progress: OnProgress | None = None
) -> None:
    """Compute what a reopened store lacks, and seal it: the last part of `repair`.

    Args:
        path: the store.
        plan: what `plan_repair` made.
        on_progress: as for `repair`.

    Raises:
        ExtractionError, KeyboardInterrupt, StoreError: as `repair`.
    """
    forward = plan.forward_pass(on_progress)
    with resume_store(path, plan.spec) as writer:
        forward.fill(writer, writer.missing())
        forward.seal(writer).close()


def _require_same(path: Path, differing: list[str]) -> None:
    """Refuse what is of another extraction."""
    if differing:
        raise IdentityMismatchError(
            f"{path} is of another extraction ({'; '.join(differing)}, 'that' being the store): "
            f"nothing was changed. Give the checkpoint and the images of its own, with its --val, "
            f"--split-seed, --class-order and the like; or {BY_HAND}"
        )
