"""What a head was balanced on decides what it is scored on, and is told wherever it is scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache import Store
from pipeline import (
    average_heads,
    balance_head,
    evaluate,
    load_head,
    make_report,
    pool_of_store,
    save_head,
    score_balanced,
    sweep_temps,
)
from pipeline.config import SweepConfig
from pipeline.errors import HeadError
from pipeline.heads import Head
from pipeline.seen_views import sees_test_views
from tests.commands import nolb
from tests.left_behind import drawn_features, made_store, saved_head

GRID = SweepConfig(
    t_old=(1.0, 2.0), t_new=(1.0, 2.0), split="test", replicates=0, threads=1
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """400 test images with three test views each, and `val` without any."""
    views = np.stack([drawn_features(seed=seed)[0] for seed in (11, 12, 13)])
    return made_store(tmp_path, views={"test": views})


@pytest.fixture
def head(store: Store, tmp_path: Path) -> Head:
    return load_head(saved_head(store, tmp_path / "new.safetensors"))


def balanced(head: Head, store: Store, *, test_views: bool, split: str = "test") -> Head:
    return balance_head(head, pool_of_store(store, head, split, test_views=test_views)).head


@pytest.mark.parametrize("averages", [False, True])
def test_a_balanced_head_is_scored_on_what_it_was_balanced_on(
    store: Store, head: Head, averages: bool
) -> None:
    one, n = balanced(head, store, test_views=averages), 3 * averages
    by_hand = {how: evaluate(store, one, test_views=how) for how in (True, False)}
    # Else the choice between them could not be seen.
    assert by_hand[True].recalls != by_hand[False].recalls
    for of in (one, average_heads([one, one])):
        assert of.provenance.balanced_for == n
        scores = evaluate(store, of)
        assert (scores.test_views, scores.recalls) == (n, by_hand[averages].recalls)
        swept = sweep_temps(store, of, GRID)
        assert swept.test_views == n
        assert swept.test_scores == evaluate(store, of, t_old=1, t_new=1, test_views=averages)
        content = make_report(store, of, sweep=swept).content
        assert {each.scores.test_views for each in content.contenders} == {n}
        assert content.new.scores.recalls == scores.recalls
        assert content.old.scores == evaluate(store, test_views=averages)
        again = pool_of_store(store, of)
        by_folds = score_balanced(store, of, again)
        assert again.test_views == by_folds.balanced.test_views == n
        assert by_folds.before == scores
    assert evaluate(store, head).test_views == 3


def test_what_is_asked_for_comes_first(store: Store, head: Head) -> None:
    alone = balanced(head, store, test_views=False)
    assert evaluate(store, alone, test_views=True).test_views == 3
    assert sweep_temps(store, alone, replace(GRID, test_views=True)).test_views == 3
    assert make_report(store, alone, test_views=True).content.test_views == 3
    both = [alone, balanced(head, store, test_views=True)]
    for asked in (True, False):
        assert sees_test_views(both, asked) is asked


def test_heads_that_answer_together(store: Store, head: Head) -> None:
    alone, averaged = (balanced(head, store, test_views=how) for how in (False, True))
    # One that was not balanced goes along, as the old one does.
    assert evaluate(store, [alone, head]).test_views == 0
    assert evaluate(store, [averaged, head]).test_views == 3
    for score in (
        lambda heads: evaluate(store, heads),
        lambda heads: sweep_temps(store, heads, GRID),
        average_heads,
    ):
        told = "differently, one for the clean image alone and one for the mean feature of 4 views"
        with pytest.raises(HeadError, match=told):
            score([alone, averaged])
    assert evaluate(store, [alone, averaged], test_views=False).test_views == 0
    # A head without a weight has no say.
    assert evaluate(store, [alone, averaged], weights=(1, 0, 1)).test_views == 3
    assert evaluate(store, [alone, averaged], weights=(1, 1, 0)).test_views == 0
    # Where there are no test views, nothing is to be decided.
    assert evaluate(store, [alone, averaged], split="val").test_views == 0


def test_an_average_is_balanced_for_what_its_heads_were(store: Store, head: Head) -> None:
    alone = balanced(head, store, test_views=False)
    assert head.provenance.balanced_for is None
    assert average_heads([head, head]).provenance.balanced_for is None
    nested = average_heads([head, average_heads([alone, head])])
    assert nested.provenance.balanced_for == 0
    # Balanced after that, it is for the images of the last time.
    assert balanced(nested, store, test_views=True).provenance.balanced_for == 3


SEEN = "was balanced on these images (test), without their labels"


@pytest.fixture
def paths(store: Store, head: Head, tmp_path: Path) -> dict[str, Path]:
    """Heads: as it was fitted, balanced on clean images, and the mean of both."""
    alone = balanced(head, store, test_views=False)
    heads = {"new": head, "alone": alone, "mean": average_heads([alone, head])}
    for name, each in heads.items():
        save_head(each, tmp_path / f"{name}.safetensors", overwrite=True)
    return {name: tmp_path / f"{name}.safetensors" for name in heads}


def test_every_command_says_that_a_head_has_seen_the_images(
    store: Store, paths: dict[str, Path], tmp_path: Path
) -> None:
    for name, path in paths.items():
        tells = name != "new"
        scored = nolb("evaluate", store.path, path).output
        assert (f"note           {path} {SEEN};" in scored) == tells
        sweep, page = tmp_path / f"{name}-sweep", tmp_path / f"{name}.html"
        swept = nolb(
            "sweep-temps", store.path, path, "--out", sweep, "--t-old", "1,2", "--t-new", "1,2",
            "--cross-fit", 2, "--replicates", 0,
        ).output  # fmt: skip
        told = f"The new head {SEEN}, all of them, although cross-fitting holds some back"
        assert (told in swept) == tells
        warnings = json.loads((sweep / "sweep.json").read_text())["warnings"]
        assert any(SEEN in each for each in warnings) == tells
        shown = nolb(
            "report", store.path, path, "--out", page, "--no-plane", "--also", tmp_path / name,
            "--json", tmp_path / f"{name}.json",
        ).output  # fmt: skip
        notes = json.loads((tmp_path / f"{name}.json").read_text())["notes"]
        markdown = (tmp_path / name / "improvement.md").read_text(encoding="utf-8")
        for text in (shown, page.read_text(encoding="utf-8"), markdown, " ".join(notes)):
            assert (SEEN in text) == tells
        folded = nolb(
            "balance-head", path, store.path, "--folds", 2, "--out", tmp_path / "again.safetensors",
            "--overwrite",
        ).output  # fmt: skip
        assert (f"{path} was already balanced on these images" in folded) == tells


def test_a_sweep_tells_of_the_split_that_chose_and_of_the_one_it_is_judged_on(
    store: Store, head: Head
) -> None:
    config = replace(GRID, split="val")
    for split in ("val", "test"):
        heads = [head, balanced(head, store, test_views=False, split=split)]
        warnings = sweep_temps(store, heads, config).warnings
        assert any(f"New head 2 was balanced on these images ({split})" in w for w in warnings)
        assert not any("New head 1" in each for each in warnings)


def test_what_scores_are_of_is_said_in_words(
    store: Store, paths: dict[str, Path], head: Head
) -> None:
    for name in ("alone", "mean"):
        said = nolb("evaluate", store.path, paths[name]).output
        assert "mean feature of" not in said
        assert "was balanced on the clean image alone, so these scores are of it alone" in said
        asked = nolb("evaluate", store.path, paths[name], "--test-views").output
        assert "mean feature of 4 views each" in asked
        assert "on which it predicts; these scores are of the mean feature of 4 views." in asked
    averaged = paths["new"].with_name("averaged.safetensors")
    save_head(balanced(head, store, test_views=True), averaged)
    plain = nolb("evaluate", store.path, averaged, "--no-test-views").output
    assert "on the mean feature of 4 views, on which it predicts; these scores are of the" in plain
    # Everything in one table sees the same, the heads that go along and the old one.
    together = nolb("evaluate", store.path, paths["new"], paths["alone"]).output
    assert "mean feature of" not in together


def test_a_mean_that_is_balanced_in_part_is_told(paths: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    said = nolb("average-heads", paths["alone"], paths["new"], "--out", out).output
    assert "Balanced on the clean image alone: it is scored and predicts on that." in said
    assert f"{paths['new']} was not balanced, the others were: average the heads before" in said
    said = nolb("average-heads", paths["alone"], paths["alone"], "--out", out, "--overwrite").output
    assert "Balanced on the clean image alone" in said
    assert "not balanced" not in said
    said = nolb("average-heads", paths["new"], paths["new"], "--out", out, "--overwrite").output
    assert "Balanced" not in said


@pytest.mark.parametrize("weights", ["1", "1,2,3"])
def test_weights_that_no_ensemble_has(store: Store, paths: dict[str, Path], weights: str) -> None:
    said = nolb("evaluate", store.path, paths["new"], "--weights", weights, code=1).output
    assert "needs 2 weights, each 0 or more and at least one above 0" in said
    said = nolb("evaluate", store.path, paths["new"], "--weights", "0,0", code=2).output
    assert "'0,0' is no list of weights" in said
    assert nolb("evaluate", store.path, paths["new"], "--weights", "0,1")
