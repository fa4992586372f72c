"""`nolb store repair`: from end to end, by the user's word alone, and not by wrong means."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import Result

from pipeline.extracting import recalibration
from pipeline.extracting.forward import ForwardPass
from tests.cache.store_making import make_spec, make_store, tree
from tests.commands import nolb, refused
from tests.small_data import image_folder, small_checkpoint, small_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    return small_inputs(tmp_path_factory.mktemp("inputs"))


def sources(inputs: Path) -> list[object]:
    return [
        *("--checkpoint", inputs / "m.pth"),
        *("--train", inputs / "train", "--test", inputs / "test"),
    ]


def extract(inputs: Path, out: Path, *options: object) -> Result:
    settings = ["--views", 1, "--batch-size", 3, "--shard-rows", 4, "--workers", 0]
    return nolb("extract", *sources(inputs), "--out", out, *settings, "--device", "cpu", *options)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_repair_from_end_to_end(inputs: Path, tmp_path: Path, at_once: bool) -> None:
    path = tmp_path / "x.zarr"
    extract(inputs, path)
    before = tree(path)
    assert "nothing to repair" in nolb("store", "repair", path).output
    (path / "train/views/c.0.1.0").unlink()
    (path / "test/zarr.json").write_text("{}")
    if at_once:
        done = nolb("store", "repair", path, *sources(inputs), "--json", tmp_path / "j")
        assert json.loads((tmp_path / "j").read_text())["computed"] == ["train-00001"]
        assert "repaired, every byte is as written" in done.output
    else:
        begun = nolb("store", "repair", path)
        assert "1 are computed again" in begun.output
        assert f"next           nolb extract ... --out {path} --resume" in begun.output
        extract(inputs, path, "--resume")
    assert tree(path) == before


def test_a_repair_needs_all_images_or_none(tmp_path: Path) -> None:
    nolb("store", "repair", tmp_path / "x.zarr", "--train", "a", code=2)


NETS = """
from pathlib import Path

import torch
from torch import nn

RAN = Path(__file__).with_name("ran.txt")
RAN.touch()

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Conv2d(3, 5, 3)
        self.last = nn.Linear(5, num_classes)

    def forward(self, x):
        return self.last(self.body(x).relu().mean((2, 3)))

def three(num_classes=3):
    RAN.write_text("three")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(num_classes)
"""
"""A user's module that leaves a file behind when its code runs."""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is there once `repair_nets`, in the working folder, has run."""
    (tmp_path / "repair_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "repair_nets", raising=False)
    return tmp_path / "ran.txt"


def damaged_store(path: Path, config: object) -> dict[str, bytes]:
    """A store that notes these settings and has lost a shard; what is there."""
    provenance = {} if config is None else {"config": config}
    make_store(path, dataclasses.replace(make_spec(), provenance=provenance)).close()
    (path / "train/features/c.1.0").unlink()
    return tree(path)


def unrepaired(inputs: Path, path: Path, *options: object, code: int = 1) -> str:
    """The one sentence of a repair that leaves the store, and what is beside it, as they were."""
    before, beside = tree(path), sorted(path.parent.iterdir())
    given = options if "--train" in options else (*sources(inputs), *options)
    told = refused("store", "repair", path, *given, code=code)
    assert (tree(path), sorted(path.parent.iterdir())) == (before, beside)
    return told


@pytest.mark.parametrize(
    "model",
    ["repair_nets:three", "nolb:repair_nets:three", "plain:repair_nets:three",
     "ride:scale=4,repair_nets:three", "crt:repair_nets:three"],
)  # fmt: skip
def test_a_store_has_no_function_run_that_the_user_has_not_named(
    inputs: Path, ran: Path, tmp_path: Path, model: str
) -> None:
    damaged_store(tmp_path / "x.zarr", {"model": model})
    told = unrepaired(inputs, tmp_path / "x.zarr", code=2)
    assert not ran.exists()
    assert "x.zarr: its features are of repair_nets:three, a function that runs only where" in told
    assert told.endswith(f"give --model {model}.")
    # Another name is the user's, and has that of the store not run either.
    assert "no backbone" in unrepaired(inputs, tmp_path / "x.zarr", "--model", "plain:none").lower()
    # A preparation computes nothing, and needs no name.
    nolb("store", "repair", tmp_path / "x.zarr")
    assert not ran.exists()


def test_a_store_of_a_function_is_repaired_by_the_user_s_word(
    inputs: Path, ran: Path, tmp_path: Path
) -> None:
    path, images = tmp_path / "x.zarr", ("--train", inputs / "train", "--test", inputs / "test")
    settings = ("--shard-rows", 4, "--workers", 0, "--device", "cpu")
    named = ("--model", "repair_nets:three")
    nolb("extract", *images, "--out", path, *named, *settings)
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    ran.unlink()
    assert "give --model repair_nets:three" in unrepaired(inputs, path, *images, code=2)
    assert not ran.exists()
    nolb("store", "repair", path, *images, *named)
    assert ran.read_text() == "three"
    assert tree(path) == before


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (None, "notes no settings of its extraction"),
        (["views"], "notes no settings of its extraction"),
        ({"colour_of_the_sky": "blue"}, "unknown key 'colour_of_the_sky'"),
        ({"views": "many"}, "views must be a whole number, not 'many'"),
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"model": 7}, "model must be text, not 7"),
    ],
)
def test_settings_of_another_nolb_leave_the_store_as_it_was(
    inputs: Path, tmp_path: Path, config: object, told: str
) -> None:
    damaged_store(tmp_path / "x.zarr", config)
    sentence = unrepaired(inputs, tmp_path / "x.zarr", code=2)
    assert told in sentence
    assert "known are" not in sentence
    assert sentence.endswith("with nolb extract ... --resume in the settings of the extraction.")
    # And so it goes.
    assert "1 are computed again" in nolb("store", "repair", tmp_path / "x.zarr").output


