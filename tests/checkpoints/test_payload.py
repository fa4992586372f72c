"""Reading files: nothing in them runs, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.checkpoints import FAMILIES, load_checkpoint
from pipeline.checkpoints.payload import SAVED_OR_BARE, Payload, read_payload
from pipeline.checkpoints.unpickling import ArrayShell, Placeholder
from pipeline.errors import CheckpointError
from tests.checkpoints.peer_files import ONE_EACH as FILES


class Settings(dict[str, float]):
    """A configuration as many libraries have it."""


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


class Sly(Hostile):
    """The same through a function that no list of dangerous names has."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return make_trace, (str(self.trace),)


def make_trace(folder: str) -> None:
    Path(folder).mkdir()


def dressed(content: dict[str, Any], hostile: object, place: str) -> dict[str, Any]:
    """The file of a family with something hostile in it."""
    if place == "beside the weights":
        return {**content, "config": hostile}

    def among(mapping: Mapping[str, Any]) -> dict[str, Any]:
        inner = {k: among(v) if isinstance(v, Mapping) and v else v for k, v in mapping.items()}
        has_weights = any(isinstance(value, torch.Tensor) for value in mapping.values())
        return {**inner, "hostile.weight": hostile} if has_weights else inner

    return among(content)


PLACES = ("beside the weights", "among the weights")


@pytest.mark.parametrize("save", [zipped, legacy])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FILES)
def test_a_hostile_pickle_in_each_familys_clothing_runs_nothing(
    tmp_path: Path, family: str, place: str, save: Callable[[object, Path], None]
) -> None:
    trace, file = tmp_path / "ran", tmp_path / "checkpoint.pth"
    content = FILES[family][0]()
    save(dressed(content, Hostile(trace), place), file)
    for model in ("auto", FILES[family][1]):
        with pytest.raises(CheckpointError, match=r"asks for posix\.mkdir, which .* runs code"):
            load_checkpoint(file, model=model)
    # What is on no list becomes a placeholder, which does nothing either.
    save(dressed(content, Sly(trace), place), file)
    payload = read_payload(file)
    assert payload.foreign[-1].endswith("test_payload.make_trace")
    if place == "beside the weights":
        model = "lade:lade" if FILES[family][1] == "lade" else "auto"
        assert load_checkpoint(file, model=model).family == FILES[family][1]
    else:
        with pytest.raises(CheckpointError):
            load_checkpoint(file)
    assert not trace.exists()


@pytest.mark.parametrize("save", [zipped, legacy, bare, tarred])
def test_a_hostile_pickle_alone_runs_nothing(
    tmp_path: Path, save: Callable[[object, Path], None]
) -> None:
    trace, file = tmp_path / "ran", tmp_path / "checkpoint.pth"
    for hostile in (Hostile(trace), Sly(trace)):
        save(hostile, file)
        for model in ("auto", *(family.NAME for family in FAMILIES)):
            with pytest.raises(CheckpointError):
                load_checkpoint(file, model=model)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("builtins.eval", "builtins.getattr", "os.system", "nt.system", "subprocess.Popen"),
        *("importlib.import_module", "__builtin__.exec", "cPickle.loads", "commands.getoutput"),
    ],
)
def test_functions_that_run_code_are_named_and_refused(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    file = tmp_path / "checkpoint.pth"
    # c: push a global; (: mark; X...: a string; t: tuple; R: call; .: stop
    argument = b"X\x01\x00\x00\x001"
    pickled = f"c{module}\n{function}\n(".encode() + argument + b"tR."
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + pickled)
        archive.writestr("x/version", "3")
    with pytest.raises(CheckpointError, match="which no trained model needs and which runs code"):
        read_payload(file)


