"""Files and folders of results are whole or not at all, and never take the place of others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import NolbError, OutputError, OutputExistsError
from pipeline.files import (
    begins_like,
    refuse_existing,
    refuse_existing_in,
    whole_file,
    whole_files,
    write_whole,
)
from tests.cache.store_making import make_store


def named_txt(path: Path) -> bool:
    return path.suffix == ".txt"


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_exists_is_replaced_only_where_asked_and_only_by_its_like(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    refuse_existing(path, overwrite=False)
    path.write_text("old")
    sentence = f"{path} exists already: give another name or --overwrite."
    with pytest.raises(OutputExistsError) as refused:
        refuse_existing(path, overwrite=False)
    assert str(refused.value) == sentence
    refuse_existing(path, overwrite=True, replaceable=named_txt)
    (tmp_path / "store.h5").write_text("precious")
    with pytest.raises(OutputExistsError, match="something else"):
        refuse_existing(tmp_path / "store.h5", overwrite=True, replaceable=named_txt)
    with pytest.raises(OutputExistsError, match="something else"):
        refuse_existing("/dev/null", overwrite=True)
    with pytest.raises(OutputExistsError) as refused:
        refuse_existing_in(tmp_path, ["b.txt", "a.txt"], overwrite=False)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("leads_to", ["there.txt", "nowhere.txt"])
def test_a_link_is_neither_replaced_nor_written_through(
    tmp_path: Path, leads_to: str, overwrite: bool
) -> None:
    (tmp_path / "there.txt").write_text("mine")
    link = tmp_path / "link.txt"
    link.symlink_to(leads_to)
    with pytest.raises(OutputExistsError, match="is a symbolic link: give the name that it leads"):
        write_whole(link, b"new", overwrite=overwrite)
    assert link.is_symlink()
    assert (tmp_path / "there.txt").read_text() == "mine"
    assert everything(tmp_path) == ["link.txt", "there.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_a_file_s_place_and_the_other_way_round(
    tmp_path: Path, overwrite: bool
) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"folder is a folder, not a file: give another"):
        refuse_existing(folder, overwrite=overwrite)
    with pytest.raises(OutputExistsError, match=r"file is a file, not a folder: give another"):
        refuse_existing_in(file, ["a"], overwrite=overwrite)


def test_a_store_is_no_folder_of_results(tmp_path: Path) -> None:
    make_store(tmp_path / "x.zarr").close()
    for name in ("x.zarr", "new.h5"):
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError, match=f"{name} is the name of a store: give"):
                refuse_existing_in(tmp_path / name, ["sweep.csv"], overwrite=overwrite)


def test_a_missing_folder_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"There is no folder .*no for a\.txt: make it first"):
        refuse_existing(tmp_path / "no" / "a.txt", overwrite=True)
    with pytest.raises(OutputError, match=r"There is no folder .*no for results: make it first"):
        refuse_existing_in(tmp_path / "no" / "results", overwrite=True)
    refuse_existing_in(tmp_path / "results", overwrite=False)  # that one is made
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputExistsError, match="is a symbolic link"):
        refuse_existing_in(tmp_path / "link", overwrite=True)


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that this process may look into and not write to."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755 if os.geteuid() == 0 else 0o555)
    if os.geteuid() == 0:
        (folder / "results").mkdir()
        os.seteuid(65534)
        yield folder
        os.seteuid(0)
    else:
        folder.chmod(0o755)
        (folder / "results").mkdir(mode=0o555)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_to(nobody: Path) -> None:
    sentence = f"The folder {nobody} cannot be written to: choose another one."
    for refused in (
        lambda: refuse_existing(nobody / "a.txt", overwrite=False),
        lambda: refuse_existing_in(nobody / "new", overwrite=False),
    ):
        with pytest.raises(OutputError) as error:
            refused()
        assert str(error.value) == sentence
    with pytest.raises(OutputError, match="results cannot be written to: choose"):
        refuse_existing_in(nobody / "results", overwrite=False)


def in_a_file(folder: Path, act: Callable[[], None]) -> None:
    with whole_file(folder / "a.txt", overwrite=True) as unfinished:
        unfinished.write_text("half")
        act()


def in_a_folder(folder: Path, act: Callable[[], None]) -> None:
    with whole_files(folder / "results", ["a.txt", "b.txt"], overwrite=True) as made:
        (made / "a.txt").write_text("half")
        act()


@pytest.mark.parametrize("writing", [in_a_file, in_a_folder])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, NolbError])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, writing: Callable[..., None], before: bool, kind: type[BaseException]
) -> None:
    if before:
        (tmp_path / "a.txt").write_text("old")
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "a.txt").write_text("old")
    names = everything(tmp_path)

    def fail() -> None:
        raise kind("in the middle")

    with pytest.raises(kind, match="in the middle"):
        writing(tmp_path, fail)
    assert everything(tmp_path) == names
    assert all(path.read_text() == "old" for path in tmp_path.rglob("*.txt"))


@pytest.mark.parametrize("writing", [in_a_file, in_a_folder])
def test_a_full_disk_is_one_sentence(
    tmp_path: Path, writing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\): make"):
        writing(tmp_path, lambda: None)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("writing", [in_a_file, in_a_folder])
def test_an_error_about_another_file_stays_what_it_is(
    tmp_path: Path, writing: Callable[..., None]
) -> None:
    with pytest.raises(FileNotFoundError):
        writing(tmp_path, lambda: open(tmp_path / "input.txt").close())  # noqa: PTH123
    assert everything(tmp_path) == []


def killed_while_writing(folder: Path) -> None:
    """Another process that is killed in the middle of both a file and a folder."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from pipeline.files import whole_file, whole_files\n"
        "out = Path(sys.argv[1])\n"
        "with whole_file(out / 'a.txt', overwrite=True) as a, "
        "whole_files(out / 'results', overwrite=True) as made:\n"
        "    a.write_text('half')\n"
        "    (made / 'b.txt').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, folder], check=False)
    assert died.returncode == -signal.SIGKILL


