"""The contract of a store, one class for every backend."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from cache import (
    CorruptStoreError,
    IdentityMismatchError,
    IncompleteStoreError,
    NonFiniteError,
    StoreError,
    StoreExistsError,
    StoreNotFoundError,
    create_store,
    open_store,
    resume_store,
    verify_store,
)
from tests.cache.store_making import (
    FAILED,
    N_TRAIN,
    make_spec,
    make_store,
    whole_arrays,
    with_head,
    with_identity,
    write,
    write_missing,
)


class StoreContract:
    suffix: ClassVar[str]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / f"cifar{self.suffix}"

    # What is read is what was written

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_arrays_come_back_bit_for_bit(self, path, dtype):
        spec = make_spec(dtype=dtype)
        with make_store(path, spec) as store:
            for name in ("train", "test"):
                split, arrays = store[name], whole_arrays(spec, name)
                assert split.features().dtype == dtype
                assert split.features().tobytes() == arrays["features"].tobytes()
                assert split.logits().dtype == np.float32
                assert split.logits().tobytes() == arrays["logits"].tobytes()
            assert (
                store["train"].views().tobytes() == whole_arrays(spec, "train")["views"].tobytes()
            )

    def test_a_range_is_a_slice_of_the_whole(self, path):
        arrays = whole_arrays(make_spec(), "train")
        ranges = [(0, 0), (0, 1), (7, 9), (8, 16), (5, None), (3, 23), (22, 99), (-4, None), (9, 3)]
        with make_store(path) as store:
            train = store["train"]
            for start, stop in ranges:
                rows = slice(start, stop)
                np.testing.assert_array_equal(train.features(start, stop), arrays["features"][rows])
                np.testing.assert_array_equal(train.views(start, stop), arrays["views"][:, rows])
                np.testing.assert_array_equal(train.logits(start, stop), arrays["logits"][rows])

    def test_the_store_describes_itself(self, path):
        spec = make_spec()
        make_store(path, spec).close()
        with open_store(str(path)) as store:
            assert store.path == path
            assert store.identity == spec.identity
            assert store.class_names == ("hund", "katze", "maus")
            assert store.splits == ("train", "test")
            assert "test" in store
            assert "val" not in store
            assert store.dtype == "float32"
            assert store.provenance == {"command": "nolb extract", "versions": {"numpy": "2"}}
            assert store.classifier.digest() == spec.classifier.digest()
            assert (store["train"].n_samples, store["train"].n_views) == (23, 2)
            assert (store["test"].n_samples, store["test"].n_views) == (9, 0)
            assert store["train"].ids == spec.splits[0].ids
            np.testing.assert_array_equal(store["train"].labels, spec.splits[0].labels)
            assert store["train"].labels.dtype == np.int64

    def test_failed_rows_are_kept_named_and_not_counted(self, path):
        with make_store(path) as store:
            train = store["train"]
            assert train.failed == FAILED
            assert store["test"].failed == {}
            assert np.flatnonzero(~train.usable).tolist() == [10, 22]
            assert np.flatnonzero(np.isnan(train.features()).all(axis=1)).tolist() == [10, 22]
            # Labels 0 1 2 0 1 2 ... over 23 rows: 8, 8, 7; rows 10 and 22 are both of class 1.
            assert store.class_counts.tolist() == [8, 6, 7]

    def test_what_a_failed_row_held_is_not_stored(self, path):
        spec = make_spec(dtype="float16")
        with create_store(path, spec) as writer:
            write_missing(writer)
            shard = writer._draft.header.shards("test")[0]
            features = np.full((8, 4), 1e9, np.float32)  # overflows, which only failed rows may
            features[1:] = 1
            logits = np.zeros((8, 3), np.float32)
            writer.write_shard(shard, features=features, logits=logits, failures={0: "\0 gone\n"})
            with writer.seal() as store:
                assert np.isnan(store["test"].features(0, 1)).all()
                assert np.isnan(store["test"].logits(0, 1)).all()
                assert store["test"].failed == {0: "gone"}

    def test_a_split_in_which_every_row_failed(self, path):
        with create_store(path, make_spec()) as writer:
            write_missing(writer)
            for shard in writer._draft.header.shards("test"):
                writer.write_shard(
                    shard,
                    features=np.zeros((shard.n_rows, 4), np.float32),
                    logits=np.zeros((shard.n_rows, 3), np.float32),
                    failures=dict.fromkeys(range(shard.start, shard.stop), "unreadable"),
                )
            writer.seal().close()
        with open_store(path) as store:
            assert np.isnan(store["test"].features()).all()
            assert not store["test"].usable.any()
        assert verify_store(path) == []

    def test_logits_that_are_not_stored_are_recomputed(self, path):
        spec = make_spec(store_logits=False)
        with make_store(path, spec) as store:
            logits = store["test"].logits(2, 9)
            features = whole_arrays(spec, "test")["features"][2:9]
        np.testing.assert_array_equal(logits, spec.classifier.logits(features))
        expected = 2.0 * features @ spec.classifier.weight.T + spec.classifier.bias
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)

    def test_callers_own_what_they_read(self, path):
        with make_store(path) as store:
            store["test"].features()[...] = 0
            assert store["test"].features().any()
            with pytest.raises(ValueError, match="read-only"):
                store["test"].labels[0] = 1

    def test_a_store_without_bias_or_views(self, path):
        spec = make_spec(n_views=0)
        head = replace(spec.classifier, bias=None, normalized=True, scale=1)
        with make_store(path, with_head(spec, head)) as store:
            assert store.classifier.bias is None
            assert store.classifier.normalized
            with pytest.raises(StoreError, match="no views"):
                store["train"].views()

    def test_many_classes_with_long_names(self, path):
        # HDF5 takes no more than 64 KiB of attributes the ordinary way; ImageNet-21k has 21,841.
        spec, n = make_spec(), 5000
        names = tuple(f"class {index} of a very long-tailed set" for index in range(n))
        head = replace(spec.classifier, weight=np.ones((n, 4)), bias=np.ones(n))
        with make_store(
            path, with_head(spec, head, class_names=names, store_logits=False)
        ) as store:
            assert store.class_names == names
            assert store.class_counts.sum() == N_TRAIN - len(FAILED)

    def test_missing_splits_and_closed_stores_say_so(self, path):
        store = make_store(path)
        with pytest.raises(StoreError, match="no split 'val'; it has train, test"):
            store["val"]
        store.close()
        store.close()
        with pytest.raises(StoreError, match="was closed"):
            store["train"].features()

    # Writing, shard by shard

    def test_missing_shards_come_in_the_order_of_splits_and_rows(self, path):
        with create_store(path, make_spec()) as writer:
            assert [(s.split, s.index, s.start, s.stop) for s in writer.missing()] == [
                ("train", 0, 0, 8),
                ("train", 1, 8, 16),
                ("train", 2, 16, 23),
                ("test", 0, 0, 8),
                ("test", 1, 8, 9),
            ]
            write(writer, writer.missing()[1])
            assert [s.index for s in writer.missing("train")] == [0, 2]
            assert [s.index for s in writer.missing("test")] == [0, 1]

    def test_the_order_of_writing_does_not_matter(self, path, tmp_path):
        with create_store(path, make_spec()) as writer:
            for shard in reversed(writer.missing()):
                write(writer, shard)
            writer.seal().close()
        with open_store(path) as store:
            expected = whole_arrays(make_spec(), "train")
            np.testing.assert_array_equal(store["train"].views(), expected["views"])

    def test_a_shard_may_be_written_anew(self, path):
        with create_store(path, make_spec()) as writer:
            write_missing(writer, seed=1)
            for shard in writer._draft.header.shards():
                write(writer, shard, seed=0)
            with writer.seal() as store:
                expected = whole_arrays(make_spec(), "train")
                np.testing.assert_array_equal(store["train"].features(), expected["features"])

    def test_another_thread_may_write(self, path):
        with create_store(path, make_spec()) as writer:
            thread = threading.Thread(target=write_missing, args=(writer,))
            thread.start()
            assert writer.spec.dtype == "float32"
            thread.join()
            writer.seal().close()
        assert verify_store(path) == []

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["features", "views", "logits"])
    def test_numbers_that_are_not_finite_are_refused_by_name(self, path, name, bad):
        with create_store(path, make_spec()) as writer:
            shard = writer.missing()[0]
            arrays = {k: a[..., :8, :] for k, a in whole_arrays(writer.spec, "train").items()}
            arrays[name][..., 5, 2] = bad
            with pytest.raises(NonFiniteError, match=r"katze/5 schön.png' \(row 5 of split 'tra"):
                writer.write_shard(shard, **arrays)
            assert shard in writer.missing()

    def test_float16_overflow_is_named(self, path):
        with create_store(path, make_spec(dtype="float16")) as writer:
            shard = writer.missing("test")[0]
            with pytest.raises(NonFiniteError, match="--dtype float32"):
                writer.write_shard(
                    shard,
                    features=np.full((8, 4), 70_000, np.float32),  # float16 ends at 65,504
                    logits=np.zeros((8, 3), np.float32),
                )

    def test_arrays_that_do_not_fit_are_refused(self, path):
        with create_store(path, make_spec()) as writer:
            shard = writer.missing("test")[0]
            good = {k: a[:8] for k, a in whole_arrays(writer.spec, "test").items()}
            for wrong, words in (
                ({"logits": None}, "was given"),
                ({"views": np.zeros((2, 8, 4), np.float32)}, "was given"),
                ({"features": good["features"][:7]}, r"must be \(8, 4\)"),
                ({"features": good["features"].astype(np.float64)}, "float64"),
                ({"failures": {8: "of the next shard"}}, "Row 8"),
            ):
                with pytest.raises(StoreError, match=words):
                    writer.write_shard(shard, **(good | wrong))
            with pytest.raises(StoreError, match="has no shard 0"):
                writer.write_shard(replace(shard, stop=7), **good)
            assert shard in writer.missing()

    # Unfinished stores

    def test_an_unfinished_store_counts_what_it_lacks(self, path):
        with create_store(path, make_spec()) as writer:
            write(writer, writer.missing()[0])
            expected = (
                f"{path}: 2 of 3 shards of split 'train' and 2 of 2 shards of split 'test' are not "
                f"written. Finish with: nolb extract ... --out {path} --resume"
            )
            with pytest.raises(IncompleteStoreError) as sealing:
                writer.seal()
        with pytest.raises(IncompleteStoreError) as opening:
            open_store(path)
        assert str(sealing.value) == str(opening.value) == expected

    def test_a_full_but_unsealed_store_is_unfinished(self, path):
        with create_store(path, make_spec()) as writer:
            write_missing(writer)
        with pytest.raises(IncompleteStoreError, match="not sealed yet"):
            open_store(path)
        with resume_store(path, make_spec()) as writer:
            assert writer.missing() == []
            writer.seal().close()
        assert verify_store(path) == []

    def test_resuming_computes_only_what_is_missing(self, path):
        with create_store(path, make_spec()) as writer:
            for shard in writer.missing()[::2]:
                write(writer, shard)
        with resume_store(path, make_spec()) as writer:
            assert [shard.name for shard in writer.missing()] == ["train-00001", "test-00000"]
            write_missing(writer)
            with writer.seal() as store:
                expected = whole_arrays(make_spec(), "train")
                np.testing.assert_array_equal(store["train"].views(), expected["views"])

    def test_resuming_keeps_shard_size_and_provenance(self, path):
        create_store(path, make_spec()).close()
        other = replace(make_spec(shard_rows=5), provenance={"command": "later"})
        with resume_store(path, other) as writer:
            assert writer.spec.shard_rows == 8
            assert writer.spec.provenance["command"] == "nolb extract"
            assert len(writer.missing()) == 5

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"checkpoint": "f" * 64}, "checkpoint: this ffffffffffff..., that aaaaaaaaaaaa..."),
            ({"device": "cuda"}, "device: this 'cuda', that 'cpu'"),
            ({"views": {"train": None}}, "views.train: this none, that count 2, seed 0"),
        ],
    )
    def test_resuming_another_extraction_names_the_fields(self, path, change, field):
        create_store(path, make_spec()).close()
        with pytest.raises(IdentityMismatchError) as caught:
            resume_store(path, with_identity(make_spec(), **change))
        assert field in str(caught.value)

    def test_resuming_with_other_contents_names_them(self, path):
        create_store(path, make_spec()).close()
        renamed = replace(make_spec(), class_names=("a", "b", "c"))
        headed = with_head(make_spec(), replace(make_spec().classifier, scale=3.0))
        for other, words in (
            (make_spec(n_train=24), "samples of 'train'"),
            (make_spec(n_views=3), "views of 'train': this 3, that 2"),
            (make_spec(store_logits=False), "store_logits: this False, that True"),
            (make_spec(dtype="float16"), "dtype: this 'float16', that 'float32'"),
            (renamed, "class_names"),
            (headed, "classifier: this "),
        ):
            with pytest.raises(IdentityMismatchError, match=words):
                resume_store(path, other)

    def test_there_must_be_something_to_resume(self, path):
        with pytest.raises(StoreNotFoundError, match="nothing to resume"):
            resume_store(path, make_spec())
        make_store(path).close()
        with pytest.raises(StoreExistsError, match="complete already"):
            resume_store(path, make_spec())
        with pytest.raises(IdentityMismatchError, match="device"):
            resume_store(path, with_identity(make_spec(), device="cuda"))

    # Existing stores

    def test_nothing_is_replaced_unasked(self, path):
        create_store(path, make_spec()).close()
        with pytest.raises(StoreExistsError, match="--resume"):
            create_store(path, make_spec())
        with create_store(path, make_spec(), overwrite=True) as writer:
            write_missing(writer)
            writer.seal().close()
        with pytest.raises(StoreExistsError, match="--overwrite"):
            create_store(path, make_spec())

    def test_overwriting_leaves_the_old_store_until_the_new_one_is_sealed(self, path):
        def stored():
            with open_store(path) as store:
                return store["train"].features().tobytes()

        make_store(path, seed=0).close()
        old = stored()
        with create_store(path, make_spec(), overwrite=True) as writer:
            write(writer, writer.missing()[0], seed=1)
            assert stored() == old
        with resume_store(path, make_spec()) as writer:
            write_missing(writer, seed=1)
            assert stored() == old
            writer.seal().close()
        assert stored() == whole_arrays(make_spec(), "train", seed=1)["features"].tobytes()
        assert verify_store(path) == []
        with pytest.raises(StoreExistsError, match="complete already"):
            resume_store(path, make_spec())

    def test_sealing_reads_everything_back(self, path, monkeypatch):
        with create_store(path, make_spec()) as writer:
            write_missing(writer)
            damaged = writer._draft.header.shards()[1]
            arrays = {k: a[..., 8:16, :] for k, a in whole_arrays(writer.spec, "train").items()}
            arrays["views"][1, 3, 2] += 1
            writer._draft.write(damaged, arrays)  # behind the record's back
            with pytest.raises(CorruptStoreError, match="shard 1 of split 'train'"):
                writer.seal()
            assert writer.missing() == [damaged]
            write_missing(writer)
            writer.seal().close()
        assert verify_store(path) == []

    def test_recorded_shards_that_do_not_verify_are_missing(self, path):
        with create_store(path, make_spec()) as writer:
            write_missing(writer)
            shard = writer._draft.header.shards("test")[1]
            arrays = {k: a[8:] + 1 for k, a in whole_arrays(writer.spec, "test").items()}
            writer._draft.write(shard, arrays)
        with resume_store(path, make_spec()) as writer:
            assert writer.missing() == [shard]

    def test_nothing_stands_where_nothing_was_made(self, path):
        with pytest.raises(StoreNotFoundError, match="nolb extract"):
            open_store(path)


class TestMemory(StoreContract):
    suffix = ".memory"
