"""What a comparison varies must be able to matter under the recipe, or nothing is judged by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from cache import Store
from pipeline.config import FitConfig
from pipeline.config.fit import NOT_LEARNED, without_unused
from pipeline.errors import ConfigError, EvaluationError
from pipeline.reproduction import paper
from pipeline.reproduction.experiments import EXPERIMENTS
from pipeline.reproduction.fits import Method, fit_seeds, hits_of
from pipeline.reproduction.methods import Inputs, _require_several_networks
from pipeline.reproduction.results import Reproduction
from pipeline.reproduction.run import reproduce
from pipeline.reproduction.settings import (
    distinct_kinds,
    gml_config,
    plain_config,
    require_learned,
    resampled_config,
    seeds_of,
)
from pipeline.stages.fit_head import fit_head
from tests.measured_stores import planted_store

COUNTS = (105, 30, 10, 5)
FIT = FitConfig(epochs=2, batch_size=32, lr=0.5)
L_BFGS = FitConfig(epochs=2, solver="l-bfgs")
SETTINGS = {"gml": gml_config, "plain": plain_config, "resampled": resampled_config}

MakeStore = Callable[..., Store]
Run = Callable[..., Reproduction]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """A store of four classes with a long tail, whose old head prefers the first class."""

    def make(name: str, n_views: int = 0, checkpoint: str = "a") -> Store:
        rng = np.random.default_rng(0)
        train, test = np.repeat(np.arange(4), COUNTS), rng.integers(0, 4, 60)
        planted = {
            split: (np.eye(4)[labels] * 2 + rng.normal(size=(len(labels), 4)), labels)
            for split, labels in (("train", train), ("test", test))
        }
        views = {"train": np.stack([planted["train"][0]] * n_views)} if n_views else None
        folder = tmp_path / name
        folder.mkdir()
        return planted_store(
            folder, planted, weight=np.diag([3.0, 1, 0.5, 0.2]), views=views,
            checkpoint=checkpoint * 64,
        )  # fmt: skip

    return make


@pytest.fixture
def run(make_store: MakeStore, tmp_path: Path) -> Run:
    """One comparison of CE."""
    store = make_store("ce")

    def one(what: str, config: FitConfig, n_seeds: int = 2) -> Reproduction:
        inputs = Inputs(stores=[("CE", Path(store.path))])
        out = tmp_path / "out"
        return reproduce(
            what, inputs, out, config, n_seeds=n_seeds, replicates=100, overwrite=True
        )  # fmt: skip

    return one


def text_of(result: Reproduction) -> str:
    return result.files[0].read_text()


def json_of(result: Reproduction) -> Any:
    return json.loads(result.files[1].read_text())


def test_no_sampler_changes_heads_of_l_bfgs(make_store: MakeStore) -> None:
    # The premise of what follows: compared, the two would give a verdict on one head.
    hits = hits_of(Method("CE", make_store("ce")), ("plain", "resampled"), L_BFGS, 2)
    plain, resampled = hits.values()
    assert np.array_equal(plain, resampled)


def test_re_sampling_is_not_tested_with_l_bfgs(run: Run) -> None:
    result = run("table8", L_BFGS)
    assert [row.label for row in result.rows] == [paper.label_gml("CE"), paper.label_plain("CE")]
    untested = [f for f in result.findings if f.verdict == "not tested"]
    assert ["re-sampling" in f.words.lower() for f in untested] == [True, True]
    for finding in untested:
        assert finding.needs.startswith("Give a recipe with solver: sgd. This one has l-bfgs")
    tested = [f for f in result.findings if f.verdict != "not tested"]
    assert len(tested) == 3
    assert all("poor without re-weighting" in f.words for f in tested)
    assert len(run("table8", FIT).rows) == 3


@pytest.mark.parametrize("head", NOT_LEARNED)
@pytest.mark.parametrize("what", [name for name in paper.NAMES if name != "figure1"])
def test_heads_that_no_loss_changes_are_not_called_gml(what: str, head: Any, run: Run) -> None:
    with pytest.raises(ConfigError, match=rf"fits heads with GML, and {head} heads.* are not lea"):
        run(what, FitConfig(head=head))


def test_figure_1_fits_nothing_that_a_recipe_could_spoil(run: Run) -> None:
    result = run("figure1", FitConfig(head="nearest-mean", average_seeds=3), 1)
    assert {row.label for row in result.rows} == {"CE"}
    assert not any("seed" in note for note in result.notes[3:])


@pytest.mark.parametrize("sampler", ["class-balanced", "class-aware", "square-root", "progressive"])
def test_re_sampling_is_compared_with_none(sampler: Any, run: Run) -> None:
    config = replace(FIT, sampler=sampler)
    with pytest.raises(ConfigError, match=rf"already \(sampler: {sampler}\). Give one with sam"):
        run("table8", config)
    said = f"no re-sampling; the recipe has sampler: {sampler}."
    assert any(said in note for note in run("table6", config).notes)
    unused = run("table8", replace(L_BFGS, sampler=sampler))  # which has no effect here
    assert not any("the recipe has" in note for note in unused.notes)


def test_heads_that_are_compared_differ_in_what_decides_them() -> None:
    hints = get_type_hints(FitConfig)
    choices = [get_args(hints[name]) for name in ("loss", "head", "solver", "sampler")]
    n_accepted = 0
    for (loss, head, solver, sampler), experiment in product(
        product(*choices), EXPERIMENTS.values()
    ):
        config = FitConfig(loss=loss, head=head, solver=solver, sampler=sampler)
        try:
            require_learned(experiment.table.name, experiment.kinds, config)
        except ConfigError:
            continue
        n_accepted += 1
        fitted = [
            SETTINGS[kind] for kind in distinct_kinds(experiment.kinds, config) if kind in SETTINGS
        ]
        for method in ("CE", "MiSLAS"):
            for first, second in combinations(fitted, 2):
                assert without_unused(first(config, method)) != without_unused(
                    second(config, method)
                ), config
    assert n_accepted > 100


def test_averaged_heads_share_no_seed(make_store: MakeStore, run: Run) -> None:
    store, config = make_store("other"), replace(FIT, average_seeds=3, seed=5)
    heads = fit_seeds(store, config, 3, "CE + GML")
    assert [head.provenance.config.seed for head in heads] == [5, 8, 11]
    for head in heads:
        alone = fit_head(store, replace(config, seed=head.provenance.config.seed)).head
        np.testing.assert_allclose(head.weight, alone.weight, atol=1e-5)
    assert seeds_of(replace(FIT, seed=4), 3) == (4, 5, 6)
    result = run("table6", config, 3)
    assert json_of(result)["seeds"] == [5, 8, 11]
    assert "seeds 5 to 11 in steps of 3." in text_of(result)
    assert "Each head is the average of 3 seeds, and no two share one." in result.notes


def test_heads_that_no_seed_decides_are_fitted_once(run: Run) -> None:
    result = run("table6", replace(L_BFGS, head="learnable-scaling"), 4)
    assert json_of(result)["seeds"] == [0]
    assert all(f.measured is None or f.measured.seeds is None for f in result.findings)
    assert any("heads do not depend on the seed" in note for note in result.notes)
    assert not any("judge with" in note for note in result.notes)


def test_too_many_seeds_are_refused_before_anything_is_fitted(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2,001: give fewer"):
        run("table6", FIT, 2001)
    assert not (tmp_path / "out").exists()


def test_what_of_a_recipe_is_not_used_or_not_the_paper_s_is_said(run: Run) -> None:
    odd = replace(FIT, loss="balanced-softmax", reweight=False, head="cosine", power=2.0)
    result = run("table6", odd)
    unused = "Ignored from the recipe: loss: balanced-softmax, reweight: false; "
    assert any(note.startswith(unused) for note in result.notes)
    assert any("the recipe has head: cosine, power: 2." in note for note in result.notes)
    used = json_of(result)["config"]
    assert (used["loss"], used["reweight"], used["head"]) == ("gml", True, "cosine")
    assert not any("recipe" in note for note in run("table6", FIT).notes)


@pytest.mark.parametrize(
    ("n_seeds", "words"), [(1, "With one seed"), (2, "2 seeds may agree by chance"), (5, None)]
)
def test_few_seeds_are_not_much_to_judge_by(n_seeds: int, words: str | None, run: Run) -> None:
    found = [note for note in run("table6", FIT, n_seeds).notes if "use --seeds 5" in note]
    assert [note.startswith(words or "") for note in found] == [True] * (words is not None)


def test_fits_that_stopped_early_are_told(run: Run) -> None:
    notes = run("table8", replace(L_BFGS, epochs=1)).notes
    stopped = [note for note in notes if "2 of 2 fits stopped before they converged" in note]
    assert [note.split(":")[0] for note in stopped] == [
        paper.label_gml("CE"), paper.label_plain("CE"),
    ]  # fmt: skip
    assert not any("converged" in note for note in run("table8", FIT).notes)


def test_methods_of_other_views_are_told_apart(make_store: MakeStore, tmp_path: Path) -> None:
    stores = [
        ("CE", make_store("ce")), ("PaCo", make_store("paco", 2, "b")),
        ("scratch", make_store("scratch", 3, "c")),
    ]  # fmt: skip

    def notes(what: str, *names: str, views: bool = True) -> list[str]:
        inputs = Inputs(stores=[(name, Path(s.path)) for name, s in stores if name in names])
        result = reproduce(
            what, inputs, tmp_path / "out", replace(FIT, views=views), n_seeds=1, replicates=100,
            overwrite=True,
        )  # fmt: skip
        return [note for note in result.notes if "different views" in note]

    (note,) = notes("table6", "CE", "PaCo")
    assert "CE: no training views, one test view; PaCo: 2 training views, one test view" in note
    assert not notes("table6", "CE", "PaCo", views=False)
    # No head is fitted on the network from scratch.
    assert not notes("table9", "CE", "scratch")


def test_a_network_is_not_compared_with_itself(make_store: MakeStore, tmp_path: Path) -> None:
    twice = Inputs(stores=[(name, Path(make_store(name).path)) for name in ("CE", "BSCE")])
    with pytest.raises(EvaluationError, match="CE and BSCE are one and the same network"):
        reproduce("table6", twice, tmp_path / "out", FIT, n_seeds=1, replicates=100)
    identity = make_store("third").identity

    def compare(*names: str, **changes: Any) -> None:
        identities = identity, replace(identity, **changes)
        _require_several_networks(
            [Method(n, SimpleNamespace(identity=i)) for n, i in zip(names, identities, strict=True)]  # type: ignore[arg-type]  # only the identity is read
        )

    compare("CE", "CE with views", views={"train": {"count": 12}, "test": None})
    compare("CE", "cRT", classifier="d" * 64)  # a head of its own on CE's backbone
    with pytest.raises(EvaluationError, match="another as PaCo"):
        compare("CE", "PaCo", views={"train": {"count": 12}, "test": None})
    with pytest.raises(EvaluationError, match="another as mine"):
        compare("CE", "mine")
