"""The stage and the command `balance-head`: labels are not looked at, and bad input is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache import Store
from pipeline import balance_head, evaluate, load_head, pool_of_store, save_head, score_by_folds
from pipeline.balancing import balancing_shifts
from pipeline.cli import main
from pipeline.errors import EvaluationError
from pipeline.stages.balance_head import pool_of_images
from tests.exporting.exported import small_extraction
from tests.measured_stores import planted_head, planted_store

N_CLASSES = 4
LEFT_BEHIND = 3


def made_store(folder: Path, labels_of_test: np.ndarray | None = None) -> Store:
    """400 test images, 100 a class, unless others are given as their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % N_CLASSES
    features = 2 * np.eye(N_CLASSES)[labels] + rng.normal(size=(400, N_CLASSES))
    told = labels if labels_of_test is None else labels_of_test
    return planted_store(
        folder,
        {"train": (features[:40], labels[:40]), "test": (features, told)},
        failures={"test": {5: "broken"}},
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return made_store(tmp_path)


@pytest.fixture
def path(store: Store, tmp_path: Path) -> Path:
    """A head that hardly ever decides for the last class."""
    return saved_head(store, tmp_path / "new.safetensors")


def saved_head(store: Store, path: Path) -> Path:
    save_head(planted_head(store, 2 * np.eye(N_CLASSES), [0, 0, 0, -6]), path)
    return path


def test_the_class_left_behind_is_found_again(store: Store, path: Path) -> None:
    head = load_head(path)
    balanced = balance_head(head, pool_of_store(head, store))
    assert balanced.n_images == 399
    assert balanced.decided_before[LEFT_BEHIND] < 0.05
    assert balanced.decided_after[LEFT_BEHIND] > 0.2
    assert balanced.recalls_after[LEFT_BEHIND] > balanced.recalls_before[LEFT_BEHIND] + 30
    before, after = evaluate(store, head), evaluate(store, balanced.head)
    assert after.lowest_recall > before.lowest_recall + 50
    # The biases alone have moved, and the file says by what.
    assert np.array_equal(balanced.head.weight, head.weight)
    assert balanced.head.config["balanced"] == {"loss": "planted"}
    pool = balanced.head.config["pool"]
    assert isinstance(pool, dict)
    assert pool["images"] == 399
    assert pool["split"] == "test"


def test_labels_change_nothing(store: Store, path: Path, tmp_path: Path) -> None:
    other = made_store(tmp_path / "other", np.zeros(400, np.int64))
    heads = load_head(path), load_head(saved_head(other, tmp_path / "other.safetensors"))
    plain = balance_head(heads[0], pool_of_store(heads[0], store))
    blind = balance_head(heads[1], pool_of_store(heads[1], other))
    assert np.array_equal(plain.head.bias, blind.head.bias)


def test_folds_are_decided_by_the_others(store: Store, path: Path) -> None:
    head = load_head(path)
    scores = score_by_folds(head, store, n_folds=4, seed=2)
    logits = pool_of_store(head, store).logits
    labels = np.delete(np.arange(400) % N_CLASSES, 5)
    folds = np.random.default_rng(2).permutation(399) % 4
    hits = 0
    for fold in range(4):
        shifts = balancing_shifts(logits[folds != fold], np.full(N_CLASSES, 0.25))
        own = folds == fold
        hits += int(((logits[own] + shifts).argmax(axis=1) == labels[own]).sum())
    assert scores.accuracy == pytest.approx(100 * hits / 399)
    assert scores.n_failed == 1


def test_what_cannot_be_balanced_on(store: Store, path: Path) -> None:
    head = load_head(path)
    with pytest.raises(EvaluationError, match="balance it on others, as --split test"):
        pool_of_store(head, store, "train")
    with pytest.raises(EvaluationError, match="no split 'val'"):
        pool_of_store(head, store, "val")
    pool = pool_of_store(head, store)
    with pytest.raises(EvaluationError, match="4 classes needs the share of each, not 3"):
        balance_head(head, pool, [1, 2, 3])
    with pytest.raises(EvaluationError, match="share of class 'c1' is 0"):
        balance_head(head, pool, [1, 0, 3, 4])
    for n_folds in (1, 400):
        with pytest.raises(EvaluationError, match=f"2 to 399 folds, not {n_folds}"):
            score_by_folds(head, store, n_folds=n_folds)


def nolb(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_the_command(store: Store, path: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "balanced.safetensors", tmp_path / "told.json"
    said = nolb("balance-head", path, store.path, "--folds", 5, "--out", out, "--json", told).output
    assert "balanced  399 images, 4 classes -> " in said
    assert "Balanced by folds: each of 5 parts" in said
    assert "Note:" not in said
    content = json.loads(told.read_text())
    assert content["images"] == 399
    assert list(content["estimated_classes"]) == ["c0", "c1", "c2", "c3"]
    assert content["estimated_classes"]["c3"]["recall_after"] > 50
    by_folds = content["scores"]["balanced"]["lowest_recall"]
    assert by_folds > content["scores"]["before"]["lowest_recall"] + 50
    head = load_head(path)
    expected = balance_head(head, pool_of_store(head, store))
    assert np.array_equal(load_head(out).bias, expected.head.bias)
    again = nolb("balance-head", path, store.path, "--out", out, code=1)
    assert "exists already" in again.output


def test_the_command_without_labels_does_not_score(
    store: Store, path: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "balanced.safetensors", tmp_path / "told.json"
    said = nolb(
        "balance-head", path, store.path, "--out", out, "--json", told, "--mean", "arithmetic"
    ).output
    assert "Accuracy" not in said
    assert json.loads(told.read_text())["scores"] is None


def test_shares_of_the_classes(store: Store, path: Path, tmp_path: Path) -> None:
    head = load_head(path)
    out, shares = tmp_path / "balanced.safetensors", tmp_path / "shares.txt"
    shares.write_text("1\n1\n1\n5\n")
    nolb("balance-head", path, store.path, "--out", out, "--prior", shares)
    pool = pool_of_store(head, store)
    expected = balance_head(head, pool, [1, 1, 1, 5])
    assert np.array_equal(load_head(out).bias, expected.head.bias)
    nolb("balance-head", path, store.path, "--out", out, "--prior", "train", "--overwrite")
    expected = balance_head(head, pool, head.class_counts)
    assert np.array_equal(load_head(out).bias, expected.head.bias)
    shares.write_text("1 one 1 5")
    said = nolb("balance-head", path, store.path, "--out", out, "--overwrite", "--prior", shares, code=1)  # fmt: skip  # noqa: E501
    assert "one for each class" in said.output
    said = nolb("balance-head", path, store.path, "--out", out, "--overwrite", "--prior", "even", code=1)  # fmt: skip  # noqa: E501
    assert "even" in said.output
    # What was there is there still.
    assert np.array_equal(load_head(out).bias, expected.head.bias)


def test_few_images_are_told(tmp_path: Path) -> None:
    few = planted_store(
        tmp_path,
        {"train": (np.eye(4), np.arange(4)), "test": (np.eye(4)[[0, 1, 2, 3, 3]], [0] * 5)},
    )
    path = saved_head(few, tmp_path / "new.safetensors")
    said = nolb("balance-head", path, few.path, "--out", tmp_path / "out.safetensors").output
    assert "1.2 images a class are few to balance on" in said


def test_images_in_no_store_are_the_stores(tmp_path: Path) -> None:
    small = small_extraction(tmp_path)
    cached = balance_head(small.head, pool_of_store(small.head, small.store))
    head, out = tmp_path / "new.safetensors", tmp_path / "balanced.safetensors"
    save_head(small.head, head)
    (small.images / "ant" / "torn.png").write_bytes(b"no image")
    said = nolb(
        "balance-head", head, "--images", small.images, "--checkpoint", small.checkpoint,
        "--out", out,
    ).output  # fmt: skip
    assert "torn.png" in said
    assert "balanced  12 images, 3 classes" in said
    balanced = load_head(out)
    assert balanced.bias == pytest.approx(cached.head.bias, abs=1e-3)
    pool = balanced.config["pool"]
    assert isinstance(pool, dict)
    assert pool["split"] is None
    with pytest.raises(EvaluationError, match="None of the images could be used"):
        pool_of_images(small.head, [small.images / "ant" / "torn.png"], small.checkpoint)


def test_where_the_images_come_from_is_said_once(store: Store, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    neither = nolb("balance-head", path, "--out", out, code=2)
    assert "a STORE, or --images FOLDER" in neither.output
    both = nolb("balance-head", path, store.path, "--images", tmp_path, "--out", out, code=2)
    assert "a STORE, or --images FOLDER" in both.output
    scored = nolb("balance-head", path, "--images", tmp_path, "--folds", 5, "--out", out, code=2)
    assert "--folds scores with labels" in scored.output
    assert not out.exists()
