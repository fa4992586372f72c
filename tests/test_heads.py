"""Heads: their logits, their file, and the stores that they refuse."""

from __future__ import annotations

import functools
import json
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from cache import Identity
from pipeline.config import FitConfig
from pipeline.errors import HeadError, OutputError, OutputExistsError
from pipeline.heads import (
    METADATA_KEY,
    Head,
    average_heads,
    load_head,
    require_same_identity,
    save_head,
)
from pipeline.provenance import Averaged, Fitted

IDENTITY = Identity(
    model={"family": "ldmlr", "backbone": "cifar-resnet32"},
    checkpoint="c" * 64,
    backbone="b" * 64,
    classifier="a" * 64,
    preprocessing={"resize": None},
    compute={"autocast": "none"},
    dtype="float32",
    device="cpu",
    views={"train": None, "test": None},
    samples={"train": "1" * 64, "test": "2" * 64},
)

TWELVE = {"train": {"count": 12}, "test": None}
"""Views of another extraction."""


def make_head(**changes: Any) -> Head:
    """A head of 3 classes and width 2."""
    head = Head(
        weight=np.array([[1, 0], [0, 1], [-1, 2]], np.float32),
        bias=np.array([0.5, 0, -1], np.float32),
        identity=IDENTITY,
        class_names=("apple", "bear", "Zürich"),
        class_counts=(30, 5, 2),
        provenance=Fitted(FitConfig(lr=0.1)),
        versions={"nolb": "0.1.0"},
    )
    return replace(head, **changes)


def store_of(identity: Identity, class_names: tuple[str, ...] = ("apple", "bear", "Zürich")) -> Any:
    """What of a store decides whether a head fits it."""
    return SimpleNamespace(identity=identity, class_names=class_names)


def test_a_network_is_not_taken_for_a_head_that_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_file({"weight": np.ones((2, 2), np.float32), "conv.weight": np.ones(3, np.float32)}, path)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="something else than what would replace it"):
        save_head(make_head(), path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_logits_are_the_linear_map(dtype: type[np.floating[Any]]) -> None:
    # (2, 3): 2 + 0.5, 3, -2 + 6 - 1.
    logits = make_head().logits(np.array([[2, 3]], dtype))
    assert logits.dtype == np.float32
    assert logits.tolist() == [[2.5, 3, 3]]


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(HeadError, match="width 2, not 3"):
        make_head().logits(np.zeros((4, 3), np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.zeros((2, 2), np.float32)}, r"needs a weight \(3, D\)"),
        ({"weight": np.zeros(3, np.float32)}, r"needs a weight \(3, D\)"),
        ({"bias": np.zeros(4, np.float32)}, r"needs a weight \(3, D\)"),
        ({"class_counts": (1, 2)}, r"needs a weight \(3, D\)"),
        ({"bias": np.zeros(3, np.float64)}, "is float32, not float32 with a bias in float64"),
        ({"bias": np.array([0, np.nan, 0], np.float32)}, "NaN or infinite"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(HeadError, match=message):
        make_head(**changes)


def test_a_saved_head_comes_back_whole(tmp_path: Path) -> None:
    head, path = make_head(), tmp_path / "head.safetensors"
    save_head(head, path)
    loaded = load_head(path)
    np.testing.assert_array_equal(loaded.weight, head.weight)
    np.testing.assert_array_equal(loaded.bias, head.bias)
    assert loaded.identity == head.identity
    assert loaded.class_names == head.class_names
    assert loaded.class_counts == head.class_counts
    assert loaded.provenance == head.provenance
    assert loaded.versions == head.versions
    assert [file.name for file in tmp_path.iterdir()] == ["head.safetensors"]


def test_equal_heads_are_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        save_head(make_head(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_normalised_head_comes_back_as_one(tmp_path: Path) -> None:
    for name, normalized in (("plain", False), ("normalized", True)):
        save_head(make_head(normalized=normalized), tmp_path / name)
        assert load_head(tmp_path / name).normalized is normalized


def test_a_normalised_heads_logits_are_those_of_unit_features() -> None:
    head = make_head(normalized=True)
    # (3, 4) / 5: 0.6 + 0.5, 0.8, -0.6 + 1.6 - 1; a row of zeros has the bias.
    logits = head.logits(np.array([[3, 4], [0, 0]], np.float64))
    np.testing.assert_allclose(logits, [[1.1, 0.8, 0], [0.5, 0, -1]], atol=1e-6)


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    save_head(make_head(), tmp_path / "head.safetensors")
    with safe_open(tmp_path / "head.safetensors", framework="numpy") as file:
        assert sorted(file.keys()) == ["bias", "weight"]
        assert file.get_tensor("weight").shape == (3, 2)
        provenance = json.loads(file.metadata()[METADATA_KEY])
    assert provenance["identity"]["checkpoint"] == "c" * 64
    assert provenance["class_names"] == ["apple", "bear", "Zürich"]


def test_a_transposed_view_is_saved_in_order(tmp_path: Path) -> None:
    head = make_head(weight=np.arange(6, dtype=np.float32).reshape(2, 3).T)
    save_head(head, tmp_path / "head")
    np.testing.assert_array_equal(load_head(tmp_path / "head").weight, head.weight)


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_head(make_head(), path)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        save_head(make_head(), path)
    assert path.read_bytes() == before
    save_head(make_head(), path, overwrite=True)
    assert load_head(path).class_counts == (30, 5, 2)


def test_what_is_no_head_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="something else"):
        save_head(make_head(), path, overwrite=True)
    assert path.read_bytes() == b"precious"


def test_a_failed_write_leaves_the_old_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "head.safetensors"
    save_head(make_head(), path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_head(make_head(class_counts=(1, 1, 1)), path, overwrite=True)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"There is no folder .*missing"):
        save_head(make_head(), tmp_path / "missing" / "head.safetensors")


def test_a_missing_head_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="nolb fit-head STORE --out"):
        load_head(tmp_path / "none.safetensors")


def test_what_is_no_file_of_ours_gets_no_remedy_that_harms(tmp_path: Path) -> None:
    stores = [tmp_path / "s.zarr", tmp_path / "s.h5"]
    stores[0].mkdir()
    stores[1].write_bytes(b"\x89HDF\r\n\x1a\n")
    for path, what in ((stores[0], "a store"), (stores[1], "a store"), (tmp_path, "a folder")):
        with pytest.raises(HeadError, match=f"is {what}, not a head: give a file of") as told:
            load_head(path)
        assert "--out" not in str(told.value)
    with pytest.raises(HeadError, match=r"new.zarr is the name of a store: call a head NAME"):
        save_head(make_head(), tmp_path / "new.zarr")


def test_a_head_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    path, short = tmp_path / "head", tmp_path / "short"
    save_head(make_head(), path)
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 25, len(whole) - 1}:
        short.write_bytes(whole[:length])
        with pytest.raises(HeadError, match="no whole head file"):
            load_head(short)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain text, no head at all",
        b"\x80\x04pickle",
        b"\xff" * 64,
        struct.pack("<Q", 10**15),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "head").write_bytes(content)
    with pytest.raises(HeadError, match="no whole head file"):
        load_head(tmp_path / "head")


