"""The command `balance-head`: what it writes and tells, and which input it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from cache import Split, Store, open_store
from pipeline import balance_head, evaluate, load_head, pool_of_store, save_head, score_balanced
from pipeline.balancing.pools import pool_of_images
from pipeline.balancing.shifts import (
    MEANS,
    TEMPERATURE,
)
from pipeline.cli.balance_head import balance_head as command
from pipeline.config import BalanceConfig
from pipeline.errors import EvaluationError
from pipeline.image_classifiers import find_images
from pipeline.metrics import harmonic_mean
from pipeline.provenance import Balanced
from tests import viewed_images
from tests.commands import nolb, refused
from tests.exporting.exported import small_extraction
from tests.left_behind import (
    N_CLASSES,
    PARTS,
    drawn_features,
    made_store,
    saved_head,
)
from tests.measured_stores import planted_head, planted_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return made_store(tmp_path)


@pytest.fixture
def path(store: Store, tmp_path: Path) -> Path:
    return saved_head(store, tmp_path / "new.safetensors")


def test_the_command(store: Store, path: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "balanced.safetensors", tmp_path / "told.json"
    said = nolb("balance-head", path, store.path, "--folds", 5, "--out", out, "--json", told).output
    assert "balanced       399 images, 4 classes\n" in said
    assert "Balanced: cross-fitted, each of 5 folds is classified by a head balanced on" in said
    assert "note  " not in said
    content = json.loads(told.read_text())
    assert content["images"] == 399
    assert list(content["estimated_classes"]) == ["c0", "c1", "c2", "c3"]
    assert content["estimated_classes"]["c3"]["recall_after"] > 50
    by_folds = content["scores"]["balanced"]["lowest_recall"]
    assert by_folds > content["scores"]["before"]["lowest_recall"] + 50
    head = load_head(path)
    expected = balance_head(head, pool_of_store(store, head))
    assert np.array_equal(load_head(out).bias, expected.head.bias)
    assert "exists already" in refused("balance-head", path, store.path, "--out", out)


def test_the_command_passes_on_all_that_is_chosen(store: Store, path: Path, tmp_path: Path) -> None:
    out, told, prior = (tmp_path / name for name in ("out.safetensors", "told.json", "prior.txt"))
    prior.write_text("\n".join(map(str, PARTS)))
    nolb(
        "balance-head", path, store.path, "--out", out, "--json", told, "--mean", "geometric",
        "--temperature", 3, "--refit", 0.25, "--split", "val", "--seed", 2, "--folds", 3,
        "--prior", prior,
    )  # fmt: skip
    head, written = load_head(path), load_head(out)
    config, pool = BalanceConfig("geometric", 3.0, 0.25), pool_of_store(store, head, "val")
    expected = balance_head(head, pool, config, shares=PARTS)
    assert np.array_equal(written.bias, expected.head.bias)
    assert written.provenance == expected.head.provenance
    content = json.loads(told.read_text())
    scores = score_balanced(store, head, pool, config, shares=PARTS, seed=2, n_folds=3)
    assert content["scores"] == json.loads(json.dumps(scores.to_json()))
    assert scores.before == evaluate(store, head, split="val")
    assert expected.to_json().items() <= content.items()


def test_new_weights_where_they_did_not_help(store: Store, path: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    few, of_few = store_of_few(tmp_path / "few", 39)
    told = nolb("balance-head", of_few, few.path, "--out", tmp_path / "a", "--refit", 0.5)
    assert "are few for --refit: on held-out images 20 or more gained" in told.output
    (tmp_path / "prior.txt").write_text("\n".join(map(str, PARTS)))
    words = ("--out", tmp_path / "b", "--prior", tmp_path / "prior.txt")
    assert "did harm" in nolb("balance-head", path, store.path, *words, "--refit", 0.5).output
    plain = nolb("balance-head", path, store.path, *words, "--overwrite").output
    assert "refit" not in plain


@pytest.mark.parametrize("flags", [(), ("--no-test-views",)])
def test_a_split_is_read_once(
    viewed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    read: list[tuple[int, ...]] = []
    reader = "features" if flags else "version"
    original = getattr(Split, reader)

    def noted(split: Split, *where: int) -> Any:
        read.append(where)
        return original(split, *where)

    monkeypatch.setattr(Split, reader, noted)
    told = tmp_path / "told.json"
    nolb(
        "balance-head", viewed / "new.safetensors", viewed / "s.zarr", "--folds", 2, *flags,
        "--out", tmp_path / "out.safetensors", "--json", told,
    )  # fmt: skip
    assert read == ([(0, 9)] if flags else [(version, 0, 9) for version in range(4)])
    with open_store(viewed / "s.zarr") as store:
        head, asked = load_head(viewed / "new.safetensors"), not flags
        pool = pool_of_store(store, head, test_views=asked)
        scores = score_balanced(store, head, pool, n_folds=2).to_json()
    assert json.loads(told.read_text())["scores"] == json.loads(json.dumps(scores))


def test_the_command_has_the_choices_of_the_library() -> None:
    options = {option.name: option for option in command.params}
    mean, temperature = options["mean"], options["temperature"]
    assert isinstance(mean.type, click.Choice)
    assert tuple(mean.type.choices) == MEANS
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
    balanced = balance_head(head, pool_of_store(store, head), shares=(4, 1, 2, 3))
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


def test_evaluate_says_on_which_images_a_head_was_balanced(
    store: Store, path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "balanced.safetensors"
    nolb("balance-head", path, store.path, "--out", out)
    assert "balanced on these images" in nolb("evaluate", store.path, out).output
    for heads, split in ((path, "test"), (out, "val")):
        said = nolb("evaluate", store.path, heads, "--split", split).output
        assert "balanced on these images" not in said


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
    pool = pool_of_store(store, head)
    expected = balance_head(head, pool, shares=[1, 1, 1, 5])
    assert np.array_equal(load_head(out).bias, expected.head.bias)
    nolb("balance-head", path, store.path, "--out", out, "--prior", "train", "--overwrite")
    expected = balance_head(head, pool, shares=head.class_counts)
    assert np.array_equal(load_head(out).bias, expected.head.bias)
    shares.write_text("1 one 1 5")
    told = refused("balance-head", path, store.path, "--out", out, "--overwrite", "--prior", shares)
    assert "one for each class" in told
    told = refused("balance-head", path, store.path, "--out", out, "--overwrite", "--prior", "even")
    assert "even: no such file; --prior is equal, train or a file" in told
    shares.write_text("1 1 5")
    told = refused("balance-head", path, store.path, "--out", out, "--overwrite", "--prior", shares)
    assert "3 numbers, but the head has 4 classes" in told
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
        (4, "warning        1.0 images per class:"), (19, "warning        4.8 images per class:"),
        (20, "note           5.0 images per class"), (39, "note           9.8 images per class"),
        (40, None),
    ],
)  # fmt: skip
def test_few_images_are_told(tmp_path: Path, n: int, begins: str | None) -> None:
    few, path = store_of_few(tmp_path, n)
    said = nolb("balance-head", path, few.path, "--out", tmp_path / "out.safetensors").output
    told = [line for line in said.splitlines() if line.startswith(("warning", "note"))]
    assert len(told) == (begins is not None)
    assert begins is None or told[0].startswith(begins)


def test_fewer_images_than_classes(tmp_path: Path) -> None:
    few, path = store_of_few(tmp_path, 3)
    head = load_head(path)
    pool = pool_of_store(few, head)
    with pytest.raises(EvaluationError, match="3 images cannot balance 4 classes"):
        balance_head(head, pool)
    with pytest.raises(EvaluationError, match="3 images cannot balance 4 classes"):
        score_balanced(few, head, pool, n_folds=2)


def test_images_in_no_store_are_the_stores(tmp_path: Path) -> None:
    small = small_extraction(tmp_path)
    cached = balance_head(small.head, pool_of_store(small.store, small.head))
    head, out = tmp_path / "new.safetensors", tmp_path / "balanced.safetensors"
    save_head(small.head, head)
    (small.images / "ant" / "torn.png").write_bytes(b"no image")
    said = nolb(
        "balance-head", head, "--images", small.images, "--checkpoint", small.checkpoint,
        "--out", out,
    ).output  # fmt: skip
    assert "torn.png" in said
    assert "balanced       12 images, 3 classes" in said
    balanced = load_head(out)
    assert balanced.bias == pytest.approx(cached.head.bias, abs=1e-3)
    assert isinstance(balanced.provenance, Balanced)
    assert balanced.provenance.split is None
    with pytest.raises(EvaluationError, match="leave --test-views out"):
        pool_of_images(small.head, [small.images], small.checkpoint, test_views=True)
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
        said_of = head.provenance
        assert isinstance(said_of, Balanced)
        assert (said_of.split, said_of.test_views, said_of.images) == (split, n, 8)
    # A bias for clean images is told apart.
    for each in said:
        assert ("Balanced on clean images: it is scored and predicts on those" in each) == (n == 0)
    # Balanced again, it sees what it was balanced on first, as evaluate does, unless told.
    photos = find_images([viewed / "test"])
    for asked, seen in ((None, n), (True, 3), (False, 0)):
        again = pool_of_images(of_images, photos, viewed / "m.pth", test_views=asked)
        assert again.test_views == seen


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
        ((store.path, "--device", "cpu"), "--device"),
        ((store.path, "--workers", 0), "--workers"),
        ((store.path, "--seed", 0), "--seed"),
        ((store.path, "--folds", 5, "--seed", -1), "-1 is not in the range"),
        ((store.path, "--json", out), "--json"),
    ):
        said = nolb("balance-head", path, *arguments, "--out", out, code=2)
        assert told in said.output.partition("Error: ")[2]
    assert not out.exists()
