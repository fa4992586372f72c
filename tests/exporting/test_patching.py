"""A patched checkpoint: the new head in the old one's place, and not a byte more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cache import Identity
from pipeline.backbones import BACKBONES
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.config import FitConfig
from pipeline.errors import ExportError
from pipeline.exporting import patch_checkpoint
from pipeline.heads import Head
from pipeline.provenance import Fitted

WIDTH, CLASSES = 64, 4


def state_dict(head: str = "linear", prefix: str = "") -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = BACKBONES["cifar-resnet20"].build(CLASSES).state_dict()
    return OrderedDict((prefix + k.replace("linear.", f"{head}."), v) for k, v in state.items())


def new_head() -> Head:
    generator = np.random.default_rng(0)
    identity = Identity({}, "a", "b", "c", {}, {}, "float32", "cpu", {}, {})
    return Head(
        generator.normal(size=(CLASSES, WIDTH)).astype(np.float32),
        generator.normal(size=CLASSES).astype(np.float32),
        identity, tuple("abcd"), (4, 3, 2, 1), Fitted(FitConfig()), {},
    )  # fmt: skip


LDMLR = {
    "state_dict": {
        "model": state_dict("fc"),
        "optimizer": {
            "state": {0: {"momentum_buffer": torch.ones(3)}},
            "param_groups": [{"lr": 1}],
        },
    },
    "train_info": {"class_num_list": [4, 3, 2, 1]},
    "dataset": {"name": "cifar"},
}
LDAM = {
    "epoch": 3, "arch": "resnet32", "state_dict": state_dict(prefix="module."),
    "best_acc1": torch.tensor(41.0), "optimizer": {"state": {}, "param_groups": []},
}  # fmt: skip
PLAIN = {"state_dict": state_dict()}
BARE = state_dict("fc")


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{where}.{i}")
    else:
        yield where, value


def patched(folder: Path, content: Any, model: str = "auto") -> tuple[TrainedModel, Any, Any, Any]:
    torch.save(content, folder / "old.pth")
    trained = load_checkpoint(folder / "old.pth", model=model)
    names = patch_checkpoint(trained, new_head(), folder / "new.pth")
    saved = torch.load(folder / "new.pth", weights_only=True)
    return trained, names, dict(leaves(content)), dict(leaves(saved))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (LDMLR, "state_dict.model.fc"),
        (LDAM, "state_dict.module.linear"),
        (PLAIN, "state_dict.linear"),
        (BARE, "fc"),
    ],
    ids=["ldmlr", "ldam-drw", "plain", "bare"],
)
def test_only_the_classifier_changes(tmp_path: Path, content: Any, place: str) -> None:
    _, names, before, after = patched(tmp_path, content)
    assert names == (f"{place}.weight", f"{place}.bias")
    assert list(before) == list(after)
    changed = []
    for key, value in before.items():
        other = after[key]
        same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
        assert type(value) is type(other)
        if not same:
            changed.append(key.removeprefix("."))
    assert changed == list(names)
    reloaded = load_checkpoint(tmp_path / "new.pth").classifier
    np.testing.assert_array_equal(reloaded.weight, new_head().weight)
    np.testing.assert_array_equal(reloaded.bias, new_head().bias)


def test_a_second_copy_of_the_classifier_is_replaced_too(tmp_path: Path) -> None:
    best = {key: tensor.clone() for key, tensor in state_dict().items()}
    _, names, _, after = patched(tmp_path, PLAIN | {"best": best})
    assert len(names) == 4
    np.testing.assert_array_equal(after[".best.linear.weight"].numpy(), new_head().weight)


def test_half_precision_and_parameters_stay_what_they_are(tmp_path: Path) -> None:
    state = OrderedDict((k, v.half() if v.is_floating_point() else v) for k, v in BARE.items())
    state["fc.weight"] = torch.nn.Parameter(state["fc.weight"])
    _, _, _, after = patched(tmp_path, state)
    assert after[".fc.weight"].dtype == torch.float16
    assert isinstance(after[".fc.weight"], torch.nn.Parameter)


def test_a_safetensors_checkpoint_stays_one_with_its_metadata(tmp_path: Path) -> None:
    save_file(dict(BARE), tmp_path / "old.safetensors", metadata={"made": "by us"})
    trained = load_checkpoint(tmp_path / "old.safetensors")
    patch_checkpoint(trained, new_head(), tmp_path / "new.safetensors")
    found = load_file(tmp_path / "new.safetensors")
    assert found.keys() == BARE.keys()
    np.testing.assert_array_equal(found["fc.bias"].numpy(), new_head().bias)


class Settings:
    """What a training script may pickle beside its weights."""


def test_a_copy_that_would_lack_something_is_not_made(tmp_path: Path) -> None:
    torch.save(PLAIN | {"config": Settings()}, tmp_path / "old.pth")
    trained = load_checkpoint(tmp_path / "old.pth")
    with pytest.raises(ExportError, match="would lack them"):
        patch_checkpoint(trained, new_head(), tmp_path / "new.pth")


def test_a_cosine_classifier_has_no_place_for_a_linear_head(tmp_path: Path) -> None:
    state = state_dict(prefix="module.")
    del state["module.linear.bias"]
    state["module.linear.weight"] = state["module.linear.weight"].T.contiguous()
    torch.save(LDAM | {"state_dict": state}, tmp_path / "ldam.pth")
    trained = load_checkpoint(tmp_path / "ldam.pth")
    with pytest.raises(ExportError, match="cosine classifier"):
        patch_checkpoint(trained, new_head(), tmp_path / "new.pth")
    assert not (tmp_path / "new.pth").exists()