TENSORS = {"weight": np.zeros((3, 2), np.float32), "bias": np.zeros(3, np.float32)}


FITTED = Fitted(FitConfig()).to_json()
NESTED = functools.reduce(
    lambda head, _: {"kind": "averaged", "heads": [head], "weights": [1.0]}, range(300), FITTED
)


def metadata_with(**changes: Any) -> str:
    """The metadata of a good head, changed; a value of None leaves the key out."""
    good = {
        "format": "nolb head",
        "version": 2,
        "identity": IDENTITY.to_json(),
        "class_names": ["apple", "bear", "Zürich"],
        "class_counts": [30, 5, 2],
        "normalized": False,
        "provenance": Fitted(FitConfig()).to_json(),
        "versions": {},
    }
    return json.dumps({k: v for k, v in (good | changes).items() if v is not None})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no head that nolb wrote"),
        ({"format": "pt"}, "no head that nolb wrote"),
        ({METADATA_KEY: "{"}, "not valid JSON"),
        ({METADATA_KEY: "[]"}, "does not call it a nolb head"),
        ({METADATA_KEY: metadata_with(format="nolb store")}, "does not call it a nolb head"),
        (
            {METADATA_KEY: metadata_with(version=1)},
            r"version 1, .* version 2\. Make the head again",
        ),
        ({METADATA_KEY: metadata_with(version="1" * 100_000)}, r"version '1+\.\.\.1+', this nolb"),
        ({METADATA_KEY: metadata_with(identity=None)}, "misses"),
        ({METADATA_KEY: metadata_with(identity={"device": "cpu"})}, "misses"),
        (
            {METADATA_KEY: metadata_with(identity={"model": "plain:small-cnn"})},
            "in words, .* fit its heads again",
        ),
        ({METADATA_KEY: metadata_with(class_names=["a", "b"])}, "2 classes"),
        ({METADATA_KEY: metadata_with(normalized="yes")}, "normalized"),
        (
            {METADATA_KEY: metadata_with(provenance=FITTED | {"kind": "drawn"})},
            "'kind' of 'provenance' of the metadata must be 'fitted', 'averaged' or 'balanced'",
        ),
        (
            {METADATA_KEY: metadata_with(provenance=FITTED | {"config": {"lr": "0.1"}})},
            "'lr' of 'config' of 'provenance' of the metadata must be a number, not '0.1'",
        ),
        ({METADATA_KEY: metadata_with(provenance=NESTED)}, "is nested deeper than that of any"),
        ({METADATA_KEY: metadata_with(class_counts=[1, 2, "3"])}, "entry 3 of 'class_counts'"),
    ],
)
def test_a_foreign_safetensors_file_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None, message: str
) -> None:
    save_file(TENSORS, tmp_path / "head", metadata)
    with pytest.raises(HeadError, match=message) as error:
        load_head(tmp_path / "head")
    assert str(error.value).startswith(str(tmp_path / "head"))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": TENSORS["weight"]}, r"holds \['weight'\]"),
        (TENSORS | {"extra": np.zeros(1)}, r"\['bias', 'extra', 'weight'\]"),
        (TENSORS | {"weight": np.zeros((4, 2), np.float32)}, r"\(4, 2\)"),
        (TENSORS | {"weight": np.zeros((3, 2), np.float64)}, "float64"),
        (TENSORS | {"bias": np.full(3, np.inf, np.float32)}, "infinite"),
    ],
)
def test_wrong_tensors_are_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray[Any, Any]], message: str
) -> None:
    save_file(tensors, tmp_path / "head", {METADATA_KEY: metadata_with()})
    with pytest.raises(HeadError, match=message):
        load_head(tmp_path / "head")


