"""The demo does what the README promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import nolb, refused


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    result = nolb("demo", "--out", folder, "--json", folder.parent / "demo.json")
    (folder.parent / "output.txt").write_text(result.output)
    return folder


def test_it_leaves_every_artefact(out: Path) -> None:
    for name in ("digits.pth", "digits.zarr", "head.safetensors", "sweep/sweep.csv"):
        assert (out / name).exists()
    assert (out / "recalls.png").read_bytes()[:4] == b"\x89PNG"


def test_the_worst_digit_gets_better(out: Path) -> None:
    scores = json.loads((out.parent / "demo.json").read_text())
    assert set(scores) == {"written_by", "old", "new", "ensemble"}
    # Two nines were seen: the old head finds about a quarter of them, the new one twice as many.
    assert scores["old"]["lowest_class"] == "9"
    assert scores["new"]["lowest_recall"] > scores["old"]["lowest_recall"] + 10
    assert scores["new"]["harmonic_mean"] > scores["old"]["harmonic_mean"] + 5
    assert scores["new"]["n_samples"] == 600


def test_it_ends_with_the_commands_for_one_s_own_data(out: Path) -> None:
    text = (out.parent / "output.txt").read_text()
    for command in ("extract", "fit-head", "sweep-temps", "evaluate"):
        assert f"\n  nolb {command} " in text


def test_it_touches_no_folder_that_is_not_its_own(out: Path, tmp_path: Path) -> None:
    assert "--overwrite" in refused("demo", "--out", out)
    (tmp_path / "letter.txt").write_text("dear")
    assert "not the folder of a demo" in refused("demo", "--out", tmp_path, "--overwrite")
    assert (tmp_path / "letter.txt").read_text() == "dear"
