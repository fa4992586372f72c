from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import SweepConfig
from pipeline.ensemble import predict_split
from pipeline.errors import EvaluationError
from pipeline.metrics import count_hits
from pipeline.reporting import grid, grid_of_sweep
from pipeline.stages.sweep_temps import save_sweep, sweep_temps
from tests.measured_stores import planted_head
from tests.reporting.reported import LABELS, NAMES, reported_head, reported_store

CONFIG = SweepConfig(t_old=(0.5, 1, 4), t_new=(1, 2))


def test_a_sweep_reads_the_same_from_its_folder_and_its_json(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    sweep = sweep_temps(store, head, CONFIG)
    save_sweep(sweep, tmp_path / "sweep")
    for source in (sweep.to_json(), tmp_path / "sweep"):
        found = grid_of_sweep(source, store, head)
        assert found.t_old.tolist() == [0.5, 1, 4]
        np.testing.assert_allclose(found.harmonic_mean, sweep.harmonic_mean)
        np.testing.assert_array_equal(found.lowest_class, sweep.lowest_class)
        assert (found.chosen, found.chosen_on, found.split) == ((1.0, 1.0), None, "test")


def test_hits_of_a_cell_are_those_of_the_ensemble_at_its_temperatures(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    found = grid_of_sweep(sweep_temps(store, head, CONFIG).to_json(), store, head)
    found = grid.with_hits(found, store, head)
    assert found.hits is not None
    for i, t_old in enumerate(CONFIG.t_old):
        for j, t_new in enumerate(CONFIG.t_new):
            predictions, _ = predict_split(store, "test", head, (t_old, t_new))
            wanted = count_hits(predictions, LABELS, len(NAMES))
            np.testing.assert_array_equal(found.hits[i, j], wanted)


def test_too_many_recalls_for_a_page_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    found = grid_of_sweep(sweep_temps(store, head, CONFIG).to_json(), store, head)
    monkeypatch.setattr(grid, "MOST_HITS", 3 * 2 * 4 - 1)
    assert grid.with_hits(found, store, head).hits is None


def test_a_sweep_of_another_head_or_store_is_refused(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    content = sweep_temps(store, head, CONFIG).to_json()
    other = planted_head(store, np.eye(4))
    object.__setattr__(other, "config", {"loss": "another"})
    with pytest.raises(EvaluationError, match="settings of the head"):
        grid_of_sweep(content, store, other)
    elsewhere = json.loads(json.dumps(content))
    elsewhere["provenance"]["store"]["checkpoint"] = "f" * 64
    with pytest.raises(EvaluationError, match="checkpoint"):
        grid_of_sweep(elsewhere, store, head)


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
    content = sweep_temps(store, head, CONFIG).to_json()
    damage(content)
    with pytest.raises(EvaluationError, match="sweep"):
        grid_of_sweep(content, store, head)


def test_a_folder_without_a_sweep_says_how_to_make_one(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    with pytest.raises(EvaluationError, match="nolb sweep-temps"):
        grid_of_sweep(tmp_path, store, reported_head(store))
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(EvaluationError, match="cannot be read"):
        grid_of_sweep(tmp_path, store, reported_head(store))


def test_a_column_that_is_new_here_is_shown_by_its_name(tmp_path: Path) -> None:
    store = reported_store(tmp_path)
    head = reported_head(store)
    content = sweep_temps(store, head, CONFIG).to_json()
    for n, cell in enumerate(content["cells"]):
        cell["later_metric"] = float(n)
    found = grid_of_sweep(content, store, head)
    assert found.metrics["later_metric"][1, 0] == 2.0
