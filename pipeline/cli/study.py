"""Studies: what `nolb fit-head` does with `--seeds` and `--sweep`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.cli.output import console_for, write_json
from pipeline.config import FitConfig
from pipeline.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

SEEDS_OF_A_SWEEP = 5
"""Seeds of each configuration where `--sweep` is given alone."""


def study_options(command: Command) -> Command:
    """Add `--seeds` and `--sweep`."""
    seeds = click.option(
        "--seeds",
        type=click.IntRange(min=1),
        metavar="N",
        help="Fit heads with N seeds, from --seed on, and report mean, spread and intervals.  "
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


def run_study(
    store: Path,
    out: Path,
    config: FitConfig,
    seeds: int | None,
    sweeps: Sequence[str],
    *,
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
        overwrite: whether an earlier study may be replaced.
        json_path: what `--json` was given.

    Raises:
        ConfigError: if the sweep cannot be read, or several processes were started.
    """
    from cache import open_store
    from pipeline.progress import ProgressReport
    from pipeline.stages.study import study
    from pipeline.studying import (
        grid_configs,
        parse_sweeps,
        refuse_existing_study,
        save_study,
        study_folder,
    )
    from pipeline.studying.tables import study_table, table_on_test
    from pipeline.team import Team

    if Team.from_environment(work="fit").size > 1:
        raise ConfigError(
            "--seeds and --sweep share their work in one process: leave torchrun out."
        )
    configs = grid_configs(config, parse_sweeps(sweeps))
    folder = study_folder(out)
    refuse_existing_study(folder, overwrite=overwrite)
    console = console_for(json_path)
    n_seeds = seeds or SEEDS_OF_A_SWEEP
    with open_store(store) as opened, ProgressReport("fit-head", "epochs") as progress:
        found = study(opened, configs, n_seeds, on_progress=progress.update)
    heads = save_study(found, folder, overwrite=overwrite)
    what = f"{n_seeds} seeds" if n_seeds > 1 else "1 seed"
    if len(configs) > 1:
        what = f"{len(configs)} configurations with {what} each"
    console.print(
        f"fitted  {what}, over {found.n_rows:,} rows in {found.seconds:.2f} s -> {folder}"
    )
    console.print(study_table(found))
    on_test = table_on_test(found)
    if on_test is not None:
        console.print(on_test)
    for warning in found.warnings:
        console.print(f"Note: {warning}")
    if heads and found.old:
        pattern = folder / "seed*.safetensors"
        console.print(f"Next: nolb sweep-temps {store} {pattern} --out {folder}-sweep")
    elif not heads:
        console.print(
            "No head was written: fit one configuration alone, or extract a `val` split to choose."
        )
    write_json(found.to_json() | {"heads": [str(path) for path in heads]}, json_path)
