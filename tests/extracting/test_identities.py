"""What an identity says: read back as it was, by every file that keeps it, whatever is printed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cache import Identity, open_store
from cache.errors import StoreFormatError
from cache.records import Record
from cache.strict_json import canonical
from pipeline.config import ExtractConfig, FitConfig
from pipeline.config.extract import MOST_TEST_VIEWS
from pipeline.datasets import Preprocessing, ShiftedViews, ViewSpec
from pipeline.errors import HeadError
from pipeline.exporting.description import Description
from pipeline.extracting.identities import (
    ModelRecord,
    preprocessing_of_identity,
    record_of_identity,
    views_of_identity,
)
from pipeline.extracting.recalibration import Recalibration
from pipeline.heads import load_head, save_head
from pipeline.stages.export import export
from pipeline.stages.extract import extract
from pipeline.stages.fit_head import fit_head
from pipeline.stages.repair import repair
from tests.cache.store_making import make_spec, make_store, tree
from tests.commands import nolb
from tests.measured_stores import planted_head, planted_store
from tests.small_data import small_checkpoint, small_sources

finite = {"allow_nan": False, "allow_infinity": False}
words = st.text(st.characters(codec="utf-8"), max_size=6)
channels = st.tuples(*[st.floats(**finite)] * 3)
sides = st.none() | st.integers(1, 999)

preprocessings = st.builds(
    Preprocessing,
    mean=channels,
    std=st.tuples(*[st.floats(1e-300, 1e300)] * 3),
    resize=sides,
    crop=sides,
    channels=st.sampled_from(["RGB", "BGR"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
) | st.builds(
    Preprocessing, channels, st.just((1.0, 1.0, 1.0)), resize=st.integers(1, 999),
    squash=st.just(value=True),
)  # fmt: skip
training_views = st.builds(
    ViewSpec,
    count=st.integers(1, 99),
    seed=st.integers(-(2**63), 2**63),
    padding=st.integers(0, 99),
    fill=st.sampled_from(["mean", "black"]),
    flip=st.booleans(),
    colour=st.floats(0, 1),
    erase=st.integers(0, 99),
)
test_views = st.booleans().flatmap(
    lambda flip: st.builds(
        ShiftedViews,
        count=st.integers(1, MOST_TEST_VIEWS[flip]),
        shift=st.integers(1, 99),
        fill=st.sampled_from(["mean", "black"]),
        flip=st.just(flip),
    )
)
records = st.builds(
    ModelRecord,
    family=words,
    variant=words,
    backbone=words,
    recalibrated=st.none()
    | st.builds(
        Recalibration,
        images=st.integers(1),
        sampler=st.sampled_from(["instance", "class-balanced"]),
        batch_size=st.integers(1),
        seed=st.integers(),
    ),
)


@st.composite
def said(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Record | None]]:
    """Fields of an identity, and the values that they stand for."""
    values: dict[str, Record | None] = {
        "model": draw(records),
        "preprocessing": draw(preprocessings),
        "train": draw(st.none() | training_views),
        "test": draw(st.none() | test_views),
    }
    told = {name: None if value is None else value.to_json() for name, value in values.items()}
    views = {"train": told.pop("train"), "test": told.pop("test")}
    return told | {"views": views}, values


def assert_says(identity: Identity, values: dict[str, Record | None]) -> None:
    """The identity stands for these values."""
    assert record_of_identity(identity) == values["model"]
    assert preprocessing_of_identity(identity) == values["preprocessing"]
    assert views_of_identity(identity) == (values["test"] or ShiftedViews())
    train = identity.views["train"]
    assert (None if train is None else ViewSpec.from_json(train, "it")) == values["train"]


@given(said())
def test_every_value_comes_back_through_the_text_of_an_identity(
    drawn: tuple[dict[str, Any], dict[str, Record | None]],
) -> None:
    fields, values = drawn
    identity = make_spec(**fields).identity
    again = Identity.from_json(json.loads(canonical(identity.to_json())))
    assert again == identity
    assert canonical(again.to_json()) == canonical(identity.to_json())
    assert_says(again, values)


@settings(max_examples=8)
@given(said())
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_every_value_comes_back_from_a_store(
    suffix: str, drawn: tuple[dict[str, Any], dict[str, Record | None]]
) -> None:
    fields, values = drawn
    with TemporaryDirectory() as folder:
        spec = make_spec(**fields)
        make_store(Path(folder) / f"s{suffix}", spec).close()
        with open_store(Path(folder) / f"s{suffix}") as store:
            assert store.identity == spec.identity
            assert_says(store.identity, values)


@settings(max_examples=20)
@given(said())
def test_every_value_comes_back_from_a_heads_file(
    drawn: tuple[dict[str, Any], dict[str, Record | None]],
) -> None:
    fields, values = drawn
    planted = {"train": (np.eye(3, dtype=np.float32), np.arange(3))}
    with TemporaryDirectory() as folder:
        head = planted_head(planted_store(Path(folder), planted), np.eye(3))
        identity = dataclasses.replace(head.identity, **fields)
        save_head(dataclasses.replace(head, identity=identity), Path(folder) / "h.safetensors")
        loaded = load_head(Path(folder) / "h.safetensors").identity
    assert loaded == identity
    assert_says(loaded, values)


@given(preprocessings)
def test_preprocessing_comes_back_from_an_exports_description(preprocessing: Preprocessing) -> None:
    description = Description(
        "new", None, "outside", None, preprocessing, ("a", "b"), "plain:net", "net", "fc", None, {}
    )
    text = description.to_text()
    assert Description.from_text(text, "it") == description
    for name in preprocessing.to_json():
        content = json.loads(text)
        del content["preprocessing"][name]
        with pytest.raises(Exception, match="is damaged: export again"):
            Description.from_text(json.dumps(content), "it")


@given(test_views, test_views, st.integers(0, 2**32))
def test_equal_test_views_are_those_of_equal_pixels(
    one: ShiftedViews, other: ShiftedViews, seed: int
) -> None:
    one, other = (dataclasses.replace(each, shift=1 + each.shift % 3) for each in (one, other))
    pixels = np.random.default_rng(seed).integers(1, 256, (9, 9, 3), np.uint8)
    preprocessing = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    made = [
        each.make_all(Image.fromarray(pixels), "x", preprocessing).tobytes()
        for each in (one, other)
    ]
    assert (one == other) == (made[0] == made[1])
    assert ShiftedViews(0, one.shift, one.fill, one.flip) == ShiftedViews()


def test_an_interpolation_without_a_resize_is_none() -> None:
    plain = Preprocessing((0, 0, 0), (1, 1, 1))
    assert dataclasses.replace(plain, interpolation="bicubic") == plain
    resized = dataclasses.replace(plain, resize=8)
    assert dataclasses.replace(resized, interpolation="bicubic") != resized


GOOD = Preprocessing((0.5, 0.5, 0.5), (1, 1, 1), 256, 224).to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"resize": "256"},
        {"resize": True},
        {"resize": 256.0},
        {"resize": 0},
        {"squash": 1},
        {"squash": None},
        {"channels": "GBR"},
        {"interpolation": None},
        {"mean": [0.5, 0.5]},
        {"mean": [0.5, 0.5, "0.5"]},
        {"mean": 0.5},
        {"more": 1},
    ],
)
def test_what_no_preprocessing_says_is_refused(change: dict[str, Any]) -> None:
    identity = make_spec(preprocessing={**GOOD, **change}).identity
    with pytest.raises(StoreFormatError, match="extract the store again, and fit its heads again"):
        preprocessing_of_identity(identity)
    assert preprocessing_of_identity(make_spec(preprocessing=GOOD).identity).crop == 224


@pytest.mark.parametrize(
    "change", [{"count": 99}, {"shift": 0}, {"fill": "white"}, {"flip": 1}, {"seed": 0}]
)
def test_what_no_test_views_say_is_refused(change: dict[str, Any]) -> None:
    views = {"train": None, "test": {**ShiftedViews(3).to_json(), **change}}
    with pytest.raises(StoreFormatError, match="the test views"):
        views_of_identity(make_spec(views=views).identity)


def test_what_no_model_says_is_refused() -> None:
    good = ModelRecord("plain", "", "small-cnn", Recalibration(9, "instance", 3, 0)).to_json()
    for change in ({"family": None}, {"recalibrated": {"images": 9}}, {"recalibrated": "BN"}):
        with pytest.raises(StoreFormatError, match="the model"):
            record_of_identity(make_spec(model={**good, **change}).identity)


def test_a_head_of_before_the_first_release_is_told_to_be_fitted_again(tmp_path: Path) -> None:
    planted = {"train": (np.eye(3, dtype=np.float32), np.arange(3))}
    head = planted_head(planted_store(tmp_path, planted), np.eye(3))
    written = {**head.identity.to_json(), "model": "plain:small-cnn", "views": ""}
    identity = _Words(head.identity, written)
    save_head(dataclasses.replace(head, identity=identity), tmp_path / "h.safetensors")  # type: ignore[arg-type]  # as it was then
    with pytest.raises(HeadError, match=r"h.safetensors .* in words, .* fit its heads again"):
        load_head(tmp_path / "h.safetensors")


class _Words:
    """An identity of another form."""

    def __init__(self, identity: Identity, written: dict[str, Any]) -> None:
        self.written = written

    def to_json(self) -> dict[str, Any]:
        """As it was written."""
        return self.written


def test_nothing_depends_on_how_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, sources = small_checkpoint(tmp_path / "m.pth"), small_sources(tmp_path, (4, 4, 4))
    config = ExtractConfig(
        device="cpu", workers=0, views=1, test_views=3, test_view_shift=1, recalibrate_bn=6,
        mean=(0.4, 0.5, 0.6), shard_rows=4,
    )  # fmt: skip
    path, saved, found = tmp_path / "s.zarr", tmp_path / "bn.pth", []
    identity = extract(checkpoint, sources, path, config).store.identity
    for wording in ("plain", "gibberish"):
        folder = tmp_path / wording
        folder.mkdir()
        if wording == "gibberish":
            for kind in (Preprocessing, ViewSpec, ShiftedViews, ModelRecord, Recalibration):
                monkeypatch.setattr(kind, "describe", lambda _: "; 7, blah (x) test views")
            again = extract(checkpoint, sources, folder / "s.zarr", config).store
            assert again.identity == identity
        nolb(
            "extract", "--checkpoint", checkpoint, "--train", sources["train"], "--test",
            sources["test"], "--out", path, "--device", "cpu", "--workers", 0, "--views", 1,
            "--test-views", 3, "--test-view-shift", 1, "--recalibrate-bn", 6, "--mean",
            "0.4,0.5,0.6", "--shard-rows", 4, "--resume", "--save-model", saved,
        )  # fmt: skip
        whole = tree(path)
        (path / "test/views/c.2.1.0").unlink()
        repair(path, checkpoint, sources)
        assert tree(path) == whole
        head = folder / "h.safetensors"
        with open_store(path) as store:
            save_head(fit_head(store, FitConfig(epochs=2)).head, head)
            options = ("--checkpoint", saved, "--format", "csv")
            said = nolb("predict", head, sources["test"], *options).stdout
            exported = export(
                store, load_head(head), saved, folder / "e.safetensors", format="safetensors",
                images=sources["test"],
            )  # fmt: skip
        assert exported.agreement is not None
        assert exported.agreement.n_different == 0
        found.append((head.read_bytes(), said))
    assert found[0] == found[1]
