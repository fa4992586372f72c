"""`nolb store` looks at stores, checks and converts them: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cache import open_store, verify_store
from tests.cache.store_making import make_store
from tests.commands import nolb, refused, refused_at_once


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_info_prints_a_card_and_writes_json(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    make_store(path).close()
    shown = nolb("store", "info", path)
    assert shown.output.startswith(f"# x{suffix}\n")
    nolb("store", "info", path, "--card", tmp_path / "card.md", "--json", tmp_path / "j")
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


def test_convert(tmp_path: Path) -> None:
    make_store(tmp_path / "x.zarr").close()
    done = nolb("store", "convert", tmp_path / "x.zarr", tmp_path / "y.h5", "--dtype", "float16",
                "--shard-rows", 5)  # fmt: skip
    assert done.output == f"wrote          {tmp_path / 'y.h5'}\n"
    assert verify_store(tmp_path / "y.h5") == []
    with open_store(tmp_path / "y.h5") as store:
        assert (store.dtype, store.header.shard_rows) == ("float16", 5)
    assert "--overwrite" in refused("store", "convert", tmp_path / "x.zarr", tmp_path / "y.h5")


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
    told = refused_at_once(*command, card)
    assert told == f"nolb: {card} exists already: give another name or --overwrite."
    assert card.read_text() == "my thesis"
    assert "something else" in refused(*command, tmp_path / "x.h5", "--overwrite")
    assert (tmp_path / "x.h5").read_bytes() == before
    assert "something else" in nolb(*command, card, "--overwrite", code=1).output
    assert card.read_text() == "my thesis"
    card.unlink()
    nolb(*command, card)
    done = nolb(*command, card, "--overwrite")
    assert done.output == f"wrote          {card}\n"
    assert "features" in card.read_text()


@pytest.mark.parametrize("command", ["info", "verify", "repair", "convert"])
def test_what_is_no_store_is_one_sentence(tmp_path: Path, command: str) -> None:
    more = [tmp_path / "y.zarr"] if command == "convert" else []
    for name in ("missing.zarr", "x.txt"):
        refused_at_once("store", command, tmp_path / name, *more)
