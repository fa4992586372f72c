from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cache import Store
from pipeline.config import FitConfig, SweepConfig
from pipeline.ensemble import mixture_predictions
from pipeline.errors import EvaluationError, HeadError, OutputExistsError
from pipeline.metrics import score
from pipeline.progress import Snapshot
from pipeline.provenance import Fitted
from pipeline.stages.evaluate import evaluate
from pipeline.stages.sweep_temps import sweep_temps
from pipeline.sweeping.files import save_sweep
from pipeline.sweeping.selection import stratified_folds
from pipeline.sweeping.sweep import COLUMNS, Sweep, choose
from tests.made_sweeps import made_sweep
from tests.measured_stores import planted_head, planted_store

GRID = SweepConfig(t_old=(0.5, 1.0, 2.0, 4.0), t_new=(0.25, 1.0, 3.0), replicates=100, threads=1)
N_CLASSES = 5

pytestmark = pytest.mark.usefixtures("quick_pictures")


def store_with(folder: Path, *splits: str, seed: int = 0) -> Store:
    """Noisy features around one corner for each class; two rows of each split have failed."""
    rng = np.random.default_rng(seed)
    planted = {}
    for name in ("train", *splits):
        labels = rng.integers(0, N_CLASSES, 60)
        planted[name] = (2 * np.eye(N_CLASSES)[labels] + rng.normal(size=(60, N_CLASSES)), labels)
    failures = {name: {3: "torn", 59: "torn"} for name in planted}
    return planted_store(folder, planted, failures=failures)


