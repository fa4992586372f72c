"""Identity, specification, shards, records and layout, each by itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import (
    Classifier,
    Identity,
    Shard,
    ShardRecord,
    SplitSpec,
    StoreError,
    StoreFormatError,
    samples_digest,
)
from cache.closable import Closable
from cache.layout import Header, chunk_rows
from cache.shards import array_digest, finite_rows, shards_of, tidy_reason
from cache.strict_json import canonical
from tests.cache.store_making import make_spec

IDENTITY = make_spec().identity

# Identity


def test_equal_identities_have_no_differences():
    assert IDENTITY.differences(replace(IDENTITY)) == []


@pytest.mark.parametrize("name", ["checkpoint", "backbone", "classifier", "device"])
def test_every_text_is_compared(name):
    other = replace(IDENTITY, **{name: "other"})
    [line] = IDENTITY.differences(other)
    assert line.startswith(f"{name}: this ")
    assert line.endswith("that 'other'")
    assert IDENTITY.feature_space_differences(other) == [line]


@pytest.mark.parametrize("name", ["model", "preprocessing", "compute"])
def test_every_object_is_compared_to_its_innermost_keys(name):
    this = replace(IDENTITY, **{name: {"a": 256, "b": {"c": None, "d": [0.5, 1]}, "same": "x"}})
    that = replace(
        IDENTITY, **{name: {"a": None, "b": {"c": {"e": True}, "d": [0.5]}, "same": "x"}}
    )
    lines = [
        f"{name}.a: this 256, that none",
        f"{name}.b.c: this none, that e yes",
        f"{name}.b.d: this (0.5, 1), that (0.5)",
    ]
    assert this.differences(that) == lines
    assert this.feature_space_differences(that) == lines
    [line] = this.differences(replace(this, **{name: {**this.to_json()[name], "more": "y"}}))
    assert line == f"{name}.more: this has none, that 'y'"


def test_views_do_not_change_the_feature_space():
    other = replace(IDENTITY, views={"train": {"count": 12, "seed": 0}, "test": None})
    assert IDENTITY.differences(other) == ["views.train.count: this 2, that 12"]
    assert IDENTITY.feature_space_differences(other) == []
    bare = replace(IDENTITY, views={"train": None, "test": None})
    assert bare.differences(other) == ["views.train: this none, that count 12, seed 0"]


def test_an_added_split_does_not_change_the_feature_space():
    other = replace(IDENTITY, samples={**IDENTITY.samples, "val": "c" * 64})
    assert IDENTITY.differences(other) == ["samples of 'val': this has none, that cccccccccccc..."]
    assert IDENTITY.feature_space_differences(other) == []
    assert other.feature_space_differences(IDENTITY) == []
    changed = replace(other, samples={**IDENTITY.samples, "test": "d" * 64})
    [line] = IDENTITY.feature_space_differences(changed)
    assert line.startswith("samples of 'test': this ")


def test_identity_survives_json():
    assert Identity.from_json(json.loads(json.dumps(IDENTITY.to_json()))) == IDENTITY
    assert hash(Identity.from_json(IDENTITY.to_json())) == hash(IDENTITY)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "blue"}, "unknown"),
        ({"model": 3}, "'model' of The identity must be an object, not 3"),
        ({"checkpoint": 3}, "'checkpoint' of The identity must be text, not 3"),
        ({"views": []}, "'views' of The identity must be an object, not a list"),
        ({"model": "plain:small-cnn"}, "in words.*extract the store again"),
        ({"compute": {"a": float("nan")}}, "compute.a must be plain JSON of finite numbers"),
        ({"compute": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}}, "is deeper"),
        ({"samples": ["a"]}, "'samples' of The identity must be an object"),
        ({"samples": {"train": 1}}, "'train' of 'samples' of The identity must be text, not 1"),
    ],
)
def test_identity_is_read_strictly(change, words):
    with pytest.raises(StoreFormatError, match=words):
        Identity.from_json(IDENTITY.to_json() | change)
    with pytest.raises(StoreFormatError, match="misses 'views'"):
        Identity.from_json({k: v for k, v in IDENTITY.to_json().items() if k != "views"})
    with pytest.raises(StoreFormatError, match="The identity must be an object, not 'identity'"):
        Identity.from_json("identity")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=6,
).filter(lambda value: depth_of(value) < 7)  # fmt: skip


def depth_of(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth_of, inner), default=-1)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=3))
def test_any_json_object_survives_and_cannot_be_changed(value):
    before = canonical(value)
    identity = replace(IDENTITY, model=value)
    again = Identity.from_json(json.loads(canonical(identity.to_json())))
    assert canonical(identity.to_json()["model"]) == before
    assert again == identity
    assert hash(again) == hash(identity)
    assert again.differences(identity) == []
    assert replace(identity) == identity
    value["added"] = 1
    identity.to_json()["model"]["added"] = 1
    assert canonical(identity.to_json()["model"]) == before
    with pytest.raises(TypeError):
        identity.model["added"] = 1


def test_what_is_no_json_is_refused():
    for value in ({"a": object()}, {1: "a"}, {"a": float("inf")}, "words", {"a": {2}}):
        with pytest.raises(StoreError, match="model"):
            replace(IDENTITY, model=value)


def test_words_name_every_value():
    words = IDENTITY.in_words()
    assert words["views.test"] == "none"
    assert words["views.train.count"] == "2"
    assert words["checkpoint"] == "a" * 64
    assert words["samples.train"] == IDENTITY.samples["train"]


def test_samples_digest_is_what_the_docs_say():
    # ids as length:bytes, hashed; that digest's hex and the labels as little-endian int64, hashed.
    inner = hashlib.sha256(b"1:a" + "2:ö".encode()).hexdigest()
    labels = (1).to_bytes(8, "little") + (0).to_bytes(8, "little")
    expected = hashlib.sha256(inner.encode() + labels).hexdigest()
    assert samples_digest(["a", "ö"], [1, 0]) == expected


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=4), st.data())
def test_samples_digest_tells_lists_apart(ids, data):
    other = data.draw(st.lists(st.text(st.characters(codec="utf-8")), max_size=4))
    same = samples_digest(ids, [0] * len(ids)) == samples_digest(other, [0] * len(other))
    assert same == (ids == other)


def test_samples_digest_needs_a_label_each():
    with pytest.raises(StoreError, match="2 ids need as many labels"):
        samples_digest(["a", "b"], [1])


# Specification


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": ["a", "a"]}, "names the sample 'a' twice"),
        ({"ids": ["a"]}, "1 ids and labels"),
        ({"ids": ["a", ""]}, "empty or no UTF-8"),
        ({"ids": ["a", "b\0"]}, "empty or no UTF-8"),
        ({"ids": ["a", "b\udcff"]}, r"b\\udcff"),
        ({"labels": np.array([0.0, 1.0])}, "whole numbers"),
        ({"n_views": -1}, "-1 views"),
        ({"name": "../train"}, "cannot be called"),
        ({"name": "classifier"}, "cannot be called"),
        ({"ids": [], "labels": np.zeros(0, int)}, "0 ids"),
    ],
)
def test_splits_are_checked(change, words):
    good = {"name": "train", "ids": ["a", "b"], "labels": np.array([0, 1]), "n_views": 0}
    with pytest.raises(StoreError, match=words):
        SplitSpec(**(good | change))


def test_specifications_are_checked():
    spec = make_spec()
    train, test = spec.splits
    relabelled = replace(train, labels=train.labels + 1)
    for change, words in (
        ({"class_names": ("a", "b")}, "has 3 classes, but 2 are named"),
        ({"class_names": ("a", "b", "a")}, "same name"),
        ({"splits": (test,)}, "must be 'train' and others"),
        ({"splits": (train,)}, "identity has samples of"),
        ({"splits": (relabelled, test)}, "labels from 1 to 3"),
        ({"splits": (train, replace(test, ids=[f"x{i}" for i in range(9)]))}, "samples_digest"),
        ({"identity": replace(spec.identity, classifier="c" * 64)}, r"classifier.digest\(\)"),
        ({"shard_rows": 0}, "at least one row"),
        ({"provenance": {"when": object()}}, "plain JSON"),
        ({"provenance": {"loss": float("nan")}}, "plain JSON"),
    ):
        with pytest.raises(StoreError, match=words):
            replace(spec, **change)


def test_types_that_are_no_features_are_refused():
    with pytest.raises(StoreError, match="not as 'bfloat16'"):
        replace(IDENTITY, dtype="bfloat16")


# Classifier


def test_classifier_logits():
    # f = (3, 4), W = ((1, 0), (0, 2)): products 3 and 8; times 2, plus the bias.
    features = np.array([[3, 4]], np.float16)
    head = Classifier(np.array([[1, 0], [0, 2]]), np.array([1, -1]), scale=2.0)
    assert head.logits(features).tolist() == [[7.0, 15.0]]
    assert head.logits(features).dtype == np.float32
    # Normalised: f / 5 and rows of length 1, so the cosines 0.6 and 0.8; a row of zeros gives 0.
    cosine = Classifier(np.array([[1, 0], [0, 2]]), scale=30.0, normalized=True)
    np.testing.assert_allclose(cosine.logits(features), [[18.0, 24.0]], rtol=1e-6)
    assert cosine.logits(np.zeros((1, 2), np.float32)).tolist() == [[0.0, 0.0]]


def test_classifier_digest_covers_every_part():
    weight, bias = np.eye(2), np.zeros(2)
    heads = [
        Classifier(weight, bias),
        Classifier(weight, None),
        Classifier(weight * 2, bias),
        Classifier(weight, bias + 1),
        Classifier(weight, bias, scale=2.0),
        Classifier(weight, bias, normalized=True),
    ]
    assert len({head.digest() for head in heads}) == len(heads)
    assert Classifier(weight.astype(np.float32), bias).digest() == heads[0].digest()


@pytest.mark.parametrize(
    ("weight", "bias", "words"),
    [
        (np.zeros(3), None, r"must be \(C, D\)"),
        (np.zeros((3, 2)), np.zeros(2), "3 classes"),
        (np.full((3, 2), np.nan), None, "NaN or infinity"),
    ],
)
def test_classifiers_are_checked(weight, bias, words):
    with pytest.raises(StoreError, match=words):
        Classifier(weight, bias)


def test_a_classifier_does_not_follow_its_source():
    weight = np.eye(2, dtype=np.float32)
    head = Classifier(weight)
    weight[0, 0] = 9
    assert head.weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        head.weight[0, 0] = 9


# Shards and records


@given(st.integers(1, 5000), st.integers(1, 700))
def test_shards_part_the_rows(n_rows, shard_rows):
    shards = shards_of(n_rows, shard_rows, "train")
    assert [row for shard in shards for row in range(n_rows)[shard.rows]] == list(range(n_rows))
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert all(shard.n_rows == shard_rows for shard in shards[:-1])


RECORD = ShardRecord(
    Shard("train", 1, 8, 16), {"features": "f" * 64}, "i" * 64, {10: "kaputt", 9: "ö"}
)


def test_records_survive_their_text():
    assert ShardRecord.from_text(RECORD.to_text(), "here") == RECORD
    assert (RECORD.start, RECORD.stop) == (8, 16)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"failures": {"16": "beyond"}}, "not its own"),
        ({"failures": {"9.5": "odd"}}, "not its own"),
        ({"start": -1}, "must be 0 or more, not -1"),
        ({"start": True}, "must be a whole number, not true or false"),
        ({"more": 1}, "unknown"),
    ],
)
def test_records_are_read_strictly(change, words):
    with pytest.raises(StoreFormatError, match=words):
        ShardRecord.from_text(json.dumps(json.loads(RECORD.to_text()) | change), "here")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_a_format_error(text):
    with pytest.raises(StoreFormatError):
        ShardRecord.from_text(text, "here")


def test_array_digest_is_what_the_docs_say():
    array = np.array([[1, 2]], np.float32)
    expected = hashlib.sha256(b"<f4(1, 2)" + np.array([1, 2], "<f4").tobytes()).hexdigest()
    assert array_digest(array) == expected
    assert array_digest(array.astype(">f4")) == expected
    assert array_digest(np.array([1, 2], np.float32)) != expected
    views = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    assert array_digest(views[:, 1:]) == array_digest(views[:, 1:].copy())


@given(st.lists(st.floats(width=16), min_size=4, max_size=4))
def test_finite_rows_agree_with_numpy(values):
    array = np.array(values, np.float16).reshape(2, 2)
    expected = np.isfinite(array).all(axis=1)
    for dtype in (np.float16, np.float32):
        assert finite_rows(array.astype(dtype), 0).tolist() == expected.tolist()
        assert finite_rows(array.astype(dtype)[None], 1).tolist() == expected.tolist()


@given(st.text())
def test_reasons_are_one_bounded_line_that_says_something(reason):
    tidy = tidy_reason(reason)
    assert 0 < len(tidy) <= 500
    assert not set("\0\n\r") & set(tidy)
    tidy.encode("utf-8")


# Layout


def test_header_survives_json():
    header = Header.of(make_spec())
    assert Header.from_json(json.loads(json.dumps(header.to_json())), "x.zarr") == header


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "csv"}, "no nolb store"),
        ({"version": 9}, "version 9, but this nolb reads version 2"),
        ({"dtype": "float16"}, "unknown 'dtype'"),
        ({"shard_rows": 0}, "'shard_rows' of the header of x.zarr must be 1 or more, not 0"),
        ({"class_names": []}, "has classes and splits"),
        ({"splits": [{"name": "train"}]}, "misses"),
        ({"class_names": [1]}, "entry 1 of 'class_names' .* must be text"),
    ],
)
def test_headers_are_read_strictly(change, words):
    with pytest.raises(StoreFormatError, match=words):
        Header.from_json(Header.of(make_spec()).to_json() | change, "x.zarr")


def test_an_array_knows_its_rows_along_either_axis():
    arrays = Header.of(make_spec(n_train=5, n_views=3)).shard_arrays("train")  # D is 4
    rows = slice(1, 3)
    for name, shape in (("features", (5, 4)), ("views", (3, 5, 4))):
        values = np.arange(np.prod(shape)).reshape(shape)
        part = values[arrays[name].index(rows)]
        assert arrays[name].shape == shape
        assert part.shape == arrays[name].shape_of(2)
        assert np.array_equal(part, values[..., 1:3, :])
    assert np.array_equal(values[arrays["views"].index(rows, 2)], values[2, 1:3])


@given(st.integers(1, 5000), st.integers(1, 1 << 22))
def test_chunks_part_a_shard(shard_rows, row_bytes):
    rows = chunk_rows(shard_rows, row_bytes)
    assert shard_rows % rows == 0
    # At most the wanted MiB, or the whole shard where no divisor comes near it.
    assert rows * row_bytes <= 1 << 20 or rows in (1, shard_rows)


def test_chunks_of_the_usual_sizes():
    # ResNet-50 in float16: 2048 * 2 bytes a row, 2^20 / 4096 = 256 rows.
    assert chunk_rows(2048, 4096) == 256
    # CIFAR's 64 float32: the shard of 2048 rows is 512 KiB, one chunk.
    assert chunk_rows(2048, 256) == 2048
    # A prime number of rows has no divisor but 1: one chunk.
    assert chunk_rows(2047 + 6, 4096) == 2053


# Closing


class Held(Closable):
    closed = 0

    def close(self):
        self.closed += 1


def test_a_block_closes_what_it_holds_and_hides_no_error():
    with Held() as held:
        assert not held.closed
    assert held.closed == 1
    with pytest.raises(ZeroDivisionError), held:
        _ = 1 / 0
    assert held.closed == 2
