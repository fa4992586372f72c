"""The plane of a report: of a sweep in memory or in its folder, of the same store and head."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import FitConfig, SweepConfig
from pipeline.errors import EvaluationError
from pipeline.metrics import count_hits
from pipeline.mixture import Mixture
from pipeline.provenance import Fitted
from pipeline.reporting import hits_of_cells, plane, sweep_of
from pipeline.scored import ScoredSplit
from pipeline.stages.sweep_temps import sweep_temps
from pipeline.sweeping.files import save_sweep
from tests.measured_stores import planted_head
from tests.reporting.reported import LABELS, NAMES, reported_head, reported_store

CONFIG = SweepConfig(t_old=(0.5, 1, 4), t_new=(1, 2), replicates=0)


def test_a_sweep_is_the_same_from_its_folder_and_from_memory(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    sweep = sweep_temps(store, head, CONFIG)
    save_sweep(sweep, tmp_path / "sweep")
    assert sweep_of(sweep, store, head) is sweep
    found = sweep_of(tmp_path / "sweep", store, head)
    assert found.to_json() == sweep.to_json()
    np.testing.assert_array_equal(found.lowest_class, sweep.lowest_class)


def test_hits_of_a_cell_are_those_of_the_ensemble_at_its_temperatures(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    found = hits_of_cells(sweep_temps(store, head, CONFIG), store, head)
    assert found is not None
    for i, t_old in enumerate(CONFIG.t_old):
        for j, t_new in enumerate(CONFIG.t_new):
            predictions = ScoredSplit(store, "test").predictions([head], Mixture((t_old, t_new)))
            wanted = count_hits(predictions, LABELS, len(NAMES))
            np.testing.assert_array_equal(found.hits[i, j], wanted)


def test_too_many_recalls_for_a_page_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    sweep = sweep_temps(store, head, CONFIG)
    monkeypatch.setattr(plane, "MOST_HITS", 3 * 2 * 4 - 1)
    assert hits_of_cells(sweep, store, head) is None


def test_recalls_that_other_rules_made_are_left_out(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    weighed = sweep_temps(store, head, dataclasses.replace(CONFIG, weights=(1.0, 9.0)))
    assert hits_of_cells(weighed, store, head) is None


def test_a_sweep_of_another_head_or_store_is_refused(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    sweep = sweep_temps(store, head, CONFIG)
    other = planted_head(store, np.eye(4))
    object.__setattr__(other, "provenance", Fitted(FitConfig(loss="focal")))
    with pytest.raises(EvaluationError, match="settings of the head"):
        sweep_of(sweep, store, other)
    elsewhere = json.loads(json.dumps(dict(sweep.provenance)))
    elsewhere["store"]["checkpoint"] = "f" * 64
    with pytest.raises(EvaluationError, match="checkpoint"):
        sweep_of(dataclasses.replace(sweep, provenance=elsewhere), store, head)
    with pytest.raises(EvaluationError, match="class_names"):
        sweep_of(dataclasses.replace(sweep, class_names=("a", "b", "c", "d")), store, head)
    two = sweep_temps(store, [head, head], CONFIG)
    with pytest.raises(EvaluationError, match="several new heads, where a report shows one"):
        sweep_of(two, store, head)


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop("cells"),
        lambda c: c["cells"].pop(),
        lambda c: c.update(chosen=None),
        lambda c: c["cells"][0].update(lowest_class="nobody"),
        lambda c: c.update(provenance={}),
    ],
)
def test_a_damaged_sweep_is_an_error_of_one_sentence(tmp_path: Path, damage: Any) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    save_sweep(sweep_temps(store, head, CONFIG), tmp_path / "sweep")
    path = tmp_path / "sweep" / "sweep.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    damage(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        EvaluationError, match=r"sweep\.json .* run nolb sweep-temps again"
    ) as found:
        sweep_of(tmp_path / "sweep", store, head)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[1]", "\x00", '{"cells": 1e999}'])
def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path, text: str) -> None:
    store = reported_store(tmp_path)
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"sweep\.json (cannot be read|is no sweep)"):
        sweep_of(tmp_path, store, reported_head(store))


def test_a_folder_without_a_sweep_says_how_to_make_one(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    with pytest.raises(EvaluationError, match="nolb sweep-temps"):
        sweep_of(tmp_path, store, reported_head(store))


def test_a_column_that_is_new_here_is_shown_by_its_name(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    save_sweep(sweep_temps(store, head, CONFIG), tmp_path)
    content = json.loads((tmp_path / "sweep.json").read_text())
    for n, cell in enumerate(content["cells"]):
        cell |= {"later_metric": float(n), "later_word": "x"}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    found = sweep_of(tmp_path, store, head)
    assert found.more["later_metric"][1, 0] == 2.0
    assert list(found.more) == ["later_metric"]
