"""From `pretrain` to `extract` the images stay in their splits, or it is told."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import Result

from cache import open_store
from pipeline.checkpoints import load_checkpoint
from pipeline.config import ExtractConfig
from pipeline.datasets import open_sources
from pipeline.errors import DatasetError
from pipeline.extracting.plan import plan_extraction
from pipeline.stages.extract import extract
from pipeline.stages.pretrain import Callbacks
from tests.commands import nolb, refused
from tests.small_data import CLASSES, image_folder, small_checkpoint
from tests.small_trainings import SMALL, Run, run_in

PLAIN = ExtractConfig(device="cpu", features_only=True)

QUICK = ("--batch-size", 4, "--workers", 0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_in(tmp_path)


def pretrained(*options: object) -> str:
    """The command that a training says comes next."""
    result = nolb("pretrain", "--model", "small-cnn", "--epochs", 1, *QUICK, *options)
    label = "next           "
    lines = result.stdout.splitlines()
    return next(line for line in lines if line.startswith(label)).removeprefix(label)


def extracted(command: str) -> Result:
    """What comes of the command as a shell would read it."""
    program, *words = shlex.split(command)
    assert program == "nolb"
    return nolb(*words, *QUICK)


TOLD = "was trained on other images than those of train"


def test_the_next_command_makes_the_splits_of_the_training(tmp_path: Path) -> None:
    image_folder(tmp_path / "it's here" / "D", (20, 10, 6))
    data, out = tmp_path / "it's here" / "D", tmp_path / "it's here" / "q.pth"
    command = pretrained(
        "--train", data, "--val", 0.2, "--test", 0.3, "--split-seed", 5, "--out", out
    )
    result = extracted(command)
    store = open_store(out.with_suffix(".zarr"))
    assert set(store.splits) == {"train", "val", "test"}
    assert load_checkpoint(out).training_images == store.identity.samples["train"]
    assert "note" not in result.output
    # Another seed, or no validation images: some that were learned from are tested on.
    for change in (("--split-seed 5", "--split-seed 4"), ("--val 0.2", "")):
        assert change[0] in command
        result = extracted(f"{command.replace(*change)} --overwrite")
        assert f"{out} {TOLD}" in result.output
        notes = open_store(out.with_suffix(".zarr")).provenance["notes"]
        assert len([note for note in notes if TOLD in note]) == 1


def test_the_next_command_knows_where_listed_images_lie(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.folder)
    for split in ("train", "test"):
        lines = [
            f"old place/{path.relative_to(split)} {CLASSES.index(path.parent.name)}"
            for path in sorted(Path(split).rglob("*.png"))
        ]
        Path(f"{split}.txt").write_text("\n".join(lines))
    Path("my names").write_text("\n".join(CLASSES))
    command = pretrained(
        *("--train", "train.txt", "--val", 0.4, "--class-names", "my names", "--out", "m.pth"),
        *("--root", "train", "--rewrite", "old place/=", "--rewrite", "*/x=y"),
    )
    assert command == (
        "nolb extract --checkpoint m.pth --train train.txt --val 0.4 --root train "
        "--class-names 'my names' --rewrite 'old place/=' --rewrite '*/x=y' --out m.zarr --test SRC"
    )
    result = extracted(command.replace("SRC", "test.txt"))
    assert TOLD not in result.output
    assert len(open_store("m.zarr")["val"].ids) == 6


def test_a_network_of_one_s_own_is_allowed_by_the_next_command(run: Run) -> None:
    name = "tests.stages.test_pretrain:own_network"
    options = ("--train", run.folder / "train", "--test", run.folder / "test", "--model", name)
    command = pretrained(*options, "--out", run.folder / "m.pth")
    assert f"--model nolb:{name}" in command
    extracted(command)


def test_the_stage_notes_what_the_command_tells(run: Run) -> None:
    out = run().checkpoint
    plain = ExtractConfig(device="cpu", workers=0)
    both = {"train": run.folder / "train", "test": run.folder / "test"}
    store = extract(out, both, run.folder / "same.zarr", plain).store
    assert store.provenance["notes"] == []
    image_folder(run.folder / "more", (7, 4, 3))
    others = both | {"train": run.folder / "more"}
    store = extract(out, others, run.folder / "other.zarr", plain).store
    assert [TOLD in note for note in store.provenance["notes"]] == [True]


def test_a_file_that_does_not_know_its_images_has_no_note(run: Run) -> None:
    images = open_sources({"train": run.folder / "train", "test": run.folder / "test"})
    model = load_checkpoint(small_checkpoint(run.folder / "plain.pth"))
    assert model.training_images == ""
    assert plan_extraction(model, images, PLAIN).model.notes == model.notes
    own = load_checkpoint(run().checkpoint)
    assert own.training_images
    assert plan_extraction(own, images, PLAIN).model.notes == ()
    # Other classes: a backbone that is taken elsewhere.
    other = open_sources({"train": "digits-lt:train", "test": "digits-lt:test"})
    assert plan_extraction(own, other, PLAIN).model.notes == ()


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("again", ["{}", "{}/", "{}/../train"])
def test_the_training_images_are_not_scored_as_if_they_were_others(
    run: Run, split: str, again: str
) -> None:
    train = f"{run.folder}/train"
    sources = ["--train", train, "--test", f"{run.folder}/test", f"--{split}", again.format(train)]
    for words in (
        ["pretrain", "--out", run.folder / "new.pth", "--model", "small-cnn"],
        ["extract", "--out", run.folder / "new.zarr", "--checkpoint", run().checkpoint],
    ):
        assert f"images given for {split} are those of train" in refused(*words, *sources)
    assert not list(run.folder.glob("new.*"))
    with pytest.raises(DatasetError, match="those of train"):
        run("new.pth", sources={"train": train, split: again.format(train)})


def test_some_images_in_two_splits_are_told(run: Run) -> None:
    (run.folder / "few.txt").write_text("train/ant/0.png 0\ntest/bee/0.png 1\ntest/cat/0.png 2\n")
    (run.folder / "names").write_text("\n".join(CLASSES))
    sources = ["--train", run.folder / "train", "--val", run.folder / "few.txt"]
    sources += ["--test", run.folder / "test", "--class-names", run.folder / "names"]
    options = ["--model", "small-cnn", "--epochs", 1, *QUICK]
    result = nolb("pretrain", *sources, "--out", run.folder / "m.pth", *options)
    told = "1 of the 3 images of val are images of train too, such as train/ant/0.png"
    assert result.stdout.count(told) == 1, result.output
    words = ["--checkpoint", run.folder / "m.pth", "--out", run.folder / "s.zarr", *QUICK]
    result = nolb("extract", *sources, *words)
    assert result.stdout.count(told) == 1, result.output
    assert "2 of the 6 images of test are images of val too" in result.stdout
    assert len(open_store(run.folder / "s.zarr").provenance["notes"]) == 2


def test_what_is_told_of_a_training_comes_before_it(run: Run) -> None:
    lines: list[str] = []
    same = {"train": run.folder / "train", "val": run.folder / "test", "test": run.folder / "test"}
    run(config=SMALL, sources=same, report=Callbacks(on_begin=lines.append))
    (note,) = [line for line in lines if line.startswith("note")]
    assert "6 of the 6 images of test are images of val too" in note
