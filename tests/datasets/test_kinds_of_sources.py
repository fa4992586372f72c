"""Every kind of source gives the same images under the same labels, and says what is wrong."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import (
    AnnotationSource,
    ArraySource,
    HubSource,
    ImageSource,
    SourceOptions,
    TableSource,
    TarSource,
    open_source,
    open_sources,
    parse_rewrites,
    read_class_names,
    read_class_order,
)
from pipeline.errors import DatasetError, UnreadableImageError

COLOURS = {"a/1.png": (10, 0, 0), "a/2.png": (20, 0, 0), "b/3.png": (30, 0, 0)}
LABELS = {"a/1.png": "wasp", "a/2.png": "ant", "b/3.png": "wasp"}
"""Names sort to ant 0, wasp 1."""


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, colour in COLOURS.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(png(colour))
    return tmp_path


def csv_table(root: Path) -> str:
    rows = "\n".join(f"{path},{label}" for path, label in LABELS.items())
    (root / "t.csv").write_text(f"path,label\n{rows}\n")
    return str(root / "t.csv")


def parquet_table(root: Path) -> str:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"file": list(LABELS), "species": list(LABELS.values()), "x": 1})
    frame.to_parquet(root / "t.parquet")
    return f"{root / 't.parquet'},path=file,label=species"


def tar_shards(root: Path) -> str:
    for shard, paths in enumerate((["a/1.png", "a/2.png"], ["b/3.png"])):
        with tarfile.open(root / f"s-{shard:03d}.tar", "w") as archive:
            for path in paths:
                stem = path.removesuffix(".png")
                members = {f"{stem}.png": png(COLOURS[path]), f"{stem}.cls": LABELS[path].encode()}
                for name, content in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return str(root / "s-{000..001}.tar")


def npz_file(root: Path) -> str:
    images = np.stack([np.full((3, 4, 3), colour, np.uint8) for colour in COLOURS.values()])
    np.savez(root / "t.npz", x=images, y=list(LABELS.values()), ids=list(COLOURS))
    return f"{root / 't.npz'},images=x,labels=y"


def coco_json(root: Path) -> str:
    content = {
        "categories": [{"id": 9, "name": "wasp"}, {"id": 4, "name": "ant"}],
        "images": [{"id": i, "file_name": path} for i, path in enumerate(COLOURS)],
        "annotations": [
            {"image_id": i, "category_id": {"wasp": 9, "ant": 4}[LABELS[path]]}
            for i, path in enumerate(COLOURS)
        ],
    }
    (root / "t.json").write_text(json.dumps(content))
    return str(root / "t.json")


def hub_folder(root: Path) -> str:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["ant", "wasp"])}
    )
    rows = {
        "picture": [{"bytes": png(colour), "path": None} for colour in COLOURS.values()],
        "kind": [["ant", "wasp"].index(label) for label in LABELS.values()],
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made}).save_to_disk(str(root / "hub"))
    return f"hf:{root / 'hub'}:train"


KINDS = [csv_table, parquet_table, tar_shards, npz_file, coco_json, hub_folder]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_every_kind_gives_the_same(make: Callable[[Path], str], root: Path) -> None:
    source = open_source(make(root))
    assert source.class_names == ("ant", "wasp")
    assert source.labels.tolist() == [1, 0, 1]
    again: ImageSource = pickle.loads(pickle.dumps(source))  # noqa: S301  ours, for the workers
    assert [again.read(i).getpixel((0, 0)) for i in range(3)] == list(COLOURS.values())


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_labels_follow_given_names(make: Callable[[Path], str], root: Path) -> None:
    spec = make(root)
    source = open_source(spec, SourceOptions(class_names=("wasp", "bee", "ant")))
    assert source.labels.tolist() == [0, 2, 0]
    with pytest.raises(DatasetError, match="do not include 'wasp'"):
        open_source(spec, SourceOptions(class_names=("ant", "bee")))


class TestTable:
    def test_a_frame_in_memory(self, root: Path) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"path": list(COLOURS), "label": [0, 1, 0]})
        source = TableSource(frame, root)
        assert (source.class_names, source.ids) == (("0", "1"), tuple(COLOURS))
        assert source.read(2).getpixel((0, 0)) == (30, 0, 0)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("path,species\na,1\n", "has no column 'label' but path, species; name the columns"),
            ("path,label\na/1.png,\n", "row 0 has no 'label'"),
            ("path,label\n../secret.png,0\n", r"row 0: '../secret.png' leaves the root"),
            ("path,label\n/etc/passwd,0\n", r"row 0: '/etc/passwd' leaves the root"),
            ("path,label\na,0\na,0\n", "the sample 'a' stands there twice"),
            ("path,label\n", "holds no rows"),
        ],
    )
    def test_says_what_is_wrong(self, text: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(DatasetError, match=message):
            TableSource(tmp_path / "t.csv")

    def test_a_damaged_parquet_file(self, tmp_path: Path) -> None:
        pytest.importorskip("pyarrow")
        (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really")
        with pytest.raises(DatasetError, match="cannot be read as Parquet"):
            TableSource(tmp_path / "t.parquet")


class TestTar:
    @staticmethod
    def shard(path: Path, members: dict[str, bytes]) -> Path:
        with tarfile.open(path, "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    def test_json_labels_and_dots_in_suffixes(self, tmp_path: Path) -> None:
        members = {"x.jpg": png((1, 2, 3)), "x.json": b'{"label": 0, "width": 4}'}
        source = TarSource([self.shard(tmp_path / "a.tar", members)])
        assert (source.ids, source.labels.tolist()) == (("x",), [0])
        assert source.read(0).getpixel((0, 0)) == (1, 2, 3)

    def test_a_damaged_image_costs_one_row(self, tmp_path: Path) -> None:
        members = {"x.jpg": b"no image", "x.cls": b"0"}
        source = TarSource([self.shard(tmp_path / "a.tar", members)])
        with pytest.raises(UnreadableImageError, match="not an image"):
            source.read(0)

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({"x.jpg": b"i"}, r"sample 'x' has no label but '.jpg'"),
            ({"x.cls": b"0"}, r"sample 'x' has no image but '.cls'"),
            ({}, "holds no images"),
        ],
    )
    def test_lacking_parts(self, members: dict[str, bytes], message: str, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=message):
            TarSource([self.shard(tmp_path / "a.tar", members)])

    def test_one_sample_in_two_shards(self, tmp_path: Path) -> None:
        members = {"x.jpg": b"i", "x.cls": b"0"}
        shards = [self.shard(tmp_path / name, members) for name in ("a.tar", "b.tar")]
        with pytest.raises(DatasetError, match="'x' stands in an earlier shard"):
            TarSource(shards)

    def test_no_tar_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + b"gzip, it seems" * 100)
        with pytest.raises(DatasetError, match="no uncompressed tar file"):
            TarSource([tmp_path / "a.tar"])
        with pytest.raises(DatasetError, match=r"b-\*.tar: no such shards"):
            TarSource(str(tmp_path / "b-*.tar"))


def test_an_npz_file_runs_no_pickle(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", images=np.array([{}], object), labels=[0])
    with pytest.raises(DatasetError, match=r"cannot be read as an \.npz file"):
        open_source(tmp_path / "t.npz")


def test_an_npz_file_says_what_it_has(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "t.npz", train_images=np.zeros((2, 4, 4), np.uint8), train_labels=[[0], [1]]
    )
    with pytest.raises(DatasetError, match="no array 'images' but train_images, train_labels"):
        open_source(tmp_path / "t.npz")
    source = open_source(f"{tmp_path / 't.npz'},images=train_images,labels=train_labels")
    assert source.labels.tolist() == [0, 1]


def test_categories_of_one_name_stay_apart(tmp_path: Path) -> None:
    content = {
        "categories": [{"id": 1, "name": "bay"}, {"id": 2, "name": "bay"}],
        "images": [{"id": 7, "file_name": "x.jpg"}],
        "annotations": [{"image_id": 7, "category_id": 2}],
    }
    (tmp_path / "t.json").write_text(json.dumps(content))
    source = AnnotationSource(tmp_path / "t.json")
    assert (source.class_names, source.labels.tolist()) == (("bay (1)", "bay (2)"), [1])
    (tmp_path / "t.json").write_text('{"images": []}')
    with pytest.raises(DatasetError, match=r"no JSON of the COCO form .*KeyError: 'categories'"):
        AnnotationSource(tmp_path / "t.json")


class TestHub:
    def test_a_missing_data_set(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("datasets")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(DatasetError, match=r"hf:.*:train cannot be loaded"):
            HubSource(str(tmp_path / "nothing"), "train")

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
    def test_an_unknown_column(self, root: Path) -> None:
        with pytest.raises(DatasetError, match="has no column 'species' but picture, kind"):
            open_source(f"{hub_folder(root)},label=species")

    def test_the_form_of_the_name(self) -> None:
        with pytest.raises(DatasetError, match="write hf:NAME:SPLIT"):
            open_source("hf:beans")


class TestLists:
    """What copies of ImageNet-LT, Places-LT and iNaturalist differ in."""

    def test_beginnings_of_paths_are_rewritten(self, tmp_path: Path) -> None:
        (tmp_path / "l.txt").write_text("data_256/a/airfield/1.jpg 0\nval/x.jpg 1\n")
        rewrites = parse_rewrites(["data_256/*/=train/", "val/=validation/"])
        source = open_source(tmp_path / "l.txt", SourceOptions(rewrites=rewrites))
        assert source.ids == ("train/airfield/1.jpg", "validation/x.jpg")

    def test_a_rewrite_cannot_leave_the_root(self, tmp_path: Path) -> None:
        (tmp_path / "l.txt").write_text("a/x.jpg 0\n")
        with pytest.raises(DatasetError, match=r"line 1: '../x.jpg' leaves the root"):
            open_source(tmp_path / "l.txt", SourceOptions(rewrites=(("a/", "../"),)))
        with pytest.raises(DatasetError, match="A rewrite is OLD=NEW"):
            parse_rewrites(["a/"])

    def test_the_heads_order_of_the_classes(self, tmp_path: Path) -> None:
        (tmp_path / "train.txt").write_text("x.jpg 0\ny.jpg 1\nz.jpg 2\n")
        (tmp_path / "test.txt").write_text("v.jpg 2\n")
        (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
        (tmp_path / "order.txt").write_text("[2, 0,\n1]")
        options = SourceOptions(
            class_names=read_class_names(tmp_path / "names.txt"),
            class_order=read_class_order(tmp_path / "order.txt"),
        )
        paths = {name: tmp_path / f"{name}.txt" for name in ("train", "test")}
        opened = open_sources(paths, options)
        # Row 0 of the head is class 2, "cat"; row 1 class 0, row 2 class 1.
        assert opened["train"].class_names == opened["test"].class_names == ("cat", "ant", "bee")
        assert opened["train"].labels.tolist() == [1, 2, 0]
        assert opened["test"].labels.tolist() == [0]

    @pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3)])
    def test_an_order_names_every_class_once(self, order: tuple[int, ...], tmp_path: Path) -> None:
        (tmp_path / "l.txt").write_text("x.jpg 0\ny.jpg 1\nz.jpg 2\n")
        with pytest.raises(DatasetError, match=r"names each of the labels 0..2 once"):
            open_source(tmp_path / "l.txt", SourceOptions(class_order=order))

    def test_files_of_names_and_orders(self, tmp_path: Path) -> None:
        (tmp_path / "x.txt").write_text("ant\n\ncat\n")
        with pytest.raises(DatasetError, match="line 2 is empty"):
            read_class_names(tmp_path / "x.txt")
        with pytest.raises(DatasetError, match="holds whole numbers"):
            read_class_order(tmp_path / "x.txt")
        with pytest.raises(DatasetError, match="cannot be read"):
            read_class_order(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digits-lt:train,seed=1", "no setting 'seed' of such a source; it takes none"),
        ("nowhere,label=x", "no such folder"),
        ("cifar10-lt", "has the splits train and test, not ''"),
    ],
)
def test_settings_of_a_source(spec: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_source(spec)


def test_a_path_may_hold_commas(tmp_path: Path) -> None:
    folder = tmp_path / "x,label=y"
    (folder / "ant").mkdir(parents=True)
    (folder / "ant" / "1.png").write_bytes(png((1, 1, 1)))
    assert open_source(folder).class_names == ("ant",)


@pytest.mark.parametrize(
    ("shape", "dtype", "remedy"),
    [
        ((2, 4, 5, 3), np.float32, r"float32 \(2, 4, 5, 3\): \(images \* 255\).round\(\)"),
        ((2, 3, 4, 5), np.uint8, r"\(2, 3, 4, 5\): \.transpose\(0, 2, 3, 1\) puts their channels"),
        ((2, 3, 4, 5), np.float64, r"transpose\(0, 2, 3, 1\) .* and \(images \* 255\)"),
        ((2, 4, 5), np.int64, r"got int64 \(2, 4, 5\)\.$"),
    ],
)
def test_arrays_that_are_nearly_images_are_told_how(
    shape: tuple[int, ...], dtype: type[np.generic], remedy: str
) -> None:
    with pytest.raises(DatasetError, match=remedy):
        ArraySource(np.zeros(shape, dtype), [0, 1], ("a", "b"))