def noisy_weight(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.diag([0.5, 1, 1, 2, 3]) + rng.normal(0, 0.3, (N_CLASSES, N_CLASSES))


@pytest.fixture
def tested(tmp_path: Path) -> Store:
    return store_with(tmp_path, "test")


@pytest.fixture
def validated(tmp_path: Path) -> Store:
    return store_with(tmp_path, "val", "test")


def flat_sweep(**planes: object) -> Sweep:
    """A sweep of 3 x 3 cells whose planes are flat unless given."""
    return made_sweep([0.5, 1, 2], [0.5, 1, 2], **planes)


def test_every_cell_equals_evaluating_it_on_its_own(
    tested: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.scored.READ_BYTES", 1)  # 16 rows at a time
    head = planted_head(tested, noisy_weight())
    sweep = sweep_temps(tested, head, GRID)
    split = tested["test"]
    keep = split.usable
    old, new = split.logits()[keep], head.logits(split.features()[keep])
    cells = iter(sweep.cells())
    for i, t_old in enumerate(GRID.t_old):
        for j, t_new in enumerate(GRID.t_new):
            predictions = mixture_predictions((old, new), (t_old, t_new))
            naive = score(predictions, split.labels[keep], tested.class_counts, tested.class_names)
            cell = next(cells)
            assert (cell["t_old"], cell["t_new"]) == (t_old, t_new)
            for name in (*COLUMNS[2:6], "substituted_zeros"):
                assert cell[name] == pytest.approx(getattr(naive, name)), (name, i, j)
            assert cell["lowest_class"] == naive.lowest_class
            assert {name: cell[name] for name in naive.groups} == naive.groups
    assert (sweep.n_samples, sweep.n_failed) == (58, 2)


def test_without_val_the_grid_is_of_test_and_one_one_is_kept(tested: Store) -> None:
    sweep = sweep_temps(tested, planted_head(tested, noisy_weight()), GRID)
    assert (sweep.split, sweep.chosen, sweep.chosen_on) == ("test", (1.0, 1.0), None)
    assert sweep.warnings == ()
    assert sweep.test_scores is not None
    assert sweep.test_scores.temperatures == (1.0, 1.0)
    assert sweep.test_scores.accuracy == sweep.accuracy[1, 1]


def test_with_val_the_best_cell_is_chosen_there_and_reported_on_test(validated: Store) -> None:
    head = planted_head(validated, noisy_weight())
    sweep = sweep_temps(validated, head, GRID)
    assert (sweep.split, sweep.chosen_on) == ("val", "val")
    i, j = GRID.t_old.index(sweep.chosen[0]), GRID.t_new.index(sweep.chosen[1])
    assert sweep.harmonic_mean[i, j] == sweep.harmonic_mean.max()
    assert sweep.test_scores is not None
    assert (sweep.test_scores.split, sweep.test_scores.temperatures) == ("test", sweep.chosen)


def test_test_labels_have_no_say_in_the_choice(tmp_path: Path) -> None:
    # The same val under another test split: the choice stays.
    rng = np.random.default_rng(5)
    labels = rng.integers(0, N_CLASSES, 60)
    val = (2 * np.eye(N_CLASSES)[labels] + rng.normal(size=(60, N_CLASSES)), labels)
    train = (np.eye(N_CLASSES), np.arange(N_CLASSES))
    chosen = set()
    for test_labels in (labels, (labels + 1) % N_CLASSES):
        store = planted_store(tmp_path, {"train": train, "val": val, "test": (val[0], test_labels)})
        chosen.add(sweep_temps(store, planted_head(store, noisy_weight()), GRID).chosen)
    assert len(chosen) == 1


def test_a_split_asked_for_by_name_is_measured_but_only_val_chooses(validated: Store) -> None:
    head = planted_head(validated, noisy_weight())
    for split in ("test", "train"):
        sweep = sweep_temps(validated, head, dataclasses.replace(GRID, split=split))
        assert (sweep.split, sweep.chosen, sweep.chosen_on) == (split, (1.0, 1.0), None)


def test_the_best_harmonic_mean_wins_then_the_lowest_recall_then_the_nearest() -> None:
    better = np.full((3, 3), 10.0)
    better[0, 2] = 11.0
    assert choose(flat_sweep(harmonic_mean=better)).chosen == (0.5, 2.0)
    # Rounding of the last bits is a tie, and the lowest recall decides it.
    almost = np.full((3, 3), 10.0)
    almost[0, 0] += 1e-13
    assert choose(flat_sweep(harmonic_mean=almost, lowest_recall=better)).chosen == (0.5, 2.0)
    assert choose(flat_sweep(harmonic_mean=almost)).chosen == (1.0, 1.0)


def test_a_choice_on_the_edge_of_the_grid_is_reported() -> None:
    better = np.full((3, 3), 10.0)
    better[1, 2] = 11.0
    (warning,) = choose(flat_sweep(harmonic_mean=better)).warnings
    assert warning.startswith("The best t_new = 2 lies on the edge of the grid (0.5 to 2)")
    assert choose(flat_sweep()).warnings == ()


def test_a_grid_of_one_value_has_no_edge() -> None:
    one = np.full((1, 3), 10.0)
    sweep = made_sweep([2.0], [0.5, 1, 2], harmonic_mean=one, lowest_recall=one)
    assert choose(sweep).warnings == ()


def test_grids_are_sorted_and_doubles_dropped(tested: Store) -> None:
    head = planted_head(tested, noisy_weight())
    sweep = sweep_temps(tested, head, SweepConfig(t_old=(3.0, 1.0, 3.0), t_new=(2.0,)))
    assert sweep.t_old.tolist() == [1.0, 3.0]
    assert sweep.accuracy.shape == (2, 1)


def test_progress_counts_the_usable_rows(tested: Store) -> None:
    seen: list[Snapshot] = []
    sweep_temps(tested, planted_head(tested, noisy_weight()), GRID, on_progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (58, 58)


def test_csv_begins_with_the_contracts_columns_and_holds_every_cell(
    tested: Store, tmp_path: Path
) -> None:
    sweep = sweep_temps(tested, planted_head(tested, noisy_weight()), GRID)
    written = save_sweep(sweep, tmp_path / "out")
    names = ["sweep.csv", "sweep.json", "sweep.md", "sweep-heatmaps.png"]
    assert [path.name for path in written] == names
    text = written[0].read_text(encoding="utf-8")
    assert text.startswith("t_old,t_new,accuracy,geometric_mean,harmonic_mean,lowest_recall,")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 12
    assert [float(r["t_new"]) for r in rows[:4]] == [0.25, 1.0, 3.0, 0.25]
    assert float(rows[4]["accuracy"]) == pytest.approx(sweep.accuracy[1, 1])
    assert rows[0]["split"] == "test"
    assert rows[0]["many"] == ""  # no class has more than 100 images


def test_json_is_plain_and_carries_where_it_comes_from(tested: Store, tmp_path: Path) -> None:
    sweep = sweep_temps(tested, planted_head(tested, noisy_weight()), GRID)
    save_sweep(sweep, tmp_path)
    content = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(sweep.to_json(), allow_nan=False))
    assert content["chosen"] == {"t_old": 1.0, "t_new": 1.0}
    assert content["chosen_on"] is None
    assert len(content["cells"]) == 12
    assert content["provenance"]["store"]["model"]["family"] == "planted"
    assert content["provenance"]["head"] == Fitted(FitConfig()).to_json()


def test_existing_results_are_left_alone_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "sweep.csv").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"sweep\.csv exists already"):
        save_sweep(flat_sweep(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.csv"]
    assert (tmp_path / "sweep.csv").read_text() == "mine"
    save_sweep(flat_sweep(), tmp_path, overwrite=True)
    assert (tmp_path / "sweep.csv").read_text().startswith("t_old")


def test_a_failure_while_drawing_leaves_old_results_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_sweep(flat_sweep(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("pipeline.figures.temperature_heatmaps", fail)
    with pytest.raises(OSError, match="no space"):
        save_sweep(flat_sweep(accuracy=np.ones((3, 3))), tmp_path, overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputExistsError, match="is a file"):
        save_sweep(flat_sweep(), tmp_path / "out", overwrite=True)


def test_a_missing_split_and_a_foreign_head_are_refused(tested: Store) -> None:
    head = planted_head(tested, noisy_weight())
    with pytest.raises(EvaluationError, match="no split 'val'"):
        sweep_temps(tested, head, dataclasses.replace(GRID, split="val"))
    foreign = dataclasses.replace(head.identity, backbone="f" * 64)
    with pytest.raises(HeadError, match="backbone"):
        sweep_temps(tested, dataclasses.replace(head, identity=foreign), GRID)


def test_cross_fitting_scores_every_row_at_temperatures_that_others_chose(tested: Store) -> None:
    config = dataclasses.replace(GRID, cross_fit=3)
    sweep = sweep_temps(tested, planted_head(tested, noisy_weight()), config)
    assert (sweep.split, sweep.chosen_on) == ("test", "test")
    assert sweep.cross_fit is not None
    assert len(sweep.cross_fit.folds) == 3
    assert sweep.test_scores == sweep.cross_fit.scores
    assert sweep.test_scores.n_samples == 58
    split = tested["test"]
    labels = split.labels[split.usable]
    features = split.features()[split.usable]
    old, new = split.logits()[split.usable], planted_head(tested, noisy_weight()).logits(features)
    fold = stratified_folds(labels, 3, seed=0)
    hits = [
        np.sum(
            mixture_predictions((old[fold == f], new[fold == f]), sweep.cross_fit.folds[f])
            == labels[fold == f]
        )
        for f in range(3)
    ]
    assert sweep.test_scores.accuracy == pytest.approx(100 * sum(hits) / 58)


def test_a_held_out_label_has_no_say_in_its_own_folds_choice(tmp_path: Path) -> None:
    # Whatever the labels of fold 0 say, the temperatures it is scored with stay the same.
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(N_CLASSES), 12)
    features = 2 * np.eye(N_CLASSES)[labels] + rng.normal(size=(60, N_CLASSES))
    fold = stratified_folds(labels, 3, seed=0)
    swapped = features.copy()
    swapped[fold == 0] = features[fold == 0][:, ::-1]
    chosen = []
    for values in (features, swapped):
        store = planted_store(
            tmp_path, {"train": (np.eye(N_CLASSES), np.arange(N_CLASSES)), "test": (values, labels)}
        )
        for choice in ("harmonic-mean", "nll"):
            config = dataclasses.replace(GRID, cross_fit=3, choose=choice, replicates=0)
            sweep = sweep_temps(store, planted_head(store, noisy_weight()), config)
            assert sweep.cross_fit is not None
            chosen.append(sweep.cross_fit.folds[0])
    assert chosen[:2] == chosen[2:]


def test_the_likelihood_chooses_each_heads_own_temperature(validated: Store) -> None:
    head = planted_head(validated, noisy_weight())
    config = dataclasses.replace(GRID, choose="nll", calibration=True)
    sweep = sweep_temps(validated, head, config)
    assert (sweep.chosen_on, sweep.chosen_by) == ("val", "nll")
    assert sweep.chosen[0] in sweep.t_old
    assert sweep.chosen[1] in sweep.t_new
    assert sweep.calibration is not None
    assert (sweep.calibration.fitted_on, sweep.calibration.split) == ("val", "test")
    assert set(sweep.calibration.before) == {"old", "new", "ensemble"}
    assert sweep.nll is not None
    assert sweep.nll.shape == sweep.accuracy.shape


def test_the_likelihood_never_chooses_silently_on_test(tested: Store) -> None:
    config = dataclasses.replace(GRID, choose="nll")
    sweep = sweep_temps(tested, planted_head(tested, noisy_weight()), config)
    assert (sweep.chosen, sweep.chosen_on) == ((1.0, 1.0), None)
    assert "--cross-fit" in sweep.warnings[0]


def test_refinement_adds_temperatures_around_the_best_and_can_only_gain(validated: Store) -> None:
    head = planted_head(validated, noisy_weight())
    coarse = sweep_temps(validated, head, GRID)
    fine = sweep_temps(validated, head, dataclasses.replace(GRID, refine=2))
    assert set(coarse.t_old) < set(fine.t_old)
    assert fine.harmonic_mean.max() >= coarse.harmonic_mean.max()
    assert fine.chosen_on == "val"


def test_several_heads_share_an_axis_and_each_cell_is_their_weighted_mean(tested: Store) -> None:
    heads = [planted_head(tested, noisy_weight(seed)) for seed in range(3)]
    weights = (2.0, 1.0, 1.0, 0.5)
    config = dataclasses.replace(GRID, weights=weights)
    sweep = sweep_temps(tested, heads, config)
    split = tested["test"]
    keep = split.usable
    logits = [split.logits()[keep], *(h.logits(split.features()[keep]) for h in heads)]
    for i, t_old in enumerate(GRID.t_old):
        for j, t_new in enumerate(GRID.t_new):
            predictions = mixture_predictions(logits, (t_old, t_new, t_new, t_new), weights)
            hits = np.mean(predictions == split.labels[keep])
            assert sweep.accuracy[i, j] == pytest.approx(100 * hits)
    scores = evaluate(tested, heads, t_old=2.0, t_new=3.0, weights=weights)
    assert scores.accuracy == pytest.approx(sweep.accuracy[2, 2])
    assert sweep.bootstrap is not None
    assert set(sweep.bootstrap.values) == {"ensemble", "old", "new 1", "new 2", "new 3"}


def test_weights_of_another_number_of_heads_are_refused(tested: Store) -> None:
    head = planted_head(tested, noisy_weight())
    with pytest.raises(EvaluationError, match="ensemble of 2 heads"):
        sweep_temps(tested, head, dataclasses.replace(GRID, weights=(1.0, 1.0, 1.0)))


def test_the_choice_is_judged_on_test_with_intervals(validated: Store) -> None:
    sweep = sweep_temps(validated, planted_head(validated, noisy_weight()), GRID)
    assert sweep.bootstrap is not None
    assert sweep.bootstrap.split == "test"
    assert sweep.test_scores is not None
    found = sweep.bootstrap.values["ensemble"]["harmonic_mean"]
    assert found.value == pytest.approx(sweep.test_scores.harmonic_mean)
    assert found.low <= found.value <= found.high
    assert set(sweep.bootstrap.differences) >= {"old", "new"}


def test_the_region_within_the_noise_holds_the_best_cell(validated: Store) -> None:
    sweep = sweep_temps(validated, planted_head(validated, noisy_weight()), GRID)
    assert sweep.noise is not None
    best = np.unravel_index(sweep.harmonic_mean.argmax(), sweep.harmonic_mean.shape)
    assert sweep.noise.mask[best]
    assert 0 < sweep.noise.share <= 100
    assert sweep.noise.t_old[0] <= sweep.noise.best[0] <= sweep.noise.t_old[1]


def test_table_seven_is_one_of_the_files(tested: Store, tmp_path: Path) -> None:
    config = SweepConfig(t_old=(1.0, 2.0), t_new=(1.0, 2.0, 3.0), replicates=0, calibration=True)
    sweep = sweep_temps(tested, planted_head(tested, noisy_weight()), config)
    names = {path.name for path in save_sweep(sweep, tmp_path)}
    assert names == {"sweep.csv", "sweep.json", "sweep.md", "sweep-heatmaps.png", "reliability.png"}
    lines = (tmp_path / "sweep.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| t_old | t_new | Geometric mean | Harmonic mean | Lowest recall |  |"
    assert [line[:9] for line in lines[2:8]] == [
        "| 1 | 1 |", "| 1 | 2 |", "| 1 | 3 |", "| 2 | 1 |", "| 2 | 2 |", "| 2 | 3 |"
    ]  # fmt: skip
    columns = next(csv.reader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert columns[-2:] == ["nll", "ece"]


def test_one_thread_and_several_little_memory_and_much_give_the_same(tested: Store) -> None:
    head = planted_head(tested, noisy_weight())
    one = sweep_temps(tested, head, GRID)
    other = sweep_temps(tested, head, dataclasses.replace(GRID, threads=3, memory="256MiB"))
    assert one.to_json() == other.to_json()
