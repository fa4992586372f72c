"""The command line: the whole path, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from tests.commands import nolb, refused
from tests.processes import python
from tests.small_data import image_folder, small_checkpoint

COMMANDS = ("demo", "extract", "fit-head", "sweep-temps", "evaluate")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoint, images, store and head, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("made")
    small_checkpoint(folder / "m.pth")
    image_folder(folder / "train", (9, 5, 3))
    image_folder(folder / "test", (4, 4, 4), seed=1)
    nolb(*extract_options(folder), "--json", folder / "extract.json")
    nolb("fit-head", folder / "s.zarr", "--out", folder / "h.safetensors")
    return folder


def extract_options(folder: Path, out: str = "s.zarr") -> list[object]:
    return [
        "extract", "--checkpoint", folder / "m.pth", "--train", folder / "train",
        "--test", folder / "test", "--out", folder / out, "--workers", 0, "--device", "cpu",
        "--views", 2,
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_and_shows_an_example(command: str) -> None:
    result = nolb(command, "--help")
    assert "--" in result.output
    for parameter in main.commands[command].params:
        for option in parameter.opts:
            assert option.lstrip("-") in result.output.lower()


def test_help_and_version_of_the_installed_command() -> None:
    for option in ("--help", "--version"):
        said = python("-m", "pipeline", option)
        assert "nolb" in said or "pipeline" in said
    assert "extract" in nolb("-h").output


def test_the_path_prints_tables_and_the_next_command(made: Path) -> None:
    result = nolb("evaluate", made / "s.zarr")
    assert "old" in result.output
    assert "12 images" in result.output
    content = json.loads((made / "extract.json").read_text())
    assert content["images"] == {"train": 17, "test": 12}
    assert content["old"]["n_samples"] == 12


def test_evaluate_s_json_keeps_the_contract(made: Path) -> None:
    result = nolb("evaluate", made / "s.zarr", made / "h.safetensors", "--json", "-")
    content = json.loads(result.stdout)
    contract = [
        "accuracy", "geometric_mean", "harmonic_mean", "lowest_recall", "substituted_zeros",
        "recalls", "groups", "split", "n_samples", "class_names",
    ]  # fmt: skip
    assert content.pop("written_by") == "nolb evaluate"
    assert list(content)[: len(contract)] == contract
    assert content["class_names"] == ["ant", "bee", "cat"]
    # Counts 9, 5, 3 are all below 20: one group, and two that are absent, not zero.
    assert content["groups"]["many"] is None
    assert content["groups"]["medium"] is None
    assert content["groups"]["few"] == pytest.approx(np.mean(content["recalls"]))


def test_evaluate_an_ensemble_with_a_figure(made: Path, tmp_path: Path) -> None:
    figure = tmp_path / "f.png"
    result = nolb(
        "evaluate", made / "s.zarr", made / "h.safetensors", "--t-old", 2, "--figure", figure,
        "--json", tmp_path / "e.json",
    )  # fmt: skip
    assert "ensemble" in result.output
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "e.json").read_text())["temperatures"] == [2.0, 1.0]


def test_sweep_temps_writes_table_json_and_heat_maps(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    nolb(
        "sweep-temps", made / "s.zarr", made / "h.safetensors", "--out", out,
        "--t-old", "1,2,3", "--t-new", "1:4:3",
    )  # fmt: skip
    header, *rows = (out / "sweep.csv").read_text().splitlines()
    assert header.startswith("t_old,t_new,accuracy,geometric_mean,harmonic_mean,lowest_recall")
    assert [tuple(map(float, row.split(",")[:2])) for row in rows] == [
        (t_old, t_new) for t_old in (1, 2, 3) for t_new in (1, 2, 4)
    ]
    assert json.loads((out / "sweep.json").read_text())["chosen_on"] is None
    assert list(out.glob("*.png"))
    again = refused("sweep-temps", made / "s.zarr", made / "h.safetensors", "--out", out)
    assert "--overwrite" in again


def test_options_come_before_the_recipe(made: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("fit_head:\n  epochs: 3\n  lr: 0.2\n")
    head = tmp_path / "h.safetensors"
    arguments = ["fit-head", made / "s.zarr", "--out", head, "--config", recipe, "--epochs", 2]
    result = nolb(*arguments)
    assert "2 epochs" in result.output
    from pipeline.heads import load_head

    config = load_head(head).provenance.config
    assert (config.epochs, config.lr) == (2, 0.2)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract"], 2, "Missing option '--train'"),
        (["fit-head", "nothing.zarr", "--out", "n.safetensors"], 1, "there is no store here"),
        (["fit-head", "s.zarr", "--out", "h.safetensors"], 1, "h.safetensors exists already"),
        (["fit-head", "s.zarr", "--out", "n.safetensors", "--epochs", "0"], 2, "epochs must be"),
        (["fit-head", "s.zarr", "--out", "n.safetensors", "--loss", "x"], 2, "Invalid value"),
        (["fit-head", "s.zarr", "--out", "n.safetensors", "--config", "x"], 2, "No recipe"),
        (["fit-head", "s.zarr", "--out", "no/folder/n.safetensors"], 1, "no/folder"),
        (["fit-head", "train", "--out", "n.safetensors"], 1, "train"),
        (["sweep-temps", "s.zarr", "m.pth", "--out", "o"], 1, "m.pth"),
        (["sweep-temps", "s.zarr", "h.safetensors", "--out", "o", "--t-old", "0"], 2, "grid"),
        (["sweep-temps", "s.zarr", "h.safetensors", "--out", "m.pth"], 1, "m.pth is a file"),
        (["evaluate", "s.zarr", "nothing.safetensors"], 1, "There is no head file"),
        (["evaluate", "s.zarr", "--split", "val"], 1, "val"),
        (["evaluate", "s.zarr", "--t-old", "2"], 1, "give a head"),
        (["evaluate", "s.zarr", "h.safetensors", "--t-old", "-1"], 1, "above 0"),
        (["evaluate", "s.zarr", "--figure", "no/folder/f.png"], 1, "no/folder"),
        # Before the work: there is no such store.
        (["evaluate", "none.zarr", "--figure", "f.gif"], 1, "f.gif cannot be written as a figure"),
        (["evaluate", "s.zarr", "--json", "no/folder/e.json"], 1, "no folder no/folder"),
        (["evaluate", "s.zarr", "--json", "extract.json"], 1, "extract.json exists already"),
        (["fit-head", "s.zarr", "--out", "m.pth", "--overwrite"], 1, "m.pth is something else"),
        (["evaluate", "s.zarr", "--json", "m.pth"], 1, "m.pth exists already"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_one_sentence(
    made: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(made)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert message in refused(*arguments, code=code)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--checkpoint", "nothing.pth"], 1, "nothing.pth"),
        (["--checkpoint", "test"], 1, "test"),
        (["--checkpoint", "extract.json"], 1, "extract.json"),
        (["--train", "nothing"], 1, "no such"),
        (["--test", "digits-lt:test"], 1, "classes"),
        (["--out", "x.txt"], 1, ".zarr"),
        (["--out", "x.memory"], 2, "gone when the command ends"),
        (["--out", "no/folder/x.zarr"], 1, "no/folder"),
        (["--model", "nothing"], 1, "nothing"),
        (["--mean", "1,2"], 2, "mean must be"),
        (["--resume", "--overwrite"], 2, "contradict"),
        (["--device", "tpu"], 2, "device must be"),
        ([], 1, "s.zarr"),
    ],
)
def test_a_wrong_extraction_is_one_sentence(
    made: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(made)
    out = [] if not options else ["--out", made / "new.zarr"]
    assert message in refused(*extract_options(made), *out, *options, code=code)
    assert not (made / "new.zarr").exists()


def test_an_empty_class_folder_is_named(made: Path, tmp_path: Path) -> None:
    train = image_folder(tmp_path / "train", (2, 0, 1))
    assert "bee" in refused(*extract_options(made, "e.zarr"), "--train", train)


def test_missing_and_left_over_keys_are_listed(made: Path, tmp_path: Path) -> None:
    import torch

    state = torch.load(made / "m.pth", weights_only=True)["state_dict"]
    state["bn2.wait"] = state.pop("bn2.weight")
    torch.save({"state_dict": state}, tmp_path / "typo.pth")
    arguments = [*extract_options(made, "k.zarr"), "--checkpoint", tmp_path / "typo.pth"]
    for model in ("plain:small-cnn", "auto"):
        message = refused(*arguments, "--model", model)
        assert "1 missing: bn2.weight" in message
        assert "1 left over: bn2.wait" in message


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_damaged_and_sparse_checkpoints_say_what_to_do(made: Path, tmp_path: Path) -> None:
    import torch

    whole = (made / "m.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    state = torch.load(made / "m.pth", weights_only=True)["state_dict"]
    state["conv1.weight"] = state["conv1.weight"].to_sparse()
    torch.save({"state_dict": state}, tmp_path / "sparse.pth")
    for name, remedy in (("cut", "fetch or save it again"), ("sparse", "save the model dense")):
        arguments = [*extract_options(made, "k.zarr"), "--checkpoint", tmp_path / f"{name}.pth"]
        assert remedy in refused(*arguments)


def test_a_head_of_another_store_is_refused_and_the_fields_are_named(
    made: Path, tmp_path: Path
) -> None:
    store = tmp_path / "other.h5"
    nolb(*extract_options(made), "--out", store, "--mean", "0.1,0.2,0.3")
    message = refused("evaluate", store, made / "h.safetensors")
    assert "preprocessing" in message


def test_the_same_head_serves_the_store_in_the_other_format(made: Path, tmp_path: Path) -> None:
    store = tmp_path / "same.h5"
    nolb(*extract_options(made), "--out", store)
    outputs = [
        nolb("evaluate", path, made / "h.safetensors", "--json", "-").stdout
        for path in (store, made / "s.zarr")
    ]
    assert outputs[0] == outputs[1]


def test_an_unreadable_image_is_told_and_strict_stops(made: Path, tmp_path: Path) -> None:
    train = image_folder(tmp_path / "train", (3, 3, 3))
    (train / "bee" / "1.png").write_bytes(b"no image")
    arguments = [*extract_options(made), "--train", train, "--out", tmp_path / "u.zarr"]
    result = nolb(*arguments)
    told = "1 of 9 images of train cannot be read and are left out, first bee/1.png"
    assert told in result.output
    assert "--strict" in refused(*arguments, "--strict", "--overwrite")


def test_names_are_data_and_no_markup(made: Path, tmp_path: Path) -> None:
    train = image_folder(tmp_path / "[red]train", (3, 3, 3))
    for folder in (train, image_folder(tmp_path / "test", (2, 2, 2))):
        (folder / "bee").rename(folder / "[")
    (train / "[" / "b].png").write_bytes(b"no image")  # its id holds [/b], rich's end of bold
    result = nolb(
        *extract_options(made), "--train", train, "--test", tmp_path / "test",
        "--out", tmp_path / "my [old] store.zarr",
    )  # fmt: skip
    assert "first [/b].png" in result.output
    assert "my [old] store" in result.output


def test_ctrl_c_says_how_to_go_on(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.progress import ProgressReport

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressReport, "update", interrupt)
    message = refused(*extract_options(made), "--out", made / "i.zarr")
    assert "--resume" in message
    monkeypatch.undo()
    nolb(*extract_options(made), "--out", made / "i.zarr", "--resume")


def test_a_full_disk_is_one_sentence(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "sweep.csv")

    monkeypatch.setattr("pipeline.sweeping.files.save_sweep", full)
    said = refused("sweep-temps", made / "s.zarr", made / "h.safetensors", "--out", tmp_path / "o")
    assert "No space left on device" in said
