"""A sweep read back from its JSON: the same numbers, and one sentence for whatever is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import SweepConfig
from pipeline.errors import EvaluationError
from pipeline.stages.sweep_temps import sweep_temps
from pipeline.sweeping.sweep import Sweep
from tests.made_sweeps import made_sweep
from tests.measured_stores import planted_head, planted_store

N_CLASSES = 3


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The JSON of a sweep that has every part; the old head never finds the last class."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_CLASSES), 8)
    features = 2 * np.eye(N_CLASSES)[labels] + rng.normal(size=(24, N_CLASSES))
    store = planted_store(
        tmp_path_factory.mktemp("sweep"), {"train": (features, labels), "test": (features, labels)},
        failures={"test": {3: "torn"}},
    )  # fmt: skip
    heads = [planted_head(store, np.diag(row)) for row in ([0.5, 1, 3], [1, 1, 2])]
    config = SweepConfig(
        t_old=(1, 2), t_new=(0.5, 1, 3), cross_fit=2, calibration=True, replicates=100,
        weights=(2, 1, 1), choose="nll",
    )  # fmt: skip
    return json.loads(json.dumps(sweep_temps(store, heads, config).to_json(), allow_nan=False))


def test_what_is_read_back_writes_the_same(content: Any) -> None:
    found = Sweep.from_json(content)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == content
    assert found.calibration is not None
    assert found.bootstrap is not None
    assert found.noise is not None
    assert found.nll is not None
    assert found.cross_fit is not None
    assert len(found.cross_fit.folds) == 2
    assert found.mixture.weights == (2, 1, 1)


def test_planes_come_back_with_their_gaps() -> None:
    nll = np.array([[1.0, np.inf], [2.0, 3.0]])
    sweep = made_sweep([1, 2], [0.5, 1], more={"nll": nll}, lowest_class=np.array([[0, 1], [1, 1]]))
    found = Sweep.from_json(json.loads(json.dumps(sweep.to_json(), allow_nan=False)))
    assert np.isnan(found.groups["few"]).all()
    assert found.lowest_class.tolist() == [[0, 1], [1, 1]]
    assert found.nll is not None
    assert np.isnan(found.nll[0, 1])  # JSON has no infinity
    assert found.test_scores is None


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in JSON, the provenance's left out, which is of other writers."""
    if way:
        yield way
    if isinstance(value, dict):
        for key, inner in value.items():
            if (*way, key) != ("provenance",):
                yield from places(inner, (*way, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:2]):
            yield from places(inner, (*way, index))


def what_is_told(content: Any) -> str | None:
    """The error of reading it; None where it can be read and written again."""
    try:
        Sweep.from_json(content, "a.json").to_json()
    except EvaluationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("junk", ["x", True, {}, [], -1, 1e999, 10**400, None, [[1]], "gone"])
def test_any_value_is_read_or_told_in_one_sentence(content: Any, junk: Any) -> None:
    told = []
    for way in places(content):
        damaged = copy.deepcopy(content)
        inner = damaged
        for step in way[:-1]:
            inner = inner[step]
        if junk == "gone":
            del inner[way[-1]]
        else:
            inner[way[-1]] = junk
        told.append(what_is_told(damaged))
    assert sum(text is not None for text in told) > 20
    for text in filter(None, told):
        assert text.startswith("a.json is no sweep of this version (")
        assert text.endswith("): run nolb sweep-temps again.")
        assert "\n" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_old": [2, 1]}, "'t_old' of a.json must be one or more ascending numbers, not [2, 1]"),
        ({"t_new": [0, 1]}, "entry 1 of 't_new' of a.json must be above 0, not 0"),
        ({"cells": []}, "'cells' of a.json must be the"),
        ({"chosen": {"t_old": 1}}, "'chosen' of a.json misses 't_new'"),
        ({"n_samples": 2.5}, "'n_samples' of a.json must be a whole number, not 2.5"),
        ({"weights": [1, 1]}, "a.json cannot be used: 2 factors need a weight each"),
        ({"warnings": [1]}, "entry 1 of 'warnings' of a.json must be text, not 1"),
        ({"split": None}, "'split' of a.json must be text, not null"),
        (
            {"cells": [{"t_old": 1, "t_new": 0.5}]},
            "an entry of 'cells' of a.json misses 'accuracy'",
        ),
        ({"cross_fit": {"folds": [[1]]}}, "'cross_fit' of a.json misses 'scores'"),
        ({"noise": {}}, "'noise' of a.json misses 'best', 'share', 't_old'"),
    ],
)
def test_the_sentence_names_the_place_and_what_was_needed(
    content: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(EvaluationError) as found:
        Sweep.from_json(content | change, "a.json")
    assert message in str(found.value)


def test_what_is_no_object_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="must be an object, not a list"):
        Sweep.from_json([1])
