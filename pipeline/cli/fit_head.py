"""`nolb fit-head`: from a store to a new head."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.arguments import no_head
from pipeline.cli.options import (
    PATH,
    json_option,
    named_by_hand,
    overwrite_option,
    settings_from,
    settings_options,
    test_views_option,
)
from pipeline.cli.output import Speaker, write_json
from pipeline.cli.study import like_these_scores, run_study, study_options
from pipeline.config import FitConfig
from pipeline.config.unused import refuse_unused

if TYPE_CHECKING:
    from cache import Store
    from pipeline.heads import Head
    from pipeline.metrics import Scores
    from pipeline.stages.fit_head import FitResult

FROM_THE_OLD_HEAD = ("tau-normalised", "logit-adjusted")
"""Forms of the head that no training row decides."""


@click.command("fit-head")
@click.argument("store", type=PATH, callback=no_head)
@click.option(
    "--out",
    type=PATH,
    required=True,
    help="Head to write, NAME.safetensors; with --seeds or --sweep a folder (of that name: NAME).",
)
@overwrite_option
@study_options
@test_views_option
@settings_options("fit_head")
@json_option
def fit_head(
    store: Path,
    out: Path,
    overwrite: bool,
    seeds: int | None,
    sweeps: tuple[str, ...],
    test_views: bool | None,
    recipe: str | None,
    json_path: str | None,
    **given: Any,
) -> None:
    """Re-train the linear head on a store's training features.

    \b
    Examples:
      nolb fit-head data.zarr --out head.safetensors
      nolb fit-head data.zarr --out head.safetensors --config cifar100-lt --seed 1

    With --seeds and --sweep it is a study: all heads are fitted together, and the folder gets their
    mean, spread and intervals as tables and a figure, and the heads seed0.safetensors and so on of
    the one configuration, or of the best on the split `val`. Without `val` several are measured on
    the test split, and none is chosen.

    \b
      nolb fit-head data.zarr --out study --seeds 10
      nolb fit-head data.zarr --out study --sweep lr=0.05,0.1,0.2 --sweep weight_decay=1e-4,5e-4

    Several processes, on one machine or more, share the rows under torchrun:
    torchrun --nproc-per-node 4 -m pipeline fit-head ...
    """
    config = settings_from("fit_head", FitConfig, recipe, given)
    by_hand = named_by_hand(given)
    if seeds is not None or sweeps:
        run_study(
            store, out, config, seeds, sweeps, by_hand,
            test_views=test_views, overwrite=overwrite, json_path=json_path,
        )  # fmt: skip
        return
    refuse_unused([config], by_hand)
    _run_fit(store, out, config, test_views=test_views, overwrite=overwrite, json_path=json_path)


def _run_fit(
    store: Path,
    out: Path,
    config: FitConfig,
    *,
    test_views: bool | None,
    overwrite: bool,
    json_path: str | None,
) -> None:
    """Fit one head, save it, score it and print how it went."""
    from cache import open_store
    from pipeline.heads import refuse_existing_head, save_head
    from pipeline.old_head import has_old_head
    from pipeline.progress import ProgressReport
    from pipeline.stages.fit_head import fit_head
    from pipeline.tables import scores_table
    from pipeline.team import Team

    speaker = Speaker(json_path)
    refuse_existing_head(out, overwrite=overwrite)
    team = Team.from_environment(work="fit")
    with open_store(store) as opened:
        _require_scorable(opened, test_views)
        with ProgressReport("fit-head", "epochs") as progress:
            on_progress = progress.update if team.leads else None
            result = fit_head(opened, config, on_progress=on_progress, team=team)
        if not team.leads:
            return  # one of several processes writes and speaks
        save_head(result.head, out, overwrite=overwrite)
        _tell_fit(result, config, speaker)
        scores = _scores_on_test(opened, result.head, test_views)
        with_old = has_old_head(opened)
    if scores:
        speaker.show(scores_table(scores))
    speaker.wrote(out)
    _tell_next(store, out, test_views, speaker, with_old=with_old)
    how = None if result.convergence is None else asdict(result.convergence)
    told = {"head": str(out), "seconds": result.seconds, "convergence": how}
    write_json(told | {name: of.to_json() for name, of in scores.items()}, json_path)


def _require_scorable(store: Store, test_views: bool | None) -> None:
    """Refuse, before the work, to score test views that are not there."""
    from pipeline.seen_views import averaged_views

    if "test" in store:
        averaged_views(store, "test", test_views=test_views)


def _scores_on_test(store: Store, head: Head, test_views: bool | None) -> dict[str, Scores]:
    """Of the old head, where the store has one, and of the new one; none without a test split."""
    from pipeline.old_head import has_old_head
    from pipeline.stages.evaluate import evaluate

    if "test" not in store:
        return {}
    heads: dict[str, Head | None] = {"old": None} if has_old_head(store) else {}
    heads["new"] = head
    return {name: evaluate(store, of, test_views=test_views) for name, of in heads.items()}


def _tell_fit(result: FitResult, config: FitConfig, speaker: Speaker) -> None:
    """What was fitted and how far; and what to do where that was not far enough."""
    if config.head in FROM_THE_OLD_HEAD:
        speaker.tell("made", f"{config.head} head from the old one in {result.seconds:.2f} s")
    else:
        speaker.tell("fitted", _fitted(result, config))
    if result.convergence is not None and not result.convergence.converged:
        speaker.note(
            f"The head is not at its optimum (slope {result.convergence.gradient:.1g}): "
            "give more --epochs, of ten iterations each, or more --weight-decay."
        )


def _tell_next(
    store: Path, out: Path, test_views: bool | None, speaker: Speaker, *, with_old: bool
) -> None:
    """The command that goes on with the head."""
    if with_old:
        sweep = f"nolb sweep-temps {store} {out} --out {out.with_suffix('')}-sweep"
        speaker.next(f"{sweep}{like_these_scores(test_views)}")
    else:
        speaker.note("The store has no old head; this one can become it.")
        speaker.next(f"nolb adopt-head {store} {out} --out {store.stem}-old{store.suffix}")


def _fitted(result: FitResult, config: FitConfig) -> str:
    """What was fitted, and how far."""
    how = f"{config.loss}, {config.n_epochs} epochs"
    if result.convergence is not None:
        end = "converged" if result.convergence.converged else "stopped"
        how = f"{config.loss}, l-bfgs {end} after {result.convergence.iterations} iterations"
    elif not result.losses:  # nothing was learned
        how = f"{config.head} head"
    views = f" and {result.n_views} views of each" if result.n_views else ""
    seconds = f"{result.seconds:.2f} s"
    return f"{how} over {result.n_samples:,} rows{views} in {seconds}"