def test_a_repair_by_wrong_means_leaves_the_store_as_it_was(inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    extract(inputs, path)
    (path / "train/features/c.1.0").unlink()
    small_checkpoint(inputs / "other.pth", scale=2.0)
    image_folder(tmp_path / "others", (2, 2, 2), seed=5)
    whole = {"--checkpoint": inputs / "m.pth", "--train": inputs / "train", "--test": inputs / "test"}  # fmt: skip  # noqa: E501
    for flag, wrong, told in (
        ("--checkpoint", inputs / "none.pth", "none.pth"),
        ("--checkpoint", inputs / "other.pth", "checkpoint: this "),
        ("--test", tmp_path / "nowhere", "nowhere"),
        ("--train", tmp_path / "others", "samples of 'train'"),
        ("--model", "nothing", "No checkpoint family is called 'nothing'"),
    ):
        given = whole | {flag: wrong}
        assert told in unrepaired(inputs, path, *(word for pair in given.items() for word in pair))
    nolb("store", "repair", path, *sources(inputs))


def test_an_extraction_with_shares_and_names_is_repaired(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    images = ["--train", inputs / "train", "--test", 0.4, "--split-seed", 3]
    images += ["--class-names", tmp_path / "names.txt"]
    path = tmp_path / "x.zarr"
    words = ["--checkpoint", inputs / "m.pth", *images, "--shard-rows", 4, "--device", "cpu"]
    nolb("extract", *words, "--workers", 0, "--out", path)
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    assert "samples of" in unrepaired(inputs, path, "--checkpoint", inputs / "m.pth", *images[:4])
    nolb("store", "repair", path, "--checkpoint", inputs / "m.pth", *images)
    assert tree(path) == before


def test_another_recalibrated_backbone_is_told_before_anything_is_begun(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zarr"
    extract(inputs, path, "--recalibrate-bn", 6)
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    with monkeypatch.context() as older:  # as a version that takes the statistics otherwise
        older.setattr(recalibration, "_drawn_rows", lambda *_: [0, 1, 2, 3, 4, 5])
        assert "backbone: this" in unrepaired(inputs, path, *sources(inputs))
    nolb("store", "repair", path, *sources(inputs))
    assert tree(path) == before


def test_an_interrupted_repair_goes_on_with_the_same_command(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zarr"
    extract(inputs, path)
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    (path / "test/features/c.0.0").unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(ForwardPass, "seal", stop)
        nolb("store", "repair", path, *sources(inputs), code=1)
    done = nolb("store", "repair", path, *sources(inputs))
    assert "6 shards are whole, 0 are computed again" in done.output
    assert tree(path) == before


def test_a_file_that_lost_its_head_and_its_tail_is_left_as_it_is(
    inputs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.h5"
    extract(inputs, path)
    for left in (bytes(600) + path.read_bytes()[600:-300], bytes(600)):
        path.write_bytes(left)
        told = refused("store", "repair", path, *sources(inputs))
        assert "Restore it from a copy, or move it away and extract again." in told
        assert path.read_bytes() == left


def test_a_machine_s_own_settings_are_not_the_store_s(inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    spec = dataclasses.replace(make_spec(device="cuda"), provenance={"config": {"device": "auto"}})
    make_store(path, spec).close()
    (path / "train/features/c.1.0").unlink()
    if not torch.cuda.is_available():
        told = unrepaired(inputs, path, code=2)
        assert "x.zarr: its features were computed on cuda" in told


def test_a_repair_is_in_the_type_that_the_store_was_converted_to(
    inputs: Path, tmp_path: Path
) -> None:
    extract(inputs, tmp_path / "x.zarr")
    path = tmp_path / "half.zarr"
    nolb("store", "convert", tmp_path / "x.zarr", path, "--dtype", "float16")
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    nolb("store", "repair", path, *sources(inputs))
    assert tree(path) == before


@pytest.mark.parametrize("option", ["--checkpoint", "--val", "--root", "--model"])
def test_what_a_preparation_has_no_use_for_is_refused(tmp_path: Path, option: str) -> None:
    make_store(tmp_path / "x.zarr").close()
    told = refused("store", "repair", tmp_path / "x.zarr", option, "a", code=2)
    assert "needs --train and --test" in told