def test_a_head_fits_a_store_that_was_extended_or_has_other_views() -> None:
    extended = replace(IDENTITY, views=TWELVE, samples={**IDENTITY.samples, "val": "3" * 64})
    require_same_identity(make_head(), store_of(extended))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backbone": "d" * 64}, "backbone"),
        ({"preprocessing": {"resize": 256}}, "preprocessing.resize: this none, that 256"),
        ({"dtype": "float16"}, "dtype"),
        ({"samples": {"train": "9" * 64}}, "samples of 'train'"),
    ],
)
def test_a_store_of_another_identity_is_refused_by_name(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(HeadError, match=named) as error:
        require_same_identity(make_head(), store_of(replace(IDENTITY, **changes)))
    assert "nolb fit-head" in str(error.value)


def test_other_class_names_are_refused() -> None:
    with pytest.raises(HeadError, match="class 0 is this 'apple', that 'bear'"):
        require_same_identity(make_head(), store_of(IDENTITY, ("bear", "apple", "Zürich")))
    with pytest.raises(HeadError, match="this has 3, that 2"):
        require_same_identity(make_head(), store_of(IDENTITY, ("apple", "bear")))


def test_the_mean_of_heads_has_the_mean_of_their_logits(tmp_path: Path) -> None:
    one = make_head()
    other = make_head(
        weight=np.array([[3, 0], [0, -1], [1, 2]], np.float32), bias=np.zeros(3, np.float32),
        identity=replace(IDENTITY, views=TWELVE), provenance=Fitted(FitConfig(seed=1)),
    )  # fmt: skip
    mean = average_heads([one, other], (3, 1))
    # (2, 3): 3/4 of (2.5, 3, 3) and 1/4 of (6, -3, 8).
    assert mean.logits(np.array([[2, 3]], np.float32)).tolist() == [[3.375, 1.5, 4.25]]
    save_head(mean, tmp_path / "mean.safetensors")
    loaded = load_head(tmp_path / "mean.safetensors")
    assert loaded.provenance == Averaged((one.provenance, other.provenance), (3, 1))
    assert loaded.identity == IDENTITY


def test_the_mean_of_equal_heads_is_that_head() -> None:
    head = make_head(weight=np.full((3, 2), 0.1, np.float32))
    mean = average_heads([head] * 3, (0.1, 0.2, 0.7))
    assert mean.weight.tobytes() == head.weight.tobytes()
    assert mean.bias.tobytes() == head.bias.tobytes()


@pytest.mark.parametrize("unit", [1e-320, 1e-300, 1e300])
def test_the_unit_of_the_weights_does_not_matter(unit: float) -> None:
    one, other = make_head(), make_head(bias=np.array([2.5, 0, 1], np.float32))
    mean = average_heads([one, other], (unit, unit))
    assert mean.bias.tolist() == [1.5, 0, 0]


@pytest.mark.parametrize(
    ("heads", "weights", "message"),
    [
        ([{}], None, "two heads or more"),
        ([{}, {}], (1, 2, 3), "2 heads need as many weights, not 3"),
        ([{}, {}], (1, 0), "above 0, not 1, 0"),
        ([{}, {}], (1, float("nan")), "above 0, not 1, nan"),
        ([{}, {"identity": replace(IDENTITY, backbone="d" * 64)}], None, "backbone: this b"),
        ([{}, {"class_names": ("apple", "cat", "dog")}], None, "class 1 is this 'bear'"),
        ([{}, {"normalized": True}], None, "score them together with nolb evaluate"),
    ],
)
def test_heads_that_have_no_mean_are_refused(
    heads: list[dict[str, Any]], weights: tuple[float, ...] | None, message: str
) -> None:
    with pytest.raises(HeadError, match=message):
        average_heads([make_head(**changes) for changes in heads], weights)
