"""Run a frozen, trained classifier once over its images and keep features and old logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import (
    Shard,
    Store,
    StoreSpec,
    StoreWriter,
    create_store,
    join_store,
    open_store,
    resume_store,
)
from cache.errors import StoreExistsError, StoreNotFoundError
from pipeline.checkpoints import TrainedModel
from pipeline.config import ExtractConfig
from pipeline.datasets import ImageSource, SourceOptions, open_sources
from pipeline.extracting.forward import ForwardPass
from pipeline.extracting.plan import ExtractionPlan, plan_extraction, prepare_model
from pipeline.progress import OnProgress
from pipeline.team import Team


@dataclass(frozen=True)
class Extraction:
    """What an extraction left behind."""

    store: Store
    """The finished store, open for reading."""

    model: TrainedModel
    """The model that was run."""

    computed: int
    """Images that went through the model in this run; those of an interrupted one not."""

    seconds: float
    """Seconds from the first batch to the sealed store."""

    shares: Mapping[str, float]
    """Fraction of `seconds` spent on waiting for images, on the model and on writing."""

    failed: Mapping[str, Mapping[int, str]]
    """Rows whose image could not be read, with the reason, by split."""

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "store": str(self.store.path),
            "model": self.model.name,
            "preprocessing": self.model.preprocessing.describe(),
            "images": {name: self.store[name].n_samples for name in self.store.splits},
            "failed": {name: len(rows) for name, rows in self.failed.items()},
            "computed": self.computed,
            "seconds": self.seconds,
            "shares": dict(self.shares),
        }


def extract(
    checkpoint: Path | str | TrainedModel | None,
    sources: Mapping[str, ImageSource | Path | str],
    out: Path | str,
    config: ExtractConfig | None = None,
    *,
    root: Path | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    team: Team | None = None,
) -> Extraction:
    """Cache features, views and old logits of every image in a store.

    The images of a shard always go through the model in the same batches, so an extraction that
    was interrupted and resumed on the same kind of device gives the same bytes.

    Args:
        checkpoint: file that holds the trained backbone and its old head, or what
            `prepare_model` made of it; `None` for a model that `config.model` names.
        sources: images by split, as for `open_sources`; `train` and `test` at least.
        out: store to create; the suffix `.zarr` or `.h5` chooses its format.
        config: settings; the defaults where not given.
        root: folder that the paths of list files are relative to.
        resume: continue an unfinished store; begin one where there is none, and change nothing
            where the same extraction is complete already.
        overwrite: replace an existing store, once the new one is complete.
        on_progress: called with a snapshot after every batch.
        team: the processes that share the work; those of `torchrun` where not given. Each computes
            its own shards and holds the whole store at the end; the first one seals it.

    Raises:
        CheckpointError: if the file does not hold a model that is known and complete.
        DatasetError: if a source is missing or empty, contradicts the model or another split, or
            is the training images again.
        StoreError: if `out` exists, or an unfinished store is of another extraction.
        ExtractionError: if the model gives no usable features, or with `strict` an unreadable
            image.
        KeyboardInterrupt: on Ctrl-C, after the finished shards were made durable.
    """
    config = config or ExtractConfig()
    team = team or Team.from_environment()
    model = checkpoint
    if not isinstance(model, TrainedModel):
        model = prepare_model(model, config)
    images = open_sources(sources, SourceOptions(Path(root) if root is not None else None))
    plan = plan_extraction(model, images, config, team=team, on_progress=on_progress)
    return complete_extraction(
        plan, out, resume=resume, overwrite=overwrite, on_progress=on_progress, team=team
    )


def complete_extraction(
    plan: ExtractionPlan,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    team: Team | None = None,
) -> Extraction:
    """Run a planned extraction, or what is left of it: the second half of `extract`.

    Args:
        plan: what `plan_extraction` settled.
        out: as for `extract`.
        resume: as for `extract`.
        overwrite: as for `extract`.
        on_progress: as for `extract`.
        team: as for `extract`.

    Raises:
        StoreError: as `extract`.
        ExtractionError: as `extract`.
        KeyboardInterrupt: as `extract`.
    """
    team = team or Team.from_environment()
    forward = plan.forward_pass(on_progress, team.local_size)
    store = _fill(forward, out, plan.spec, team, resume=resume, overwrite=overwrite)
    return Extraction(
        store=store,
        model=plan.model,
        computed=forward.computed,
        seconds=forward.clock.seconds,
        shares=forward.clock.shares(),
        failed={name: store[name].failed for name in store.splits},
    )


def _fill(
    forward: ForwardPass,
    out: Path | str,
    spec: StoreSpec,
    team: Team,
    *,
    resume: bool,
    overwrite: bool,
) -> Store:
    """The finished store, to which every process of the team has contributed its share."""
    try:
        if team.leads:
            # Processes that were started again by torchrun go on with what they have begun.
            resume = resume or team.restarted
            store = _lead(forward, out, spec, team, resume=resume, overwrite=overwrite)
        else:
            store = _follow(forward, out, spec, team)
    except BaseException as error:
        team.fail(error)
        raise
    team.part()
    return store


def _lead(
    forward: ForwardPass,
    out: Path | str,
    spec: StoreSpec,
    team: Team,
    *,
    resume: bool,
    overwrite: bool,
) -> Store:
    """Begin the store or go on with it, compute a share, wait for the others, and seal."""
    begun = _begin(out, spec, resume=resume, overwrite=overwrite)
    if isinstance(begun, Store):
        team.tell("plan", None)
        return begun
    with begun as writer:
        missing = writer.missing()
        if team.size == 1:
            forward.fill(writer, missing)
            return forward.seal(writer)
        shards = [(s.split, s.index, s.start, s.stop) for s in missing]
        team.tell("plan", {"invitation": writer.share(), "missing": shards})
        forward.fill(writer, team.share_of(missing, _cost(spec)), whole=False)
        team.hear_all("joined")
        team.hear_all("filled", dead=writer.alone)
        store = forward.seal(writer)
    team.tell("sealed", True)
    return store


def _follow(forward: ForwardPass, out: Path | str, spec: StoreSpec, team: Team) -> Store:
    """Compute a share of the store that the first process has begun and will seal."""
    plan = team.hear("plan")
    if plan is None:
        return open_store(out)
    with join_store(out, spec, plan["invitation"]) as writer:
        team.tell(f"joined/{team.rank}", True)
        missing = [Shard(*words) for words in plan["missing"]]
        forward.fill(writer, team.share_of(missing, _cost(spec)), whole=False)
        team.tell(f"filled/{team.rank}", True)
    team.hear("sealed")
    return open_store(out)


def _cost(spec: StoreSpec) -> Callable[[Shard], int]:
    """Forward passes that a shard takes: one a row, and one for each of its views."""
    passes = {split.name: 1 + split.n_views for split in spec.splits}
    return lambda shard: shard.n_rows * passes[shard.split]


def _begin(
    out: Path | str, spec: StoreSpec, *, resume: bool, overwrite: bool
) -> StoreWriter | Store:
    """A writer for a new or an unfinished store; the store itself where it is complete already."""
    if resume:
        try:
            return resume_store(out, spec)
        except StoreNotFoundError:
            pass  # nothing was begun yet: a job script may ask to resume from its first run on
        except StoreExistsError:  # of this very extraction
            return open_store(out)
    return create_store(out, spec, overwrite=overwrite)
