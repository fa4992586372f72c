"""The stage and the command `balance-head`: labels are not looked at, and bad input is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache import Store, open_store
from pipeline import balance_head, evaluate, load_head, pool_of_store, save_head, score_by_folds
from pipeline.balancing import (
    MEANS,
    TEMPERATURE,
    Mean,
    balancing_shifts,
    decided_shares,
    estimated_recalls,
    levelling_shifts,
    matching_shifts,
)
from pipeline.cli import main
from pipeline.cli.balance_head import balance_head as command
from pipeline.errors import EvaluationError, HeadError
from pipeline.metrics import Floats, Ints, harmonic_mean
from pipeline.stages.balance_head import Pool, pool_of_images
from tests import viewed_images
from tests.exporting.exported import small_extraction
from tests.measured_stores import planted_head, planted_store

N_CLASSES = 4
LEFT_BEHIND = 3
PARTS = (1.0, 2.0, 3.0, 4.0)
"""Shares of the classes in tenths."""


def drawn_features(n: int = 400, seed: int = 0) -> tuple[Floats, Ints]:
    """Features and labels of as many images of each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES
    return 2 * np.eye(N_CLASSES)[labels] + rng.normal(size=(n, N_CLASSES)), labels


def made_store(folder: Path, labels_of_test: np.ndarray | None = None, **how: Any) -> Store:
    """400 test images, 100 a class, unless others are given as their labels; 200 of `val`."""
    features, labels = drawn_features()
    told = labels if labels_of_test is None else labels_of_test
    return planted_store(
        folder,
        {
            "train": (features[:40], labels[:40]),
            "test": (features, told),
            "val": drawn_features(200, seed=1),
        },
        failures={"test": {5: "broken"}},
        **how,
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


CHOICES: list[tuple[Mean, float]] = [("harmonic", 1.5), ("geometric", 1.5), ("harmonic", 3.0)]


@pytest.mark.parametrize(("mean", "temperature"), CHOICES)
def test_the_bias_takes_both_steps(
    store: Store, path: Path, mean: Mean, temperature: float
) -> None:
    head = load_head(path)
    pool = pool_of_store(head, store)
    balanced = balance_head(head, pool, PARTS, mean=mean, temperature=temperature)
    q = np.array(PARTS) / 10
    b = matching_shifts(pool.logits, q)
    w = levelling_shifts(pool.logits + b, q, mean, temperature)
    assert balanced.head.bias - head.bias == pytest.approx(b + w, abs=1e-4)
    assert balanced.shares == pytest.approx(q)
    # Both recalls are estimated where the probabilities are right, so the old head's without b.
    before, after = (estimated_recalls(pool.logits + b, q, temperature, by) for by in (-b, w))
    assert balanced.recalls_before == pytest.approx(before)
    assert balanced.recalls_after == pytest.approx(after)
    # Decisions on these very images, of which the classes have these shares.
    for decided, shifts in ((balanced.decided_before, 0), (balanced.decided_after, b + w)):
        assert decided == pytest.approx(decided_shares(pool.logits + shifts + np.log(q)))
    assert balanced.head.config["pool"] == {
        "split": "test", "test_views": 0, "images": 399, "mean": mean,
        "temperature": temperature, "shares": pytest.approx(q.tolist()),
    }  # fmt: skip


def test_every_choice_has_a_bias_of_its_own(store: Store, path: Path) -> None:
    head = load_head(path)
    pool = pool_of_store(head, store)
    biases = [balance_head(head, pool, PARTS, mean=m, temperature=t).head.bias for m, t in CHOICES]
    biases.append(balance_head(head, pool).head.bias)
    for i in range(len(biases)):
        for other in biases[:i]:
            assert np.abs(biases[i] - other).max() > 0.01


def test_what_is_chosen_where_nothing_is_said(store: Store, path: Path) -> None:
    head = load_head(path)
    pool = pool_of_store(head, store)
    plain = balance_head(head, pool)
    said = balance_head(head, pool, [7] * N_CLASSES, mean="harmonic", temperature=TEMPERATURE)
    assert np.array_equal(plain.head.bias, said.head.bias)
    note = plain.head.config["pool"]
    assert isinstance(note, dict)
    assert (note["mean"], note["temperature"], note["shares"]) == ("harmonic", TEMPERATURE, None)


def by_folds(
    logits: Floats, folds: Ints, shares: Sequence[float], mean: Mean, temperature: float
) -> Ints:
    """Decisions of the shifts of the other folds, written out."""
    q = np.array(shares) / sum(shares)
    decisions = np.empty(len(logits), np.int64)
    for fold in np.unique(folds):
        shifts = balancing_shifts(logits[folds != fold], q, mean, temperature)
        decisions[folds == fold] = (logits[folds == fold] + shifts).argmax(axis=1)
    return decisions


def recalls(decisions: Ints, labels: Ints) -> list[float]:
    """In percent."""
    return [100 * float((decisions[labels == c] == c).mean()) for c in range(N_CLASSES)]


@pytest.mark.parametrize("other", ["none", "shares", "mean", "temperature", "seed", "n_folds"])
def test_folds_are_told_all_that_is_chosen(store: Store, path: Path, other: str) -> None:
    head = load_head(path)
    labels = drawn_features(200, seed=1)[1]
    how: dict[str, Any] = {"shares": PARTS, "mean": "geometric", "temperature": 5.0}
    where = {"split": "val", "seed": 3, "n_folds": 3}
    scores = score_by_folds(head, store, **how, **where)
    logits = pool_of_store(head, store, "val").logits
    unlike: dict[str, Any] = {
        "shares": (1.0,) * 4, "mean": "harmonic", "temperature": 1.5, "seed": 0, "n_folds": 5,
    }  # fmt: skip
    told = {**how, **where}
    if other != "none":
        told[other] = unlike[other]
    folds = np.random.default_rng(told["seed"]).permutation(200) % told["n_folds"]
    expected = recalls(
        by_folds(logits, folds, told["shares"], told["mean"], told["temperature"]), labels
    )
    # What is told otherwise scores otherwise, so nothing of it goes unheard.
    assert (list(scores.recalls) == pytest.approx(expected)) == (other == "none")


def test_what_cannot_be_balanced_on(store: Store, path: Path) -> None:
    head = load_head(path)
    with pytest.raises(EvaluationError, match="balance it on others, as --split test"):
        pool_of_store(head, store, "train")
    with pytest.raises(EvaluationError, match="no split 'more'"):
        pool_of_store(head, store, "more")
    pool = pool_of_store(head, store)
    with pytest.raises(EvaluationError, match="4 classes needs the share of each, not 3"):
        balance_head(head, pool, [1, 2, 3])
    with pytest.raises(EvaluationError, match="share of class 'c1' is 0"):
        balance_head(head, pool, [1, 0, 3, 4])
    with pytest.raises(EvaluationError, match="share of class 'c2' is nan"):
        balance_head(head, pool, [1, 2, float("nan"), 4])
    with pytest.raises(EvaluationError, match="share of class 'c0' is 4e-07 of all"):
        balance_head(head, pool, [9e-7, 1, 1, 0.5])
    with pytest.raises(EvaluationError, match="seed of the folds is 0 or more, not -1"):
        score_by_folds(head, store, seed=-1)
    for n_folds in (1, 400):
        with pytest.raises(EvaluationError, match=f"2 to 399 folds, not {n_folds}"):
            score_by_folds(head, store, n_folds=n_folds)


def test_a_head_of_another_store(store: Store, path: Path, tmp_path: Path) -> None:
    foreign = made_store(tmp_path / "foreign", checkpoint="d" * 64)
    head = load_head(path)
    for refuses in (pool_of_store, score_by_folds):
        with pytest.raises(HeadError, match="fitted on another extraction than this store"):
            refuses(head, foreign)
    out = tmp_path / "balanced.safetensors"
    said = nolb("balance-head", path, foreign.path, "--out", out, code=1).output
    assert "fitted on another extraction than this store" in said
    assert not out.exists()


def test_test_views_are_averaged_unless_they_are_declined(tmp_path: Path) -> None:
    views = np.stack([drawn_features(seed=seed)[0] for seed in (11, 12, 13)])
    store = made_store(tmp_path, views={"test": views})
    path = saved_head(store, tmp_path / "new.safetensors")
    head = load_head(path)
    features = drawn_features()[0]
    versions = {0: features, 3: (features + views.sum(axis=0)) / 4}
    logits = {
        n: np.delete(seen @ head.weight.T.astype(np.float64) + head.bias, 5, axis=0)
        for n, seen in versions.items()
    }
    biases = {}
    for asked, n in ((None, 3), (True, 3), (False, 0)):
        pool = pool_of_store(head, store, test_views=asked)
        assert (pool.split, pool.test_views) == ("test", n)
        assert pool.logits == pytest.approx(logits[n], abs=1e-4)
        balanced = balance_head(head, pool)
        note = balanced.head.config["pool"]
        assert isinstance(note, dict)
        assert note["test_views"] == n
        by_hand = balance_head(head, Pool(logits[n].astype(np.float32), "test", n))
        assert balanced.head.bias == pytest.approx(by_hand.head.bias, abs=0.01)
        biases[n] = balanced.head.bias
        scores = score_by_folds(head, store, test_views=asked, seed=4, n_folds=3)
        folds = np.random.default_rng(4).permutation(399) % 3
        decisions = by_folds(pool.logits, folds, (1.0,) * N_CLASSES, "harmonic", TEMPERATURE)
        assert list(scores.recalls) == pytest.approx(
            recalls(decisions, np.delete(drawn_features()[1], 5))
        )
        assert (scores.test_views, scores.n_failed) == (n, 1)
    assert np.abs(biases[0] - biases[3]).max() > 0.1
    for flag, n in (("--test-views", 3), ("--no-test-views", 0)):
        out = tmp_path / f"{n}.safetensors"
        nolb("balance-head", path, store.path, "--out", out, flag)
        assert np.array_equal(load_head(out).bias, biases[n])


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


def test_the_command_passes_on_all_that_is_chosen(store: Store, path: Path, tmp_path: Path) -> None:
    out, told, prior = (tmp_path / name for name in ("out.safetensors", "told.json", "prior.txt"))
    prior.write_text("\n".join(map(str, PARTS)))
    nolb(
        "balance-head", path, store.path, "--out", out, "--json", told, "--mean", "geometric",
        "--temperature", 3, "--split", "val", "--seed", 2, "--folds", 3, "--prior", prior,
    )  # fmt: skip
    head, written = load_head(path), load_head(out)
    how: dict[str, Any] = {"mean": "geometric", "temperature": 3.0, "shares": PARTS}
    expected = balance_head(head, pool_of_store(head, store, "val"), **how)
    assert np.array_equal(written.bias, expected.head.bias)
    assert written.config == expected.head.config
    content = json.loads(told.read_text())
    scores = score_by_folds(head, store, split="val", seed=2, n_folds=3, **how)
    assert content["scores"]["balanced"] == json.loads(json.dumps(scores.to_json()))
    before = evaluate(store, head, split="val")
    assert content["scores"]["before"] == json.loads(json.dumps(before.to_json()))
    assert expected.to_json().items() <= content.items()


def test_the_command_has_the_choices_of_the_library() -> None:
    options = {option.name: option for option in command.params}
    mean, temperature = options["mean"], options["temperature"]
    assert isinstance(mean.type, click.Choice)
    assert tuple(mean.type.choices) == MEANS
    assert mean.default == MEANS[0]
    assert isinstance(temperature, click.Option)
    assert f"[default: {TEMPERATURE:g}]" in str(temperature.help)


def test_the_table_begins_with_the_lowest_class(tmp_path: Path) -> None:
    store = made_store(tmp_path, class_names=["one", "[red]", "three", "[/bold]"])
    # The bias of the third class puts it behind the second, and both are found too seldom.
    head = planted_head(store, 2 * np.eye(N_CLASSES), [0, -1.5, -4, 0.5])
    path, prior = tmp_path / "new.safetensors", tmp_path / "prior.txt"
    save_head(head, path)
    prior.write_text("4 1 2 3")
    said = nolb(
        "balance-head", path, store.path, "--out", tmp_path / "out.safetensors", "--prior", prior
    ).output  # fmt: skip
    balanced = balance_head(head, pool_of_store(head, store), (4, 1, 2, 3))
    rows = [line.split() for line in said.splitlines()]
    named = [row for row in rows if row and row[0] in head.class_names]
    order = np.argsort(balanced.recalls_before)
    assert len(set(np.round(balanced.recalls_before))) == N_CLASSES
    assert order.tolist() != sorted(order.tolist())
    assert order[0] != np.argmin(balanced.recalls_after)
    for row, c in zip(named, order, strict=True):
        often = [
            f"{100 * decided[c] / balanced.shares[c]:.0f}"
            for decided in (balanced.decided_before, balanced.decided_after)
        ]
        assert row == [
            head.class_names[c], f"{balanced.recalls_before[c]:.1f}",
            f"{balanced.recalls_after[c]:.1f}", often[0], "%", often[1], "%",
        ]  # fmt: skip
    means = [harmonic_mean(r) for r in (balanced.recalls_before, balanced.recalls_after)]
    assert ["harmonic", "mean", "of", "all", *(f"{mean:.1f}" for mean in means)] in rows


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
    assert "even: no such file; --prior is equal, train or a file" in said.output
    shares.write_text("1 1 5")
    said = nolb("balance-head", path, store.path, "--out", out, "--overwrite", "--prior", shares, code=1)  # fmt: skip  # noqa: E501
    assert "3 numbers, but the head has 4 classes" in said.output
    # What was there is there still.
    assert np.array_equal(load_head(out).bias, expected.head.bias)


def store_of_few(folder: Path, n: int) -> tuple[Store, Path]:
    """A store of n test images, and a head of it."""
    features, labels = drawn_features(n)
    few = planted_store(folder, {"train": (np.eye(4), np.arange(4)), "test": (features, labels)})
    return few, saved_head(few, folder / "new.safetensors")


@pytest.mark.parametrize(
    ("n", "begins"),
    [
        (4, "Warning: 1.0 images a class."), (19, "Warning: 4.8 images a class."),
        (20, "Note: 5.0 images a class"), (39, "Note: 9.8 images a class"), (40, None),
    ],
)  # fmt: skip
def test_few_images_are_told(tmp_path: Path, n: int, begins: str | None) -> None:
    few, path = store_of_few(tmp_path, n)
    said = nolb("balance-head", path, few.path, "--out", tmp_path / "out.safetensors").output
    told = [line for line in said.splitlines() if line.startswith(("Warning", "Note"))]
    assert len(told) == (begins is not None)
    assert begins is None or told[0].startswith(begins)


def test_fewer_images_than_classes(tmp_path: Path) -> None:
    few, path = store_of_few(tmp_path, 3)
    head = load_head(path)
    with pytest.raises(EvaluationError, match="3 images cannot balance 4 classes"):
        balance_head(head, pool_of_store(head, few))
    with pytest.raises(EvaluationError, match="3 images cannot balance 4 classes"):
        score_by_folds(head, few, n_folds=2)


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


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of which is broken, a store of them with three test views, and a head of it."""
    folder = viewed_images.made_store(tmp_path_factory.mktemp("viewed"))
    with open_store(folder / "s.zarr") as opened:
        save_head(viewed_images.some_head(opened), folder / "new.safetensors")
    return folder


@pytest.mark.parametrize("flags", [(), ("--test-views",), ("--no-test-views",)])
def test_images_have_the_test_views_of_the_heads_store(
    viewed: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    n = 0 if "--no-test-views" in flags else 3
    outs = tmp_path / "store.safetensors", tmp_path / "images.safetensors"
    new = viewed / "new.safetensors"
    said = [
        nolb("balance-head", new, viewed / "s.zarr", "--out", outs[0], *flags).output,
        nolb(
            "balance-head", new, "--images", viewed / "test", "--checkpoint", viewed / "m.pth",
            "--out", outs[1], *flags,
        ).output,
    ]  # fmt: skip
    of_store, of_images = map(load_head, outs)
    assert of_images.bias == pytest.approx(of_store.bias, abs=0.01)
    for head, split in ((of_store, "test"), (of_images, None)):
        note = head.config["pool"]
        assert isinstance(note, dict)
        assert (note["split"], note["test_views"], note["images"]) == (split, n, 8)
    # A bias for clean images is told apart, because predict averages unless it is told.
    for each in said:
        assert ("clean image alone" in each) == (n == 0)
        assert each.rstrip().endswith("--test-views 0") == (n == 0)


def test_where_the_images_come_from_is_said_once(store: Store, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    photos = ("--images", tmp_path)
    for arguments, told in (
        ((), "a STORE, or --images FOLDER"),
        ((store.path, *photos), "not both"),
        ((*photos, "--folds", 5), "--folds"),
        ((*photos, "--split", "test"), "--split"),
        ((*photos, "--seed", 0), "--seed"),
        ((store.path, "--checkpoint", "m.pth"), "--checkpoint"),
        ((store.path, "--model", "resnet50"), "--model"),
        ((store.path, "--seed", 0), "--seed"),
        ((store.path, "--folds", 5, "--seed", -1), "-1 is not in the range"),
        ((store.path, "--json", out), "--json"),
    ):
        said = nolb("balance-head", path, *arguments, "--out", out, code=2)
        assert told in said.output.partition("Error: ")[2]
    assert not out.exists()