def test_the_hostile_pickle_would_run_if_it_were_let(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    pickle.loads(pickle.dumps(Hostile(trace)))  # noqa: S301  shows that the test above can fail
    assert trace.is_dir()


@pytest.mark.parametrize("save", [zipped, legacy])
def test_numpys_numbers_are_read(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    file = tmp_path / "checkpoint.pth"
    arrays = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.array([1, 258], ">i4"),
        "whole": np.array(7, np.int64),
    }
    save({"its_ece": np.float64(0.1), "count": np.int32(-3), "ok": np.bool_(True), **arrays}, file)
    payload = read_payload(file)
    assert payload.foreign == ()
    assert (payload.content["its_ece"], payload.content["count"]) == (0.1, -3)
    assert payload.content["ok"]
    for name, array in arrays.items():
        read = payload.content[name]
        assert isinstance(read, ArrayShell)
        assert read.array.dtype == array.dtype
        assert np.array_equal(read.array, array)


@pytest.mark.parametrize("old", [True, False])
def test_both_spellings_of_numpys_core_are_read(tmp_path: Path, old: bool) -> None:
    file = tmp_path / "checkpoint.pth"
    pickled = pickle.dumps({"its_ece": np.float64(0.1)}, protocol=2)
    core = b"numpy.core.multiarray" if old else b"numpy._core.multiarray"
    pickled = re.sub(rb"numpy\._?core\.multiarray", core, pickled)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/version", "3")
        archive.writestr("x/byteorder", sys.byteorder)
    assert read_payload(file).content["its_ece"] == 0.1


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array(["a"]), np.datetime64("2020"), np.array([(1,)], "i4,")]
)
def test_other_numpy_values_do_not_harm(tmp_path: Path, value: object) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save({"other": value, "weight": torch.ones(2)}, file)
    try:
        other = read_payload(file).content["other"]
    except CheckpointError as error:
        assert "damaged or no checkpoint" in str(error) or "holds" in str(error)  # noqa: PT017
    else:
        assert isinstance(other, ArrayShell)
        assert other.array.size == 0


def test_objects_beside_the_weights_are_named_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    config = argparse.Namespace(lr=0.1, resume=PurePosixPath("saved"))
    torch.save({"args": config, "state_dict": {"weight": torch.ones(2)}}, file)
    payload = read_payload(file)
    assert payload.foreign[0] == "argparse.Namespace"
    assert any(name.endswith("PurePosixPath") for name in payload.foreign)
    assert isinstance(payload.content["args"], Placeholder)
    assert payload.mapping("state_dict") is not None


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


def test_the_first_place_with_a_state_dict_counts() -> None:
    one, two = {"module.fc.weight": torch.ones(1)}, {"fc.weight": torch.zeros(1)}
    nested = Payload("x.pth", "", {"state_dict": {"model": one, "epoch": 3}, "model": two})
    assert nested.state(("state_dict",)) is None  # not tensors alone
    assert nested.state(("lost",), ("state_dict", "model"), ("model",)) == {"fc.weight": 1}
    assert nested.state(("model",), ("state_dict", "model")) == {"fc.weight": 0}
    assert nested.state(*SAVED_OR_BARE) is None
    assert Payload("x.pth", "", one).state(*SAVED_OR_BARE) == {"fc.weight": 1}
    assert Payload("x.pth", "", {"state_dict": one}).state(*SAVED_OR_BARE) == {"fc.weight": 1}


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


@pytest.mark.parametrize("key", [None, "model"])
def test_of_a_whole_pickled_network_the_weights_are_taken(tmp_path: Path, key: str | None) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))
    network[0].register_buffer("passing", torch.zeros(3), persistent=False)
    file = tmp_path / "model.pt"
    torch.save(network if key is None else {key: network, "epoch": 3}, file)
    payload = read_payload(file)
    state = payload.content if key is None else payload.mapping(key)
    wanted = network.state_dict()
    assert state is not None
    assert set(state) == set(wanted)
    assert all(torch.equal(torch.as_tensor(state[name]), wanted[name]) for name in wanted)
    assert "torch.nn.modules.conv.Conv2d" in payload.foreign


def test_a_whole_network_in_the_old_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    legacy(nn.Linear(2, 2), file)
    with pytest.raises(CheckpointError, match=r"whole network in the format .*state_dict\(\)"):
        read_payload(file)


def test_an_object_built_on_a_dictionary_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"config": Settings(lr=0.1), "state_dict": {"weight": torch.ones(2)}}, file)
    with pytest.raises(CheckpointError, match=r"holds \S*test_payload.Settings beside its weights"):
        read_payload(file)


def test_an_object_that_is_no_network_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save(argparse.Namespace(lr=0.1), file)
    with pytest.raises(CheckpointError, match=r"holds a argparse\.Namespace"):
        read_payload(file)