def test_what_a_kill_leaves_has_another_name_and_goes_with_the_next_writing(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.txt").write_text("old")
    killed_while_writing(tmp_path)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert not (tmp_path / "results").exists()
    left = [path.name for path in tmp_path.iterdir() if path.name != "a.txt"]
    assert len(left) == 2
    assert all(name.startswith((".a.txt.", ".results.")) for name in left)
    write_whole(tmp_path / "a.txt", b"new", overwrite=True)
    with whole_files(tmp_path / "results", overwrite=False) as made:
        (made / "b.txt").write_text("new")
    assert everything(tmp_path) == ["a.txt", "results", "results/b.txt"]


def test_two_that_write_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path, overwrite=True) as unfinished:
        unfinished.write_text("slow")
        others = [
            threading.Thread(target=write_whole, args=(path, b"x" * k), kwargs={"overwrite": True})
            for k in range(1, 9)
        ]
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert set(path.read_text()) == {"x"}
        assert unfinished.read_text() == "slow"
    assert path.read_text() == "slow"
    assert everything(tmp_path) == ["a.txt"]


def test_what_appears_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    def a_file() -> None:
        with whole_file(tmp_path / "a.txt", overwrite=False) as unfinished:
            unfinished.write_text("ours")
            (tmp_path / "a.txt").write_text("another's")

    def files() -> None:
        (tmp_path / "results").mkdir()
        with whole_files(tmp_path / "results", ["b.txt"], overwrite=False) as made:
            (made / "c.txt").write_text("ours")
            (tmp_path / "results" / "c.txt").write_text("another's")  # not even among the names

    for write in (a_file, files):
        with pytest.raises(OutputExistsError, match="exists already"):
            write()
    assert {path.read_text() for path in tmp_path.rglob("*.txt")} == {"another's"}


def test_a_folder_of_results_is_replaced_whole_and_the_rest_of_it_stays(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    names = ["a.txt", "b.txt", "part"]
    with whole_files(folder, names, overwrite=False) as made:
        (made / "a.txt").write_text("first")
        (made / "b.txt").write_text("first")
        (made / "part").mkdir()
        (made / "part" / "c.txt").write_text("first")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"a\.txt exists already"):
        refuse_existing_in(folder, names, overwrite=False)
    with whole_files(folder, names, overwrite=True) as made:
        (made / "a.txt").write_text("second")
        (made / "part").mkdir()
        (made / "part" / "d.txt").write_text("second")
    # b.txt of the first time would pass for the second's.
    assert everything(tmp_path) == [
        "results", "results/a.txt", "results/notes.txt", "results/part", "results/part/d.txt",
    ]  # fmt: skip
    assert (folder / "a.txt").read_text() == "second"
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(OutputExistsError, match="exists already"):
        refuse_existing_in(folder, overwrite=False)  # it shall be empty


@pytest.mark.parametrize("wanted", ["folder", "file", "link"])
def test_nothing_is_moved_where_one_of_several_has_no_place(tmp_path: Path, wanted: str) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "a.txt").write_text("old")
    place = folder / "b"
    if wanted == "folder":
        place.mkdir()
    elif wanted == "file":
        place.write_text("old")
    else:
        place.symlink_to("a.txt")

    def write() -> None:
        with whole_files(folder, ["a.txt"], overwrite=True) as made:
            (made / "a.txt").write_text("new")
            (made / "b").mkdir() if wanted == "file" else (made / "b").write_text("new")

    with pytest.raises(OutputExistsError, match=r"b is a (folder, not|file, not|symbolic link)"):
        write()
    assert (folder / "a.txt").read_text() == "old"
    assert everything(tmp_path) == ["results", "results/a.txt", "results/b"]


def test_files_are_as_open_to_others_as_any(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.txt").write_text("")
    write_whole(tmp_path / "a.txt", b"", overwrite=False)
    with whole_files(tmp_path / "results", overwrite=False) as made:
        (made / "a.txt").write_text("")
    for ours, plain in (("a.txt", "plain/a.txt"), ("results", "plain")):
        assert (tmp_path / ours).stat().st_mode == (tmp_path / plain).stat().st_mode


def test_a_kind_of_file_is_known_by_how_it_begins(tmp_path: Path) -> None:
    is_table = begins_like(r"image,class\n")
    for content, ours in (
        ("image,class\n0.png,bee\n", True),
        ("", True),  # there is nothing to lose
        ("image,classes\n", False),
        ("notes on image,class\n", False),
        ("image,clas", False),
        ("\x89PNG\r\n\x1a\n\0", False),
    ):
        (tmp_path / "a").write_text(content, encoding="latin-1")
        assert is_table(tmp_path / "a") == ours, content
    (tmp_path / "a").write_text("my thesis\n")
    with pytest.raises(OutputExistsError, match="something else"):
        write_whole(tmp_path / "a", b"image,class\n", overwrite=True, replaceable=is_table)
    assert (tmp_path / "a").read_text() == "my thesis\n"
