"""Sources: what they list, what they read, and one clear sentence for each thing that is wrong."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from pipeline.datasets import (
    ArraySource,
    FolderSource,
    ImageSource,
    ListSource,
    SourceOptions,
    open_source,
)
from pipeline.datasets.decoding import read_rgb
from pipeline.datasets.folders import IMAGE_SUFFIXES
from pipeline.errors import DatasetError, UnreadableImageError


def save(path: Path, colour: tuple[int, int, int] = (10, 20, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/b.png", "cat/a.PNG", "bee/deep/x.png", "bee/y.png", "ant/z z.png"):
        save(tmp_path / "images" / name)
    (tmp_path / "images" / "cat" / "notes.txt").write_text("not listed")
    (tmp_path / "images" / "README.md").write_text("not a class")
    return tmp_path / "images"


class TestFolder:
    def test_lists_classes_and_images_as_torchvision_does(self, folder: Path) -> None:
        theirs = ImageFolder(str(folder))
        source = FolderSource(folder)
        assert source.class_names == tuple(theirs.classes) == ("ant", "bee", "cat")
        paths = [Path(path).relative_to(folder).as_posix() for path, _ in theirs.samples]
        assert list(source.ids) == paths
        assert source.labels.tolist() == theirs.targets
        assert source.ids == (
            "ant/z z.png",
            "bee/y.png",
            "bee/deep/x.png",
            "cat/a.PNG",
            "cat/b.png",
        )

    def test_knows_the_same_suffixes_as_torchvision(self) -> None:
        assert IMAGE_SUFFIXES == IMG_EXTENSIONS

    def test_labels_follow_the_names_of_the_training_split(self, folder: Path) -> None:
        source = FolderSource(folder, class_names=("cat", "dog", "ant", "bee"))
        assert source.class_names == ("cat", "dog", "ant", "bee")
        assert source.labels.tolist() == [2, 3, 3, 0, 0]

    def test_refuses_a_class_that_the_training_split_lacks(self, folder: Path) -> None:
        with pytest.raises(DatasetError, match=r"do not include 'bee'; rename"):
            FolderSource(folder, class_names=("ant", "cat"))

    def test_refuses_an_empty_class_folder_by_its_name(self, folder: Path) -> None:
        (folder / "dog").mkdir()
        (folder / "dog" / "notes.txt").write_text("no image")
        with pytest.raises(DatasetError, match=r"images/dog: the class folder holds no images"):
            FolderSource(folder)

    def test_refuses_a_folder_without_class_folders(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        with pytest.raises(DatasetError, match=r"no class folders; .* <class>/<image>"):
            FolderSource(tmp_path)

    def test_refuses_names_that_cannot_be_stored(self, folder: Path) -> None:
        name = b"caf\xe9.png".decode("utf-8", "surrogateescape")  # Latin-1 bytes
        try:
            (folder / "ant" / name).write_bytes(b"")
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        with pytest.raises(DatasetError, match="is not UTF-8; rename it"):
            FolderSource(folder)


class TestReading:
    def test_gives_the_exact_pixels_in_rgb(self, folder: Path) -> None:
        image = FolderSource(folder).read(0)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), np.full((3, 4, 3), (10, 20, 30)))

    @pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
    def test_turns_every_8_bit_mode_into_rgb(self, tmp_path: Path, mode: str) -> None:
        suffix = "tif" if mode == "CMYK" else "png"
        path = tmp_path / "a" / f"x.{suffix}"
        path.parent.mkdir()
        Image.new(mode, (4, 3)).save(path)
        assert FolderSource(tmp_path).read(0).mode == "RGB"

    def test_reads_a_palette_with_transparency(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        image = Image.new("RGB", (2, 1), (200, 100, 50)).quantize(4)
        image.save(tmp_path / "a" / "x.png", transparency=bytes([0, 255]))
        assert FolderSource(tmp_path).read(0).getpixel((0, 0)) == (200, 100, 50)

    def test_refuses_16_bits_instead_of_clipping_them_to_white(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        deep = np.full((2, 2), 30_000, np.uint16)
        Image.fromarray(deep).save(tmp_path / "a" / "x.png")
        with pytest.raises(UnreadableImageError, match="more than 8 bits"):
            FolderSource(tmp_path).read(0)

    def test_says_why_a_file_is_unreadable(self, folder: Path) -> None:
        source = FolderSource(folder)
        good = (folder / "ant/z z.png").read_bytes()
        for damaged, reason in (
            (b"", "not an image of a known format"),
            (b"just some text", "not an image of a known format"),
            (good[:50], "cannot be decoded"),  # cut within the pixels
        ):
            (folder / "ant/z z.png").write_bytes(damaged)
            with pytest.raises(UnreadableImageError, match=reason):
                source.read(0)
        (folder / "ant/z z.png").unlink()
        with pytest.raises(UnreadableImageError, match="no such file"):
            source.read(0)

    def test_a_damaged_file_leaves_its_neighbours_readable(self, folder: Path) -> None:
        (folder / "ant/z z.png").write_text("text")
        assert FolderSource(folder).read(1).size == (4, 3)


class TestList:
    @pytest.fixture
    def listed(self, folder: Path) -> Path:
        path = folder.parent / "train.txt"
        path.write_text(
            "\ufeff# path label\n\nbee/y.png 1\n ./ant/z z.png\t0 \r\ncat//b.png 2\n", "utf-8"
        )
        return path

    def test_reads_paths_labels_and_skips_comments(self, folder: Path, listed: Path) -> None:
        source = ListSource(listed, folder)
        assert source.ids == ("bee/y.png", "ant/z z.png", "cat/b.png")
        assert source.labels.tolist() == [1, 0, 2]
        assert source.class_names == ("0", "1", "2")
        assert source.read(1).size == (4, 3)

    def test_the_root_is_the_lists_own_folder_unless_given(self, folder: Path) -> None:
        (folder / "list.txt").write_text("bee/y.png 0\n")
        assert ListSource(folder / "list.txt").read(0).size == (4, 3)

    def test_a_missing_file_shows_when_it_is_read(self, folder: Path) -> None:
        (folder / "list.txt").write_text("bee/gone.png 0\nbee/y.png 0\n")
        source = ListSource(folder / "list.txt")
        with pytest.raises(UnreadableImageError, match="no such file"):
            source.read(0)
        assert source.read(1).size == (4, 3)

    def test_takes_the_names_of_the_training_split(self, folder: Path, listed: Path) -> None:
        source = ListSource(listed, folder, class_names=("a", "b", "c", "absent here"))
        assert source.class_names[3] == "absent here"

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("bee/y.png", r"line 2: needs `path label` with a whole number"),
            ("bee/y.png one", r"line 2: needs `path label`"),
            ("bee/y.png 1.5", r"line 2: needs `path label`"),
            ("bee/y.png -1", r"line 2: the label -1 is outside 0\.\."),
            ("../secret.png 1", r"line 2: '\.\./secret\.png' leaves the root"),
            ("bee/../../x.png 1", r"line 2: .* leaves the root"),
            ("/etc/x.png 1", r"line 2: '/etc/x\.png' leaves the root"),
            ("./ant/z z.png 1", r"line 2: 'ant/z z\.png' stands in line 1 already"),
            ("bee/y.png 2", r"labels go up to 2, but 1 never occurs"),
            ("bee/y.png 999999999999999999", r"labels go up to 9+, but 1, 2, 3, 4, 5 and"),
        ],
    )
    def test_a_bad_line_is_named(self, folder: Path, line: str, message: str) -> None:
        (folder / "list.txt").write_text(f"ant/z z.png 0\n{line}\n")
        with pytest.raises(DatasetError, match=message):
            ListSource(folder / "list.txt")

    def test_a_label_beyond_the_training_classes_is_named(self, folder: Path, listed: Path) -> None:
        with pytest.raises(DatasetError, match=r"line 5: the label 2 is outside 0\.\.1"):
            ListSource(listed, folder, class_names=("a", "b"))

    def test_an_empty_list_a_lost_root_and_a_binary_file_are_refused(self, folder: Path) -> None:
        path = folder / "list.txt"
        path.write_text("# nothing\n")
        with pytest.raises(DatasetError, match="holds no images"):
            ListSource(path)
        with pytest.raises(DatasetError, match="nowhere: no such folder; --root"):
            ListSource(path, folder / "nowhere")
        with pytest.raises(DatasetError, match="is not a text file"):
            ListSource(folder / "bee/y.png")


class TestArrays:
    def test_grey_and_colour(self) -> None:
        colour = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
        source = ArraySource(colour, [1, 0], ["a", "b"])
        assert source.ids == ("000000", "000001")
        assert np.array_equal(np.asarray(source.read(1)), colour[1])
        grey = ArraySource(colour[..., 0], [1, 0], ["a", "b"], ids=["x", "y"])
        assert np.array_equal(np.asarray(grey.read(1)), colour[1][..., :1].repeat(3, axis=2))

    @pytest.mark.parametrize(
        ("images", "labels", "names", "ids", "message"),
        [
            (np.zeros((2, 4, 4)), [0, 1], "ab", None, r"must be uint8 .* got float64 \(2, 4, 4\)"),
            (np.zeros((2, 4, 4, 4), np.uint8), [0, 1], "ab", None, r"got uint8 \(2, 4, 4, 4\)"),
            (np.zeros((2, 4, 4), np.uint8), [0], "ab", None, "2 images need as many labels"),
            (np.zeros((2, 4, 4), np.uint8), [0, 2], "ab", None, r"the label 2 .* outside 0\.\.1"),
            (np.zeros((2, 4, 4), np.uint8), [0, -1], "ab", None, "the label -1 "),
            (np.zeros((2, 4, 4), np.uint8), [0, 1], "aa", None, "two classes are called 'a'"),
            (np.zeros((2, 4, 4), np.uint8), [0, 1], "ab", ["x", "x"], "'x' stands there twice"),
            (np.zeros((2, 4, 4), np.uint8), [0, 1], "ab", ["x"], "need as many ids; got 1"),
            (np.zeros((0, 4, 4), np.uint8), [], "ab", None, "holds no images"),
        ],
    )
    def test_contradictions_are_refused(self, images, labels, names, ids, message) -> None:  # type: ignore[no-untyped-def]  # a table of cases
        with pytest.raises(DatasetError, match=message):
            ArraySource(images, labels, names, ids)


class TestOpenSource:
    def test_tells_folder_list_and_name_apart(self, folder: Path) -> None:
        (folder / "list.txt").write_text("bee/y.png 0\n")
        assert isinstance(open_source(folder), FolderSource)
        assert isinstance(open_source(str(folder / "list.txt")), ListSource)
        assert isinstance(open_source("digits-lt:test"), ArraySource)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (
                "nowhere/at-all",
                "no such folder, list or other file, or named data set; .*digits-lt:train",
            ),
            ("digits-lt", "digits-lt has no split ''; choose one of digits-lt:train, "),
            ("digits-lt:val", "has no split 'val'"),
        ],
    )
    def test_names_what_there_is(self, spec: str, message: str) -> None:
        with pytest.raises(DatasetError, match=message):
            open_source(spec)

    def test_a_named_set_keeps_its_classes(self) -> None:
        names = tuple("0123456789")
        assert open_source("digits-lt:test", SourceOptions(class_names=names)).class_names == names
        with pytest.raises(DatasetError, match="not those of the training split"):
            open_source("digits-lt:test", SourceOptions(class_names=("ant", "bee")))


def test_every_source_pickles_for_worker_processes(folder: Path) -> None:
    (folder / "list.txt").write_text("bee/y.png 0\n")
    sources: list[ImageSource] = [
        FolderSource(folder),
        ListSource(folder / "list.txt"),
        ArraySource(np.zeros((1, 2, 2), np.uint8), [0], ["a"]),
    ]
    for source in sources:
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301  our own bytes
        assert copy.ids == source.ids
        assert np.array_equal(np.asarray(copy.read(0)), np.asarray(source.read(0)))


def test_a_source_of_one_s_own_says_where_its_files_are_or_reads_them(folder: Path) -> None:
    class Own(ImageSource):
        def file(self, row: int) -> str:
            return str(folder / self.ids[row])

    names = ["cat/b.png", "bee/y.png"]
    source = Own("own", names, [0, 1], ["cat", "bee"])
    assert np.array_equal(np.asarray(source.read(1)), np.asarray(read_rgb(str(folder / names[1]))))
    with pytest.raises(NotImplementedError, match="ImageSource has neither `read` nor `file`"):
        ImageSource("bare", names, [0, 1], ["cat", "bee"]).read(0)


def test_labels_cannot_be_changed_behind_the_sources_back(folder: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        FolderSource(folder).labels[0] = 2


def test_the_real_cifar_folders(shared: Path) -> None:
    root = shared / "data" / "cifar100-lt001"
    train = open_source(root / "train")
    test = open_source(root / "test", SourceOptions(class_names=train.class_names))
    assert (len(train), len(test)) == (10_847, 10_000)
    assert np.bincount(test.labels).tolist() == [100] * 100
    assert re.fullmatch(r"apple/.*\.png", train.ids[0])


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), OSError(24, "Too many open files")]
)
def test_trouble_of_the_machine_is_not_a_broken_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DatasetError, match=f"{error.strerror}.*--resume") as caught:
        read_rgb(str(tmp_path / "a.png"))
    assert not isinstance(caught.value, UnreadableImageError)
