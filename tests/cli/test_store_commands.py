"""`nolb store`: what it prints, its exit codes, and a repair from end to end."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import Result

from cache import open_store, verify_store
from pipeline.extracting import recalibration
from pipeline.extracting.forward import ForwardPass
from tests.cache.store_making import make_spec, make_store, tree
from tests.commands import nolb
from tests.small_data import image_folder, small_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    small_checkpoint(folder / "m.pth")
    image_folder(folder / "train")
    image_folder(folder / "test", (2, 2, 2), seed=1)
    return folder


def sources(inputs: Path) -> list[object]:
    return [
        *("--checkpoint", inputs / "m.pth"),
        *("--train", inputs / "train", "--test", inputs / "test"),
    ]


def extract(inputs: Path, out: Path, *options: object) -> Result:
    settings = ["--views", 1, "--batch-size", 3, "--shard-rows", 4, "--workers", 0]
    return nolb("extract", *sources(inputs), "--out", out, *settings, "--device", "cpu", *options)


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_info_prints_a_card_and_writes_json(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    make_store(path).close()
    shown = nolb("store", "info", path)
    assert shown.output.startswith(f"# x{suffix}\n")
    written = nolb("store", "info", path, "--card", tmp_path / "card.md", "--json", tmp_path / "j")
    assert (tmp_path / "card.md").read_text() == shown.output
    assert json.loads((tmp_path / "j").read_text())["class_counts"] == [8, 6, 7]
    parsed = json.loads(nolb("store", "info", path, "--json", "-").stdout)
    assert parsed["splits"]["test"]["n_samples"] == 9


def test_verify_tells_whole_from_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    make_store(path).close()
    assert nolb("store", "verify", path).output == (
        f"{path}: every shard is in its place (no byte was read)\n"
    )
    assert "every byte is as written" in nolb("store", "verify", path, "--full").output
    file = path / "train/features/c.1.0"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    nolb("store", "verify", path)
    full = nolb("store", "verify", path, "--full", "--json", tmp_path / "j", code=1)
    assert "mend it with nolb store repair" in full.output
    assert json.loads((tmp_path / "j").read_text())["damaged_shards"] == ["train-00001"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_repair_from_end_to_end(inputs: Path, tmp_path: Path, at_once: bool) -> None:
    path = tmp_path / "x.zarr"
    assert extract(inputs, path).exit_code == 0
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
        assert extract(inputs, path, "--resume").exit_code == 0
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


def refused(inputs: Path, path: Path, *options: object) -> str:
    """The one sentence of a repair that leaves the store, and what is beside it, as they were."""
    before, beside = tree(path), sorted(path.parent.iterdir())
    given = options if "--train" in options else (*sources(inputs), *options)
    failed = nolb("store", "repair", path, *given)
    assert failed.exit_code in {1, 2}, failed.output
    assert isinstance(failed.exception, SystemExit)
    assert (tree(path), sorted(path.parent.iterdir())) == (before, beside)
    return failed.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "model",
    ["repair_nets:three", "nolb:repair_nets:three", "plain:repair_nets:three",
     "ride:scale=4,repair_nets:three", "crt:repair_nets:three"],
)  # fmt: skip
def test_a_store_has_no_function_run_that_the_user_has_not_named(
    inputs: Path, ran: Path, tmp_path: Path, model: str
) -> None:
    damaged_store(tmp_path / "x.zarr", {"model": model})
    told = refused(inputs, tmp_path / "x.zarr")
    assert not ran.exists()
    assert "x.zarr: its features are of repair_nets:three, a function that runs only where" in told
    assert told.endswith(f"give --model {model}.")
    # Another name is the user's, and has that of the store not run either.
    assert "no backbone" in refused(inputs, tmp_path / "x.zarr", "--model", "plain:none").lower()
    # A preparation computes nothing, and needs no name.
    nolb("store", "repair", tmp_path / "x.zarr")
    assert not ran.exists()


def test_a_store_of_a_function_is_repaired_by_the_user_s_word(
    inputs: Path, ran: Path, tmp_path: Path
) -> None:
    path, images = tmp_path / "x.zarr", ("--train", inputs / "train", "--test", inputs / "test")
    settings = ("--shard-rows", 4, "--workers", 0, "--device", "cpu")
    named = ("--model", "repair_nets:three")
    made = nolb("extract", *images, "--out", path, *named, *settings)
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    ran.unlink()
    assert "give --model repair_nets:three" in refused(inputs, path, *images)
    assert not ran.exists()
    done = nolb("store", "repair", path, *images, *named)
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
    sentence = refused(inputs, tmp_path / "x.zarr")
    assert told in sentence
    assert "known are" not in sentence
    assert sentence.endswith("with nolb extract ... --resume in the settings of the extraction.")
    # And so it goes.
    assert "1 are computed again" in nolb("store", "repair", tmp_path / "x.zarr").output


def test_a_repair_by_wrong_means_leaves_the_store_as_it_was(inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    assert extract(inputs, path).exit_code == 0
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
        assert told in refused(inputs, path, *(word for pair in given.items() for word in pair))
    nolb("store", "repair", path, *sources(inputs))


def test_an_extraction_with_shares_and_names_is_repaired(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    images = ["--train", inputs / "train", "--test", 0.4, "--split-seed", 3]
    images += ["--class-names", tmp_path / "names.txt"]
    path = tmp_path / "x.zarr"
    words = ["--checkpoint", inputs / "m.pth", *images, "--shard-rows", 4, "--device", "cpu"]
    done = nolb("extract", *words, "--workers", 0, "--out", path)
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    assert "samples of" in refused(inputs, path, "--checkpoint", inputs / "m.pth", *images[:4])
    done = nolb("store", "repair", path, "--checkpoint", inputs / "m.pth", *images)
    assert tree(path) == before


def test_another_recalibrated_backbone_is_told_before_anything_is_begun(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zarr"
    done = extract(inputs, path, "--recalibrate-bn", 6)
    assert done.exit_code == 0, done.output
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    with monkeypatch.context() as older:  # as a version that takes the statistics otherwise
        older.setattr(recalibration, "_drawn_rows", lambda *_: [0, 1, 2, 3, 4, 5])
        assert "backbone: this" in refused(inputs, path, *sources(inputs))
    nolb("store", "repair", path, *sources(inputs))
    assert tree(path) == before


def test_an_interrupted_repair_goes_on_with_the_same_command(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zarr"
    assert extract(inputs, path).exit_code == 0
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    (path / "test/features/c.0.0").unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(ForwardPass, "seal", stop)
        assert nolb("store", "repair", path, *sources(inputs)).exit_code != 0
    done = nolb("store", "repair", path, *sources(inputs))
    assert "6 shards are whole, 0 are computed again" in done.output
    assert tree(path) == before


def test_a_file_that_lost_its_head_and_its_tail_is_repaired(inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    assert extract(inputs, path).exit_code == 0
    before = path.read_bytes()
    path.write_bytes(bytes(600) + before[600:-300])
    done = nolb("store", "repair", path, *sources(inputs))
    assert path.read_bytes() == before
    (tmp_path / "y.h5").write_bytes(bytes(600))
    failed = nolb("store", "repair", tmp_path / "y.h5", *sources(inputs), code=1)
    assert "Traceback" not in failed.output
    assert (tmp_path / "y.h5").read_bytes() == bytes(600)


def test_a_machine_s_own_settings_are_not_the_store_s(inputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    spec = dataclasses.replace(make_spec(device="cuda"), provenance={"config": {"device": "auto"}})
    make_store(path, spec).close()
    (path / "train/features/c.1.0").unlink()
    if not torch.cuda.is_available():
        told = refused(inputs, path)
        assert "x.zarr: its features were computed on cuda" in told


def test_a_repair_is_in_the_type_that_the_store_was_converted_to(
    inputs: Path, tmp_path: Path
) -> None:
    assert extract(inputs, tmp_path / "x.zarr").exit_code == 0
    path = tmp_path / "half.zarr"
    nolb("store", "convert", tmp_path / "x.zarr", path, "--dtype", "float16")
    before = tree(path)
    (path / "train/features/c.1.0").unlink()
    done = nolb("store", "repair", path, *sources(inputs))
    assert tree(path) == before


@pytest.mark.parametrize("option", ["--checkpoint", "--val", "--root", "--model"])
def test_what_a_preparation_has_no_use_for_is_refused(tmp_path: Path, option: str) -> None:
    make_store(tmp_path / "x.zarr").close()
    failed = nolb("store", "repair", tmp_path / "x.zarr", option, "a", code=2)
    assert "needs --train and --test" in failed.output


def test_convert(tmp_path: Path) -> None:
    make_store(tmp_path / "x.zarr").close()
    done = nolb("store", "convert", tmp_path / "x.zarr", tmp_path / "y.h5", "--dtype", "float16",
                "--shard-rows", 5)  # fmt: skip
    assert done.output == f"wrote          {tmp_path / 'y.h5'}\n"
    assert verify_store(tmp_path / "y.h5") == []
    with open_store(tmp_path / "y.h5") as store:
        assert (store.dtype, store.header.shard_rows) == ("float16", 5)
    again = nolb("store", "convert", tmp_path / "x.zarr", tmp_path / "y.h5", code=1)
    assert "--overwrite" in again.output


def test_convert_as_json_goes_on_from_where_it_stopped(tmp_path: Path) -> None:
    make_store(tmp_path / "x.zarr").close()
    both = ("store", "convert", tmp_path / "x.zarr", tmp_path / "y.h5")
    nolb(*both, "--resume", "--overwrite", code=2)
    done = nolb(*both, "--json", "-")
    content = json.loads(done.stdout)
    assert (content["path"], content["complete"]) == (str(tmp_path / "y.h5"), True)


def test_a_card_replaces_nothing_unasked_and_never_a_store(tmp_path: Path) -> None:
    make_store(tmp_path / "x.h5").close()
    before = (tmp_path / "x.h5").read_bytes()
    card = tmp_path / "README.md"
    card.write_text("my thesis")
    command = ("store", "info", tmp_path / "x.h5", "--card")
    refused = nolb(*command, card)
    assert (refused.exit_code, card.read_text()) == (1, "my thesis")
    assert refused.output == f"nolb: {card} exists already: give another name or --overwrite.\n"
    assert "something else" in nolb(*command, tmp_path / "x.h5", "--overwrite").output
    assert (tmp_path / "x.h5").read_bytes() == before
    done = nolb(*command, card, "--overwrite")
    assert done.output == f"wrote          {card}\n"
    assert "features" in card.read_text()


@pytest.mark.parametrize("command", ["info", "verify", "repair", "convert"])
def test_what_is_no_store_is_one_sentence(tmp_path: Path, command: str) -> None:
    more = [tmp_path / "y.zarr"] if command == "convert" else []
    for name in ("missing.zarr", "x.txt"):
        failed = nolb("store", command, tmp_path / name, *more, code=1)
        assert failed.output.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["faults", "--kills", "2", "--seed", "3"], ["damage", "--trials", "5", "--seed", "2"]],
    ids=lambda arguments: arguments[0],
)
def test_the_long_proofs_run(arguments: list[str]) -> None:
    name, *options = arguments
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("byte-identical" if name == "faults" else "original bytes") in done.stdout
