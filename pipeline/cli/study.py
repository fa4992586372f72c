"""Studies: what `nolb fit-head` does with `--seeds` and `--sweep`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.output import Speaker, write_json
from pipeline.config import FitConfig
from pipeline.config.unused import refuse_unused
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.studying import Study

Command = TypeVar("Command", bound=Callable[..., Any])

SEEDS_OF_A_SWEEP = 5
"""Seeds of each configuration where `--sweep` is given alone."""


def study_options(command: Command) -> Command:
    """Add `--seeds` and `--sweep`."""
    seeds = click.option(
        "--seeds",
        type=click.IntRange(min=1),
        metavar="N",
        help="Fit heads with N seeds, from --seed on, and report mean, spread and intervals; a "
        "head that no seed decides is fitted once.  "
        f"[default with --sweep: {SEEDS_OF_A_SWEEP}]",
    )
    sweep = click.option(
        "--sweep",
        "sweeps",
        multiple=True,
        metavar="FIELD=V,V",
        help="Compare the values of a setting, as lr=0.05,0.1,0.2; given more than once: every "
        "combination.",
    )
    return seeds(sweep(command))


def like_these_scores(test_views: bool | None) -> str:
    """What makes the next command score as this one was told to."""
    return " --no-test-views" if test_views is False else ""


def run_study(
    store: Path,
    out: Path,
    config: FitConfig,
    seeds: int | None,
    sweeps: Sequence[str],
    by_hand: Sequence[str],
    *,
    test_views: bool | None,
    overwrite: bool,
    json_path: str | None,
) -> None:
    """Fit, compare, save and print.

    Args:
        store: where the store is.
        out: folder of the results, or a head's name without whose suffix it is one.
        config: settings that are not swept, and the first seed.
        seeds: seeds of each configuration.
        sweeps: what `--sweep` was given.
        by_hand: fields of the settings that options gave.
        test_views: whether test views are averaged; not set: where the store has them.
        overwrite: whether an earlier study may be replaced.
        json_path: what `--json` was given.

    Raises:
        ConfigError: if the sweep cannot be read, a setting decides nothing for any of the heads,
            or several processes were started.
        EvaluationError: if test views are asked for that are not there.
    """
    from cache import open_store
    from pipeline.progress import ProgressReport
    from pipeline.stages.study import study
    from pipeline.studying.files import refuse_existing_study, save_study, study_folder

    _require_one_process()
    configs = _configurations(config, sweeps, by_hand)
    folder = study_folder(out)
    refuse_existing_study(folder, overwrite=overwrite)
    n_seeds = seeds or SEEDS_OF_A_SWEEP
    with open_store(store) as opened, ProgressReport("fit-head", "epochs") as progress:
        found = study(opened, configs, n_seeds, test_views=test_views, on_progress=progress.update)
    heads = save_study(found, folder, overwrite=overwrite)
    speaker = Speaker(json_path)
    _tell(found, speaker)
    speaker.wrote(folder)
    if not heads:
        speaker.note(
            "No head was written: fit one configuration alone, or extract a `val` split to choose."
        )
    elif found.old:
        sweep = f"nolb sweep-temps {store} {folder / 'seed*.safetensors'} --out {folder}-sweep"
        speaker.next(f"{sweep}{like_these_scores(test_views)}")
    write_json(found.to_json() | {"heads": [str(path) for path in heads]}, json_path)


def _configurations(
    config: FitConfig, sweeps: Sequence[str], by_hand: Sequence[str]
) -> list[FitConfig]:
    """Every combination of the swept settings with the others, none of them given in vain."""
    from pipeline.studying import grid_configs, parse_sweeps

    grid = parse_sweeps(sweeps)
    configs = grid_configs(config, grid)
    refuse_unused(configs, [*by_hand, *grid], swept=grid)
    return configs


def _require_one_process() -> None:
    """Refuse the processes of torchrun, which would all do the same."""
    from pipeline.team import Team

    if Team.from_environment(work="fit").size > 1:
        raise ConfigError(
            "--seeds and --sweep share their work in one process: leave torchrun out."
        )


def _tell(found: Study, speaker: Speaker) -> None:
    """What was fitted, what came of it, and what to know before it is trusted."""
    from pipeline.studying.tables import study_table, table_on_test

    what = found.seeds_told
    if len(found.variants) > 1:
        what = f"{len(found.variants)} configurations with {what}"
    speaker.tell("fitted", f"{what}, over {found.n_rows:,} rows in {found.seconds:.2f} s")
    on_test = table_on_test(found)
    speaker.show(study_table(found), *([] if on_test is None else [on_test]))
    for warning in found.warnings:
        speaker.note(warning)
