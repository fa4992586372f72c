"""One table or figure of the paper, on the checkpoints that there are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import FEWEST_REPLICATES, ExtractConfig, FitConfig
from pipeline.errors import ConfigError
from pipeline.files import refuse_existing_in, whole_files
from pipeline.metrics import Bools
from pipeline.reproduction.comparisons import ClaimList, Given
from pipeline.reproduction.evidence import REPLICATES, Evidence
from pipeline.reproduction.experiments import EXPERIMENTS, Experiment
from pipeline.reproduction.fits import Method, hits_of
from pipeline.reproduction.methods import Inputs, open_methods
from pipeline.reproduction.notes import ViewCounts, notes_on
from pipeline.reproduction.paper import SCRATCH, TABLE_9
from pipeline.reproduction.printing import markdown
from pipeline.reproduction.results import Reproduction, find_results
from pipeline.reproduction.settings import (
    distinct_kinds,
    fits_heads,
    gml_config,
    no_resampling,
    require_learned,
    seeds_of,
)
from pipeline.versions import versions

MAKE_SCRATCH = (
    "nolb pretrain --loss gml --train SRC --out scratch.pth, and then --checkpoint "
    "scratch=scratch.pth"
)


def reproduce(
    what: str,
    inputs: Inputs,
    out: Path,
    fit_config: FitConfig | None = None,
    extract_config: ExtractConfig | None = None,
    *,
    n_seeds: int = 5,
    replicates: int = REPLICATES,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
    show_progress: bool = False,
) -> Reproduction:
    """Run a comparison of the paper, write it down, and judge the paper's claims on it.

    Args:
        what: one of `paper.NAMES`.
        inputs: checkpoints and stores of the methods to compare.
        out: folder for `WHAT.md`, `WHAT.json`, a figure's `WHAT.png`, and extracted stores, which
            later comparisons use again.
        fit_config: settings of the re-trained heads, but for the loss and its re-weighting; seeds
            begin at its own.
        extract_config: settings of the extraction of checkpoints.
        n_seeds: heads fitted of each kind; of those that no seed decides there is one.
        replicates: of the bootstrap over test images.
        overwrite: replace an earlier result of the same name.
        say: called with a line for each step.
        show_progress: show a bar while images are extracted.

    Raises:
        ConfigError: if there is no such table, what it compares is not given, or the settings
            leave nothing to compare.
        OutputError: if there is a result of that name already, or no place for one.
        NolbError: as the stages that it runs.
    """
    recipe, extract_config = fit_config or FitConfig(), extract_config or ExtractConfig()
    experiment = _experiment(what, n_seeds, replicates)
    require_learned(experiment.table.name, experiment.kinds, recipe)
    seeds = seeds_of(recipe, n_seeds)
    files = _prepare(out, what, experiment, overwrite=overwrite)
    with open_methods(inputs, out, extract_config, say, show_progress=show_progress) as methods:
        _require_methods(experiment, methods)
        warnings: list[str] = []
        evidence = _evidence(experiment, methods, recipe, len(seeds), say, warnings.append)
        say("judging   the claims")
        names = tuple(one.name for one in methods)
        claims = _claims(experiment, methods, evidence, recipe)
        rows, findings = find_results(
            experiment, evidence, names, claims, replicates=replicates, seed=recipe.seed
        )
        views = {one.name: _views(one, experiment, recipe) for one in methods}
        notes = notes_on(experiment, evidence, recipe, len(seeds), views)
        result = Reproduction(
            what, experiment, names, evidence, rows, findings, (*notes, *warnings),
            gml_config(recipe), seeds, _provenance(methods, replicates), files,
        )  # fmt: skip
    _write(result, out, overwrite=overwrite)
    return result


def _experiment(what: str, n_seeds: int, replicates: int) -> Experiment:
    """The table or figure of that name."""
    if what not in EXPERIMENTS:
        raise ConfigError(
            f"There is nothing called {what!r} to reproduce: name one of {', '.join(EXPERIMENTS)}."
        )
    fewest = {"seeds": (n_seeds, 1), "replicates": (replicates, FEWEST_REPLICATES)}
    for name, (value, least) in fewest.items():
        if value < least:
            raise ConfigError(f"{name} must be {least} or more, not {value}.")
    return EXPERIMENTS[what]


def _prepare(out: Path, what: str, experiment: Experiment, *, overwrite: bool) -> tuple[Path, ...]:
    """The files to be, for which there is room."""
    files = [out / f"{what}{suffix}" for suffix in (".md", ".json")]
    files += [out / f"{what}.png"] * experiment.draws
    refuse_existing_in(out, [path.name for path in files], overwrite=overwrite)
    out.mkdir(exist_ok=True)  # the extracted stores come first
    return tuple(files)


def _require_methods(experiment: Experiment, methods: list[Method]) -> None:
    """Refuse a comparison whose one side is missing."""
    if experiment.table is not TABLE_9:
        return
    names = [one.name for one in methods]
    if SCRATCH not in names:
        raise ConfigError(
            "Table 9 is about a network trained with GML from scratch, and none is given. Make "
            f"one with: {MAKE_SCRATCH}."
        )
    if len(names) == 1:
        raise ConfigError(
            "Table 9 compares GML from scratch with GML on a published method, and none is given: "
            "add --checkpoint CE=FILE, PaCo=FILE or both."
        )


def _evidence(
    experiment: Experiment,
    methods: list[Method],
    config: FitConfig,
    n_seeds: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Evidence:
    """Every classifier's hits on the test images."""
    hits: dict[str, Bools] = {}
    for one in methods:
        kinds = distinct_kinds(experiment.kinds_of(one.name), config)
        hits |= hits_of(one, kinds, config, n_seeds, say, warn)
    store, test = methods[0].store, methods[0].test
    return Evidence(test.labels, store.class_names, store.class_counts, hits, test.n_failed)


