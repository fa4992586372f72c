"""Repair, conversion and description of stores."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from cache import (
    CorruptStoreError,
    IncompleteStoreError,
    NonFiniteError,
    StoreError,
    StoreExistsError,
    StoreLockedError,
    StoreNotFoundError,
    convert_store,
    create_store,
    describe_store,
    open_store,
    reopen_store,
    resume_store,
    salvage_header,
    verify_store,
)
from tests.cache.store_making import make_spec, make_store, tree, whole_arrays, write, write_missing


@pytest.fixture(params=[".zarr", ".h5"])
def path(request, tmp_path) -> Path:
    path = tmp_path / f"x{request.param}"
    make_store(path).close()
    return path


def spoil(path: Path, name: str, shard: int) -> None:
    """Change one number of a shard behind the store's back."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file[name][8 * shard, 0] = 7.0
        return
    file = path / name / f"c.{shard}.0"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)


def finish(path: Path) -> list[str]:
    """What `extract --resume` does; the shards that it computes."""
    with resume_store(path, make_spec()) as writer:
        names = [shard.name for shard in writer.missing()]
        write_missing(writer)
        writer.seal().close()
    return names


def test_a_repair_computes_the_damaged_shards_and_no_others(path):
    before = tree(path)
    spoil(path, "train/features", 1)
    spoil(path, "test/logits", 0)
    spoiled = tree(path)
    seen = []
    found = reopen_store(path, on_shard=lambda done, of: seen.append((done, of)))
    assert [shard.name for shard in found.lost] == ["train-00001", "test-00000"]
    assert [shard.name for shard in found.kept] == ["train-00000", "train-00002", "test-00001"]
    assert found.provenance["command"] == "nolb extract"
    assert seen == [(n, 5) for n in range(1, 6)]
    assert tree(path) == spoiled  # it stands until the repaired one is complete
    assert finish(path) == ["train-00001", "test-00000"]
    assert tree(path) == before
    assert not path.with_name(f"{path.name}.partial").exists()


def test_what_a_damaged_store_held_is_read_before_anything_is_begun(path):
    with open_store(path) as store:
        header = store.header
    spoil(path, "train/features", 1)
    if path.suffix == ".zarr":
        (path / "zarr.json").write_text("{}")
    beside = sorted(path.parent.iterdir())
    assert salvage_header(path) == header
    assert sorted(path.parent.iterdir()) == beside
    reopen_store(path)
    assert salvage_header(path) == header  # a repair that was begun can be gone on with
    with pytest.raises(StoreNotFoundError, match="no finished store here"):
        salvage_header(path.with_stem("other"))


def test_the_damaged_store_survives_a_repair_that_is_not_finished(path):
    spoil(path, "train/features", 0)
    spoiled = tree(path)
    reopen_store(path)
    with resume_store(path, make_spec()) as writer:
        write(writer, writer.missing()[0])
    assert tree(path) == spoiled
    with pytest.raises(CorruptStoreError), open_store(path) as store:
        store["train"].features()
    assert finish(path) == []
    assert verify_store(path) == []


def test_damage_outside_the_shards_costs_no_shard(tmp_path):
    whole = tmp_path / "whole.zarr"
    make_store(whole).close()
    before = tree(whole)
    for name in before:
        array = name.split("/")[-2] if "/" in name else ""
        if array in ("features", "views", "logits") and not name.endswith("zarr.json"):
            continue
        path = Path(shutil.copytree(whole, tmp_path / "x.zarr"))
        (path / name).unlink()
        found = reopen_store(path)
        assert found.lost == (), name
        assert finish(path) == []
        assert tree(path) == before, name
        shutil.rmtree(path)


def test_a_damaged_catalogue_is_read_from_its_second_copy(tmp_path):
    path = tmp_path / "x.h5"
    make_store(path).close()
    before = tree(path)
    with h5py.File(path, "r+") as file:
        file.attrs["class_names"] = '["a", "b", "c"]'
    with pytest.raises(CorruptStoreError, match="nolb store repair"):
        open_store(path)
    assert reopen_store(path).lost == ()
    assert finish(path) == []
    assert tree(path) == before


