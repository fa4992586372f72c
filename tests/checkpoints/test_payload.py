"""Reading files: nothing in them runs, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.checkpoints import FAMILIES, load_checkpoint
from pipeline.checkpoints.payload import read_payload
from pipeline.errors import CheckpointError


class Hostile:
    """Unpickled, it would make a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.trace),)


def zipped(content: object, path: Path) -> None:
    torch.save(content, path)


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def tarred(content: object, path: Path) -> None:
    data = pickle.dumps(content)
    with tarfile.open(path, "w") as tar:
        for name in ("pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


CLOTHINGS: dict[str, Callable[[object], object]] = {
    "alone": lambda hostile: hostile,
    "plain": lambda hostile: {"conv1.weight": torch.zeros(1), "fc.weight": hostile},
    "ldam-drw": lambda hostile: {
        "epoch": 1, "arch": "resnet32", "state_dict": OrderedDict(), "best_acc1": hostile,
    },
    "ldmlr": lambda hostile: {
        "state_dict": {"model": OrderedDict()}, "train_info": {"class_num_list": [hostile]},
    },
}  # fmt: skip


@pytest.mark.parametrize("save", [zipped, legacy, bare, tarred])
@pytest.mark.parametrize("clothing", CLOTHINGS)
def test_a_hostile_pickle_runs_nothing(
    tmp_path: Path, clothing: str, save: Callable[[object, Path], None]
) -> None:
    trace, file = tmp_path / "ran", tmp_path / "checkpoint.pth"
    save(CLOTHINGS[clothing](Hostile(trace)), file)
    for model in ("auto", *(family.NAME for family in FAMILIES)):
        with pytest.raises(CheckpointError):
            load_checkpoint(file, model=model)
    assert not trace.exists()


def test_the_hostile_pickle_would_run_if_it_were_let(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    pickle.loads(pickle.dumps(Hostile(trace)))  # noqa: S301  shows that the test above can fail
    assert trace.is_dir()


def test_a_refusal_names_the_object_and_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {}, "its_ece": np.float64(0.5)}, file)
    with pytest.raises(
        CheckpointError, match=r"holds numpy\.\S*scalar .* could run code"
    ) as caught:
        read_payload(file)
    assert "torch.save(model.state_dict(), FILE)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [zipped, legacy])
def test_reads_both_formats_of_torch(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    file = tmp_path / "checkpoint.pth"
    save({"epoch": 3, "state_dict": OrderedDict(weight=torch.arange(3.0))}, file)
    payload = read_payload(file)
    state = payload.mapping("state_dict")
    assert state is not None
    assert torch.equal(torch.as_tensor(state["weight"]), torch.arange(3.0))
    assert payload.mapping("epoch") is None
    assert payload.mapping("state_dict", "nothing") is None
    assert payload.describe() == "at its top level: epoch, state_dict with 1 tensors"


def test_reads_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.arange(3.0)}, file)
    assert torch.equal(torch.as_tensor(read_payload(file).content["weight"]), torch.arange(3.0))


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"\x02" + bytes(7) + b"{}")  # the length of the header, and an empty one
    # printf '\x02\0\0\0\0\0\0\0{}' | sha256sum
    expected = "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd"
    assert read_payload(file).sha256 == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "no such file; name the file that holds the trained weights"),
        ("empty.pth", b"", "is damaged or no checkpoint"),
        ("text.pth", b"not a checkpoint at all\n", "is damaged or no checkpoint"),
        ("pickle.pth", b"\x80\x02]q\x00(K\x01K\x02\xff.", "is damaged or no checkpoint"),
        ("zip.pth", b"PK\x03\x04 a torn zip", "is damaged or no checkpoint"),
        ("text.safetensors", b"not a checkpoint at all\n", "is not a whole safetensors file"),
    ],
)
def test_a_file_that_is_no_checkpoint(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_payload(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice is to load unsafely


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder, not a checkpoint file"):
        read_payload(tmp_path)


@pytest.mark.parametrize("save", [zipped, legacy])
def test_every_truncation_is_refused(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    whole, file = tmp_path / "whole.pth", tmp_path / "cut.pth"
    save({"weight": torch.randn(50)}, whole)
    data = whole.read_bytes()
    for length in range(1, len(data) - 1, 37):
        file.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_payload(file)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], 5, None])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=f"this file holds a {type(content).__name__}"):
        read_payload(file)


def test_a_whole_pickled_network_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(
        CheckpointError, match=r"holds torch\.nn\.modules\.linear\.Linear .* run code"
    ):
        read_payload(file)
