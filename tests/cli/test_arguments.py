"""STORE and HEAD in each other's place: what is where, and the order, before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import nolb
from tests.left_behind import made_store, saved_head


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    head = saved_head(made_store(tmp_path), tmp_path / "new.safetensors")
    unnamed = tmp_path / "new"
    unnamed.write_bytes(head.read_bytes())
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "photos").mkdir()
    return {
        "HEAD": head, "UNNAMED": unnamed, "STORE": tmp_path / "s.zarr", "H5": tmp_path / "s.h5",
        "FOLDER": tmp_path / "photos", "OUT": tmp_path / "out",
    }  # fmt: skip


EVALUATE = "nolb evaluate STORE [HEAD]..."
BALANCE = "nolb balance-head HEAD [STORE]"
AVERAGE = "nolb average-heads HEAD HEAD..."


@pytest.mark.parametrize(
    ("command", "misplaced", "what", "order"),
    [
        ("evaluate HEAD STORE", "HEAD", "a head, not a store", EVALUATE),
        ("evaluate UNNAMED", "UNNAMED", "a head, not a store", EVALUATE),
        ("evaluate STORE H5", "H5", "a store, not a head", EVALUATE),
        ("evaluate STORE HEAD FOLDER", "FOLDER", "a folder, not a head", EVALUATE),
        ("sweep-temps HEAD STORE --out OUT", "HEAD", "a head", "nolb sweep-temps STORE HEAD..."),
        ("fit-head HEAD --out OUT", "HEAD", "a head, not a store", "nolb fit-head STORE"),
        ("adopt-head HEAD STORE --out OUT", "HEAD", "a head", "nolb adopt-head STORE HEAD"),
        ("adopt-head STORE FOLDER --out OUT", "FOLDER", "a folder", "nolb adopt-head STORE HEAD"),
        ("report HEAD STORE --out OUT", "HEAD", "a head", "nolb report STORE HEAD"),
        ("export HEAD STORE --format onnx --out OUT", "HEAD", "a head", "nolb export STORE HEAD"),
        ("balance-head STORE HEAD --out OUT", "STORE", "a store, not a head", BALANCE),
        ("balance-head HEAD HEAD --out OUT", "HEAD", "a head, not a store", BALANCE),
        ("average-heads HEAD STORE --out OUT", "STORE", "a store", AVERAGE),
        ("predict STORE HEAD", "STORE", "a store", "nolb predict HEAD|EXPORT IMAGES..."),
    ],
)  # fmt: skip
def test_what_changed_places_is_told(
    places: dict[str, Path], command: str, misplaced: str, what: str, order: str
) -> None:
    said = nolb(*(places.get(word, word) for word in command.split()), code=2).output
    assert f"{places[misplaced]} is {what}" in said
    assert f"The order is: {order}" in said.replace("main ", "nolb ")
    assert ("fit-head" in said) == command.startswith("fit-head")
    assert not places["OUT"].exists()