def _claims(
    experiment: Experiment, methods: list[Method], evidence: Evidence, config: FitConfig
) -> ClaimList:
    """The paper's claims about the methods given."""
    names = tuple(one.name for one in methods)
    on_val = tuple(one.name for one in methods if one.has_val)
    return experiment.claims(
        Given(
            names, on_val, evidence.class_counts, evidence.class_samples, no_resampling(config)
        )
    )  # fmt: skip


def _views(method: Method, experiment: Experiment, config: FitConfig) -> ViewCounts:
    """ViewCounts of a method's images that its numbers come from."""
    n_views = method.store["train"].n_views if config.views else 0
    fitted = fits_heads(experiment.kinds_of(method.name))
    return ViewCounts(n_views if fitted else None, method.test.test_views)


def _provenance(methods: list[Method], replicates: int) -> dict[str, Any]:
    """Stores, settings and versions behind the numbers, as JSON values."""
    return {
        "stores": {one.name: one.store.identity.to_json() for one in methods},
        "replicates": replicates,
        "versions": versions(),
    }


def _write(result: Reproduction, out: Path, *, overwrite: bool) -> None:
    """Markdown, JSON and, of a figure, the picture with the first seed's recalls."""
    names = [path.name for path in result.files]
    with whole_files(out, names, overwrite=overwrite) as made:
        if result.experiment.draws:
            from pipeline.figures import recall_bars  # matplotlib loads for half a second

            scores = {label: result.evidence.scores(label) for label in result.evidence.hits}
            recall_bars(scores, result.evidence.class_counts, made / names[2])
        text = json.dumps(result.to_json(), indent=2, allow_nan=False)
        (made / names[0]).write_text(markdown(result), encoding="utf-8", newline="")
        (made / names[1]).write_text(f"{text}\n", encoding="utf-8", newline="")


__all__ = ["Inputs", "Reproduction", "reproduce"]