def test_without_either_copy_nothing_can_be_repaired(path):
    if path.suffix == ".h5":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        (path / "zarr.json").write_text("{}")
        (path / "catalogue" / "c.0").write_bytes(b"")
    with pytest.raises(CorruptStoreError, match="or move it away and extract again"):
        reopen_store(path)
    assert not path.with_name(f"{path.name}.partial").exists()


def test_only_finished_stores_are_repaired(tmp_path):
    path = tmp_path / "x.zarr"
    with pytest.raises(StoreNotFoundError):
        reopen_store(path)
    with create_store(path, make_spec()), pytest.raises(StoreNotFoundError):
        reopen_store(path)


def test_a_store_that_is_being_replaced_is_not_repaired(path):
    with create_store(path, make_spec(), overwrite=True), pytest.raises(StoreLockedError):
        reopen_store(path)
    other = replace(make_spec(), provenance={"command": "another one"})
    create_store(path, other, overwrite=True).close()
    for repairing in (reopen_store, salvage_header):
        with pytest.raises(StoreExistsError, match="another extraction was begun here; finish it"):
            repairing(path)


def test_a_repair_that_was_killed_is_gone_on_with(path):
    """Killed while it looks at the shards, and again while it computes those that are lost."""
    before = tree(path)
    spoil(path, "train/features", 0)
    spoil(path, "train/features", 2)
    seen = []

    def die(done, _of):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reopen_store(path, on_shard=die)
    with resume_store(path, make_spec()) as writer:
        assert [s.name for s in writer.missing()] != ["train-00000", "train-00002"]
    found = reopen_store(path)
    assert [shard.name for shard in found.lost] == ["train-00000", "train-00002"]
    with resume_store(path, make_spec()) as writer:
        write(writer, found.lost[0])
    assert [shard.name for shard in reopen_store(path).lost] == ["train-00002"]
    assert finish(path) == ["train-00002"]
    assert tree(path) == before


def test_a_repair_is_held_like_an_extraction(path):
    reopen_store(path)
    with resume_store(path, make_spec()), pytest.raises(StoreLockedError):
        resume_store(path, make_spec())


def test_quick_verify_sees_what_is_not_there(tmp_path):
    path = tmp_path / "x.zarr"
    make_store(path).close()
    assert verify_store(path, full=False) == []
    (path / "train/views/c.1.2.0").unlink()
    file = path / "test/logits/c.1.0"
    file.write_bytes(file.read_bytes()[:-1])
    problems = verify_store(path, full=False)
    assert [problem.shard.name for problem in problems] == ["train-00002", "test-00001"]
    assert "c.1.2.0 is missing" in str(problems[0])
    assert "119 bytes instead of 120" in str(problems[1])  # 8 x 3 float32, crc, index, crc


