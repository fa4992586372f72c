"""`nolb store`: what it prints, its exit codes, and a repair from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cache import open_store, verify_store
from pipeline.cli import main
from tests.cache.store_making import make_store, tree
from tests.small_data import image_folder, small_checkpoint

ROOT = Path(__file__).resolve().parents[1]


def nolb(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


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
    assert shown.exit_code == 0
    assert shown.output.startswith(f"# x{suffix}\n")
    written = nolb("store", "info", path, "--card", tmp_path / "card.md", "--json", tmp_path / "j")
    assert written.exit_code == 0
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
    assert nolb("store", "verify", path).exit_code == 0
    full = nolb("store", "verify", path, "--full", "--json", tmp_path / "j")
    assert full.exit_code == 1
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
        assert done.exit_code == 0, done.output
        assert json.loads((tmp_path / "j").read_text())["computed"] == ["train-00001"]
        assert "repaired, every byte is as written" in done.output
    else:
        begun = nolb("store", "repair", path)
        assert "1 are computed again" in begun.output
        assert f"Finish with: nolb extract ... --out {path} --resume" in begun.output
        assert extract(inputs, path, "--resume").exit_code == 0
    assert tree(path) == before


def test_a_repair_needs_all_images_or_none(tmp_path: Path) -> None:
    assert nolb("store", "repair", tmp_path / "x.zarr", "--train", "a").exit_code == 2


def test_convert(tmp_path: Path) -> None:
    make_store(tmp_path / "x.zarr").close()
    done = nolb("store", "convert", tmp_path / "x.zarr", tmp_path / "y.h5", "--dtype", "float16",
                "--shard-rows", 5)  # fmt: skip
    assert done.exit_code == 0
    assert done.output == f"wrote {tmp_path / 'y.h5'}\n"
    assert verify_store(tmp_path / "y.h5") == []
    with open_store(tmp_path / "y.h5") as store:
        assert (store.dtype, store.header.shard_rows) == ("float16", 5)
    again = nolb("store", "convert", tmp_path / "x.zarr", tmp_path / "y.h5")
    assert again.exit_code == 1
    assert "--overwrite" in again.output


@pytest.mark.parametrize("command", ["info", "verify", "repair", "convert"])
def test_what_is_no_store_is_one_sentence(tmp_path: Path, command: str) -> None:
    more = [tmp_path / "y.zarr"] if command == "convert" else []
    for name in ("missing.zarr", "x.txt"):
        failed = nolb("store", command, tmp_path / name, *more)
        assert failed.exit_code == 1
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
