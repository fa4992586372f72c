"""Files are written whole or not at all, and never over something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import OutputExistsError
from pipeline.files import refuse_existing, write_whole


def is_text(path: Path) -> bool:
    return path.suffix == ".txt"


def test_what_exists_is_replaced_only_where_asked_and_only_by_its_like(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    refuse_existing(path, overwrite=False)
    path.write_text("old")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        refuse_existing(path, overwrite=False)
    refuse_existing(path, overwrite=True, replaceable=is_text)
    (tmp_path / "store.h5").write_text("precious")
    with pytest.raises(OutputExistsError, match="something else"):
        refuse_existing(tmp_path / "store.h5", overwrite=True, replaceable=is_text)
    with pytest.raises(OutputExistsError, match="something else"):
        refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(OutputExistsError, match="There is no folder"):
        refuse_existing(tmp_path / "no" / "a.txt", overwrite=True)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
