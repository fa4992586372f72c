"""Splits that share images: the same twice is refused, some in both are told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets import (
    ArraySource,
    FolderSource,
    ImageSource,
    ListSource,
    RelabelledSource,
    SourceOptions,
    SubsetSource,
    open_sources,
    overlap_notes,
)
from pipeline.datasets.overlaps import shared_rows
from pipeline.errors import DatasetError, UnreadableImageError
from tests.small_data import CLASSES, COUNTS, image_folder

OPTIONS = SourceOptions(class_names=CLASSES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image_folder(tmp_path / "train")
    image_folder(tmp_path / "test", seed=1)
    return tmp_path


def a_list(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_images_of_other_folders_are_others_though_they_are_called_the_same(folder: Path) -> None:
    images = open_sources({"train": folder / "train", "test": folder / "test"})
    assert set(images["train"].ids) == set(images["test"].ids)
    assert overlap_notes(images) == ()


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("kind", ["text", "path", "dots", "link", "list", "share"])
def test_the_training_images_are_no_other_split(folder: Path, split: str, kind: str) -> None:
    train = str(folder / "train")
    (folder / "link").symlink_to(folder / "train")
    whole = [f"{id_} {CLASSES.index(id_[:3])}" for id_ in FolderSource(train).ids]
    again: dict[str, Path | str] = {
        "text": train,
        "path": Path(train),
        "dots": f"{folder}/test/../train/",
        "link": folder / "link",
        "list": a_list(folder / "train" / "all.txt", *reversed(whole)),
        "share": train,
    }
    sources = {"train": train, split: again[kind]}
    if kind == "share":
        sources["calibration"] = "0.2"
    with pytest.raises(DatasetError, match=rf"images given for {split} are those of train.*0\.2"):
        open_sources(sources, OPTIONS, required=("train",))


def test_sources_that_are_open_already_are_known_too(folder: Path) -> None:
    arrays = ArraySource(np.zeros((3, 2, 2), np.uint8), [0, 1, 2], CLASSES)
    for source in (arrays, FolderSource(folder / "train")):
        with pytest.raises(DatasetError, match="images given for test are those of train"):
            open_sources({"train": source, "test": source})
    twin = ArraySource(np.zeros((3, 2, 2), np.uint8), [0, 1, 2], CLASSES)
    assert overlap_notes(open_sources({"train": arrays, "test": twin})) == ()


def test_as_many_images_as_the_training_has_may_be_others(folder: Path) -> None:
    lines = [f"test/{id_} {CLASSES.index(id_[:3])}" for id_ in FolderSource(folder / "test").ids]
    lines[0] = "train/ant/0.png 0"
    listed = a_list(folder / "list.txt", *lines)
    images = open_sources({"train": folder / "train", "test": listed}, OPTIONS)
    assert len(images["test"]) == len(images["train"]) == sum(COUNTS)
    assert overlap_notes(images) == (
        "1 of the 13 images of test are images of train too, such as train/ant/0.png: scores on "
        "it are too good.",
    )


def test_every_two_splits_are_looked_at(folder: Path) -> None:
    few = a_list(folder / "few.txt", "train/ant/1.png 0", "test/bee/0.png 1", "test/cat/1.png 2")
    sources = {"val": few, "test": folder / "test", "train": folder / "train"}
    notes = overlap_notes(open_sources(sources, OPTIONS))
    assert [note.partition(",")[0] for note in notes] == [
        "1 of the 3 images of val are images of train too",
        "2 of the 13 images of test are images of val too",
    ]
    assert "what is chosen on one fits both" in notes[1]


def test_shares_of_the_training_images_are_apart(folder: Path) -> None:
    images = open_sources({"train": folder / "train", "val": 0.2, "test": folder / "test"})
    assert len(images["train"]) + len(images["val"]) == sum(COUNTS)
    assert overlap_notes(images) == ()


def test_the_rows_are_those_of_the_first(folder: Path) -> None:
    source = FolderSource(folder / "train")
    part = SubsetSource(source, [8, 3, 12], "part")
    renamed = RelabelledSource(part, [0, 0, 0], ["all"])
    assert shared_rows(renamed, source) == [0, 1, 2]
    assert shared_rows(source, renamed) == [3, 8, 12]
    listed = ListSource(a_list(folder / "l.txt", "bee/1.png 0"), os.path.relpath(folder / "train"))
    assert [source.ids[row] for row in shared_rows(source, listed)] == ["bee/1.png"]


def test_sources_without_files_tell_nothing(folder: Path) -> None:
    class Lost(FolderSource):
        def file(self, row: int) -> str:
            raise UnreadableImageError(f"row {row} is lost")

    arrays = ArraySource(np.zeros((13, 2, 2), np.uint8), [0] * 13, CLASSES)
    train = FolderSource(folder / "train")
    others: list[ImageSource] = [arrays, Lost(folder / "train")]
    for other in others:
        assert shared_rows(other, train) == shared_rows(train, other) == []
