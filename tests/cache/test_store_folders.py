"""What stores on a disk have beyond the contract: drafts that are folders, and strangers."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from cache import (
    StoreError,
    StoreExistsError,
    StoreFormatError,
    create_store,
    open_store,
    resume_store,
    verify_store,
)
from tests.cache.store_making import (
    make_spec,
    make_store,
    write,
    write_missing,
)
from tests.cache.test_store_contract import StoreContract


class FolderContract(StoreContract):
    """What holds for stores on disk beside it."""

    def test_only_the_store_is_left(self, path):
        make_store(path).close()
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    def test_an_unfinished_store_is_one_folder(self, path):
        create_store(path, make_spec()).close()
        assert [entry.name for entry in path.parent.iterdir()] == [f"{path.name}.partial"]

    def test_the_parent_must_exist(self, tmp_path):
        with pytest.raises(StoreError, match="does not exist; create it first"):
            create_store(tmp_path / "missing" / f"x{self.suffix}", make_spec())

    def test_a_place_without_permission(self, path, monkeypatch):
        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\)"):
            create_store(path, make_spec())
        assert list(path.parent.iterdir()) == []

    def test_a_full_disk_loses_nothing(self, path, monkeypatch):
        writer = create_store(path, make_spec())
        first, second, *_ = writer.missing()
        write(writer, first)

        def full(descriptor):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(StoreError, match=r"No space left on device\); make room"):
                write(writer, second)
        writer.close()
        with resume_store(path, make_spec()) as writer:
            assert writer.missing()[0] == second
            write_missing(writer)
            writer.seal().close()
        assert verify_store(path) == []

    def test_what_is_no_store_is_neither_opened_nor_replaced(self, path):
        path.write_text("a list of names, by mistake")
        with pytest.raises(StoreFormatError):
            open_store(path)
        with pytest.raises(StoreExistsError):
            create_store(path, make_spec())
        with pytest.raises(StoreFormatError):
            create_store(path, make_spec(), overwrite=True)
        assert path.read_text() == "a list of names, by mistake"

    def test_a_folder_of_other_things_is_left_alone(self, path):
        path.mkdir()
        (path / "thesis.txt").write_text("years")
        with pytest.raises(StoreFormatError):
            open_store(path)
        with pytest.raises(StoreFormatError):
            create_store(path, make_spec(), overwrite=True)
        working = path.with_name(f"{path.name}.partial")
        working.mkdir()
        (working / "thesis.txt").write_text("years")
        (path / "thesis.txt").unlink()
        path.rmdir()
        with pytest.raises(StoreExistsError, match="Move it away"):
            create_store(path, make_spec())
        assert (working / "thesis.txt").read_text() == "years"

    def test_a_store_that_came_up_meanwhile_is_left_alone(self, path):
        with create_store(path, make_spec()) as writer:
            write_missing(writer)
            path.write_text("another program's")
            with pytest.raises(StoreExistsError, match="left alone"):
                writer.seal()
            assert path.read_text() == "another program's"
            path.unlink()
            writer.seal().close()

    def test_a_record_that_cannot_be_read_vouches_for_nothing(self, path):
        with create_store(path, make_spec()) as writer:
            write_missing(writer)
        records = path.with_name(f"{path.name}.partial") / "records"
        (records / "train-00001.json").write_text('{"split": "train"')
        (records / "test-00001.json").write_bytes((records / "test-00000.json").read_bytes())
        with resume_store(path, make_spec()) as writer:
            assert [shard.name for shard in writer.missing()] == ["train-00001", "test-00001"]

    def test_a_draft_that_cannot_be_read_can_be_begun_anew(self, path):
        create_store(path, make_spec()).close()
        (path.with_name(f"{path.name}.partial") / "draft.json").write_text("{")
        for attempt in (lambda: open_store(path), lambda: resume_store(path, make_spec())):
            with pytest.raises(StoreFormatError, match="Start anew with --overwrite"):
                attempt()
        with create_store(path, make_spec(), overwrite=True) as writer:
            assert len(writer.missing()) == 5

    def test_another_version_is_refused(self, path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("cache.layout.VERSION", 3)
            patch.setattr("cache.catalogue.VERSION", 3)
            make_store(path).close()
        with pytest.raises(StoreFormatError, match="version 3, but this nolb reads version 2"):
            open_store(path)


class TestZarr(FolderContract):
    suffix = ".zarr"

    def test_a_store_of_another_program(self, path):
        zarr.create_group(path, attributes={"made by": "others"})
        with pytest.raises(StoreFormatError, match="no nolb store"):
            open_store(path)
        with pytest.raises(StoreFormatError, match="no nolb store"):
            create_store(path, make_spec(), overwrite=True)


class TestHdf5(FolderContract):
    suffix = ".h5"


@pytest.mark.parametrize("name", ["cifar.npz", "cifar", "cifar.zarr.zip"])
def test_the_suffix_must_be_known(tmp_path, name):
    with pytest.raises(StoreFormatError, match=r"use one of \.zarr, \.h5, \.memory"):
        open_store(tmp_path / name)


def test_the_working_form_is_not_the_store(tmp_path):
    with pytest.raises(StoreFormatError, match="name the store itself"):
        open_store(tmp_path / "cifar.zarr.partial")


def test_zarr_and_hdf5_hold_equal_bits(tmp_path):
    with make_store(tmp_path / "a.zarr") as a, make_store(tmp_path / "a.h5") as b:
        for name in a.splits:
            assert a[name].features().tobytes() == b[name].features().tobytes()
            assert a[name].logits().tobytes() == b[name].logits().tobytes()
            assert a[name].records == b[name].records


def test_what_does_not_say_that_it_is_a_store_is_never_replaced(tmp_path: Path) -> None:
    # h5py gives such an attribute, which Keras writes, as an array; Zarr can be one bare array.
    with h5py.File(tmp_path / "keras.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"conv", b"dense"])
        file["x"] = np.arange(3)
    zarr.create_array(tmp_path / "bare.zarr", data=np.arange(3))
    for name in ("keras.h5", "bare.zarr"):
        with pytest.raises(StoreFormatError, match=name):
            create_store(tmp_path / name, make_spec(), overwrite=True)
    with h5py.File(tmp_path / "keras.h5") as file:
        assert file["x"][:].tolist() == [0, 1, 2]
    assert zarr.open_array(tmp_path / "bare.zarr")[:].tolist() == [0, 1, 2]