def test_a_part_of_a_shard_is_served_only_if_the_whole_is_as_recorded(path):
    """Two shards that changed places have right checksums, chunk by chunk."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            features = file["train/features"]
            features[0:8], features[8:16] = features[8:16], features[0:8]
    else:
        one, other = (path / "train/features" / f"c.{i}.0" for i in (0, 1))
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    with open_store(path) as store:
        for rows in ((0, 3), (9, 10)):
            with pytest.raises(CorruptStoreError, match="is not what was written"):
                store["train"].features(*rows)
        assert store["train"].features(16, 18).shape == (2, 4)


def test_one_version_at_a_time_is_what_views_gives(path):
    expected = whole_arrays(make_spec(), "train")
    with open_store(path) as store:
        train = store["train"]
        np.testing.assert_array_equal(train.version(0), expected["features"])
        for view in range(2):
            np.testing.assert_array_equal(train.version(view + 1), expected["views"][view])
            np.testing.assert_array_equal(
                train.version(view + 1, 5, 9), expected["views"][view, 5:9]
            )
        with pytest.raises(StoreError, match="no view 2"):
            train.version(3)


# Conversion


def test_there_and_back_gives_equal_bytes(path, tmp_path):
    before = tree(path)
    other, back = tmp_path / f"y{'.h5' if path.suffix == '.zarr' else '.zarr'}", tmp_path / "back"
    back = back.with_suffix(path.suffix)
    seen = []
    convert_store(path, other, on_shard=lambda done, of: seen.append((done, of))).close()
    assert seen == [(n, 5) for n in range(1, 6)]
    assert verify_store(other) == []
    convert_store(other, back, shard_rows=5).close()
    assert tree(back) != before
    convert_store(back, back.with_stem("again"), shard_rows=8).close()
    assert tree(back.with_stem("again")) == before


def test_float16_is_what_an_extraction_in_float16_stores(path, tmp_path):
    half = tmp_path / "half.zarr"
    with convert_store(path, half, dtype="float16") as store, open_store(path) as full:
        assert store.identity == replace(full.identity, dtype="float16")
        assert store.provenance["converted"] == "float32 to float16"
        features = full["train"].features().astype("float16")
        assert store["train"].features().tobytes() == features.tobytes()
        assert store["train"].logits().tobytes() == full["train"].logits().tobytes()
        assert store["train"].failed == full["train"].failed
    with pytest.raises(StoreError, match="digits that are gone"):
        convert_store(half, tmp_path / "full.zarr", dtype="float32")


def test_what_float16_cannot_hold_is_named(tmp_path):
    spec = make_spec(n_views=0)
    with create_store(tmp_path / "x.zarr", spec) as writer:
        for shard in writer.missing():
            big = np.full((shard.n_rows, 4), 1e6, np.float32)
            writer.write_shard(shard, features=big, logits=big[:, :3])
        writer.seal().close()
    with pytest.raises(NonFiniteError, match="float16 overflows"):
        convert_store(tmp_path / "x.zarr", tmp_path / "y.zarr", dtype="float16")


def test_an_interrupted_conversion_goes_on(path, tmp_path):
    target = tmp_path / "y.zarr"

    def stop(done, of):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_store(path, target, on_shard=stop)
    seen = []
    convert_store(path, target, resume=True, on_shard=lambda *n: seen.append(n)).close()
    assert len(seen) == 3
    assert verify_store(target) == []


def test_a_store_is_not_converted_onto_itself(path):
    with pytest.raises(StoreError, match="onto itself"):
        convert_store(path, path)


def test_a_damaged_store_is_not_converted(path, tmp_path):
    spoil(path, "train/features", 1)
    with pytest.raises(CorruptStoreError):
        convert_store(path, tmp_path / "y.zarr", shard_rows=3)
    with pytest.raises(IncompleteStoreError):
        open_store(tmp_path / "y.zarr")


# Description


def test_a_finished_store_describes_itself(path):
    info = describe_store(path)
    assert info.complete
    assert info.class_counts == (8, 6, 7)
    train, test = info.splits
    assert (train.name, train.n_samples, train.n_views) == ("train", 23, 2)
    assert (train.n_shards, train.n_recorded, train.n_failed) == (3, 3, 2)
    assert (test.n_samples, test.n_failed) == (9, 0)
    assert info.n_bytes == sum(len(content) for content in tree(path).values())
    json = info.to_json()
    assert json["identity"]["device"] == "cpu"
    assert json["splits"]["train"]["n_failed"] == 2
    assert json["unreadable"]["test"] == {}
    with open_store(path) as store:
        ids, failed = store["train"].ids, store["train"].failed
    assert json["unreadable"]["train"] == {ids[row]: why for row, why in failed.items()}
    card = info.card()
    assert card.startswith(f"# {path.name}\n")
    assert "| train | 23 | 2 | 2 | 3 of 3 |" in card
    assert "| hund | 8 |" in card
    assert "Unfinished" not in card


def test_an_unfinished_store_describes_itself(tmp_path):
    path = tmp_path / "x.h5"
    with create_store(path, make_spec()) as writer:
        write(writer, writer.missing()[0])
        info = describe_store(path)
    assert not info.complete
    assert info.class_counts is None
    assert "**Unfinished**: 1 of 5 shards" in info.card()
    with pytest.raises(StoreNotFoundError, match="no store here"):
        describe_store(tmp_path / "y.zarr")


def test_names_of_strangers_stay_within_their_cells_of_a_card(tmp_path):
    names = ("a|b\n# head", "<script>", "`c`")
    path = tmp_path / "x.zarr"
    make_store(path, replace(make_spec(), class_names=names)).close()
    card = describe_store(path).card()
    assert "| a\\|b # head | 8 |" in card
    assert "<script>" not in card
