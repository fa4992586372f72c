"""Files as each peer's script saves them, with random weights, for tests without the real ones."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.backbones import BACKBONES, find_backbone
from pipeline.backbones.ride_resnet import ExpertNetwork, ExpertPlan
from pipeline.checkpoints import TrainedModel, load_checkpoint
from pipeline.errors import CheckpointError

C = 7
State = dict[str, Tensor]


def weights(backbone: str = "cifar-resnet20", head: str = "linear", seed: int = 0) -> State:
    """Random weights of a backbone, its classifier called `head`."""
    torch.manual_seed(seed)
    entry = BACKBONES.get(backbone) or find_backbone(backbone)
    state = entry.build(C).state_dict()
    return {key.replace(f"{entry.classifier}.", f"{head}."): value for key, value in state.items()}


def prefixed(state: Mapping[str, Any], prefix: str = "module.") -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def part(state: Mapping[str, Tensor], name: str) -> State:
    """One submodule's weights by their names in it."""
    return {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}


def rest(state: Mapping[str, Tensor], name: str) -> State:
    return {key: value for key, value in state.items() if not key.startswith(f"{name}.")}


def transposed(state: State, name: str) -> State:
    """The state with a NormedLinear (D, C) for a classifier."""
    cosine = {key: value for key, value in state.items() if key != f"{name}.bias"}
    return {**cosine, f"{name}.weight": state[f"{name}.weight"].T.contiguous()}


def ldam(state: State) -> dict[str, Any]:
    return {
        "epoch": 200, "arch": "resnet20", "state_dict": state,
        "best_acc1": torch.tensor(38.7), "optimizer": {"state": {}, "param_groups": []},
    }  # fmt: skip


def ldmlr(state: State) -> dict[str, Any]:
    return {
        "train_info": {"class_num_list": [50, 40, 30, 20, 10, 5, 2], "epoch": 200},
        "state_dict": {"model": state, "optimizer": {}, "lr_scheduler": {}},
    }


def two_networks(state: State, *, best: bool = True, **beside: Any) -> dict[str, Any]:
    """OLTR's form; the classifier in `state` is `fc`, with `scales` beside it for LWS."""
    head = {k: v for k, v in state.items() if k.startswith("fc.") or k == "scales"}
    networks = {
        "feat_model": prefixed({k: v for k, v in state.items() if k not in head}),
        "classifier": prefixed(head),
    }
    if best:
        marks = {"epoch": 9, "best_epoch": 8, "best_acc": 0.4}
        return {"state_dict_best": networks, **marks, **beside}
    return {"epoch": 9, "state_dict": networks, **beside}


def lade(state: State) -> dict[str, Any]:
    return two_networks(state, best=False, embed=np.arange(128, dtype=np.float32))


def bagoftricks(state: State) -> dict[str, Any]:
    """The classifier in `state` is called `classifier`."""
    head = {key: value for key, value in state.items() if key.startswith("classifier.")}
    body = {f"backbone.{key}": value for key, value in state.items() if key not in head}
    return {
        "state_dict": prefixed({**body, **head}), "epoch": 3, "best_result": np.float64(0.5),
        "best_epoch": 2, "scheduler": {"gamma": 0.1}, "optimizer": {"state": {}}, "amp": {},
    }  # fmt: skip


def mislas(state: State, norm: Tensor | None = None, block: State | None = None) -> dict[str, Any]:
    """The classifier in `state` is `fc`."""
    content: dict[str, Any] = {
        "epoch": 5, "state_dict_model": OrderedDict(prefixed(rest(state, "fc"))),
        "state_dict_classifier": prefixed({f"fc.{k}": v for k, v in part(state, "fc").items()}),
        "best_acc1": torch.tensor(40.0), "its_ece": np.float64(12.0),
    }  # fmt: skip
    if norm is not None:
        content["state_dict_lws_model"] = {"module.learned_norm": norm.reshape(1, -1)}
    if block is not None:
        content["state_dict_block"] = prefixed(block)
    return content


def paco(state: State, *, momentum: bool = True) -> dict[str, Any]:
    """PaCo's file, or GPaCo's; the classifier in `state` is `linear`."""
    encoder = rest(state, "linear")
    head = part(state, "linear")
    projection = {"fc.0.weight": torch.ones(3, 64), "fc.0.bias": torch.ones(3)}
    whole = {
        "queue": torch.zeros(8, 3), "queue_l": torch.zeros(8, dtype=torch.long),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
        **prefixed({**encoder, **projection}, "encoder_q."), **prefixed(head, "linear."),
    }  # fmt: skip
    if momentum:
        whole |= prefixed({**encoder, **projection}, "encoder_k.")
        whole |= prefixed({k: v + 1 for k, v in head.items()}, "linear_k.")
    return {
        "epoch": 4, "arch": "resnet32", "state_dict": prefixed(whole), "optimizer": {"state": {}},
    }  # fmt: skip


def ldiffnc(state: State) -> dict[str, Any]:
    """The classifier in `state` is `fc`."""
    head = {key: value for key, value in state.items() if key.startswith("fc.")}
    return {
        "epoch": 7, "state_dict": prefixed(rest(state, "fc")), "classifier": prefixed(head),
        "classifier_etf": torch.ones(64, C), "best_acc1": torch.tensor(4.0), "optimizer": {},
    }  # fmt: skip


def ride(plan: ExpertPlan, seed: int = 0, prefix: str = "") -> dict[str, Any]:
    """RIDE's file of a network of that form."""
    torch.manual_seed(seed)
    state: State = {}
    for key, value in ExpertNetwork(plan, C).state_dict().items():
        kind, _, name = key.partition(".")
        if kind == "shared":
            state[name] = value
        elif kind == "experts":
            expert, stage, inner = name.split(".", 2)
            state[f"{stage}s.{expert}.{inner}"] = value
    for expert in range(plan.n_experts):
        state[f"linears.{expert}.weight"] = torch.randn(
            (plan.expert_width, C) if plan.cosine else (C, plan.expert_width)
        )
        if not plan.cosine:
            state[f"linears.{expert}.bias"] = torch.randn(C)
    return {
        "arch": "ResNet32Model", "epoch": 5, "state_dict": prefixed(state, f"{prefix}backbone."),
        "optimizer": {"state": {}, "param_groups": []}, "monitor_best": 0.4,
        "config": argparse.Namespace(resume=Path("saved"), s=30), "criterion": OrderedDict(),
    }  # fmt: skip


RIDE_CIFAR = ExpertPlan(
    small_images=True, blocks=(1, 1, 1), planes=(16, 24, 48), n_shared=1, n_experts=3, cosine=True
)


def ride_assigned(*, shared: bool = True) -> dict[str, Any]:
    """RIDE's file with expert assignment: 16 hidden units that also look at the 5 best logits.

    Its two decisions share a last layer, or have one each.
    """
    content = ride(RIDE_CIFAR)
    start = "backbone.expert_help_pred_"
    lasts = ["fc."] if shared else ["fcs.0.", "fcs.1."]
    forms = {"hidden_fcs.0.": (16, 48), "hidden_fcs.1.": (16, 48)} | dict.fromkeys(lasts, (1, 21))
    for layer, (rows, columns) in forms.items():
        content["state_dict"][f"{start}{layer}weight"] = torch.randn(rows, columns)
        content["state_dict"][f"{start}{layer}bias"] = torch.randn(rows)
    return content


def lws(state: State) -> State:
    return {**state, "scales": torch.linspace(0.5, 2.0, C)}


def save(content: Mapping[str, Any] | nn.Module, path: Path) -> Path:
    torch.save(content, path)
    return path


def load(tmp_path: Path, content: Mapping[str, Any], model: str = "auto") -> TrainedModel:
    """The network of a file with this content."""
    return load_checkpoint(save(content, tmp_path / "checkpoint.pth.tar"), model=model)


def refusal(tmp_path: Path, content: Mapping[str, Any], model: str = "auto") -> str:
    """The one line in which a file with this content is refused."""
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, content, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CIFAR = "cifar-resnet20"

FAMILIES: dict[str, tuple[Callable[[], dict[str, Any]], str, str]] = {
    "LDAM-DRW, cross entropy": (lambda: ldam(weights()), "ldam-drw", CIFAR),
    "LDAM-DRW, DataParallel": (
        lambda: ldam(prefixed(weights("cifar-resnet32"))), "ldam-drw", "cifar-resnet32",
    ),
    "LDAM-DRW, LDAM": (lambda: ldam(transposed(weights(), "linear")), "ldam-drw", CIFAR),
    "LDMLR": (lambda: ldmlr(weights(head="fc")), "ldmlr", CIFAR),
    "LDMLR, DataParallel": (
        lambda: ldmlr(prefixed(weights("cifar-resnet44", "fc"))), "ldmlr", "cifar-resnet44",
    ),
    "BALMS, best": (lambda: two_networks(weights(head="fc"), centroids=None), "balms", CIFAR),
    "BALMS, latest": (lambda: two_networks(weights(head="fc"), best=False), "balms", CIFAR),
    "cRT": (
        lambda: two_networks(weights("resnet10", "fc"), centroids=None),
        "classifier-balancing", "resnet10",
    ),
    "LWS": (
        lambda: two_networks(lws(weights("resnet10", "fc")), centroids=None),
        "classifier-balancing", "resnet10",
    ),
    "LWS on CIFAR": (
        lambda: two_networks(lws(weights(head="fc"))), "classifier-balancing", CIFAR,
    ),
    "LADE": (lambda: lade(weights("bbn-resnet32", "fc")), "lade", "bbn-resnet32"),
    "DiVE": (lambda: bagoftricks(weights(head="classifier")), "bagoftricks", CIFAR),
    "BagofTricks, FCNorm": (
        lambda: bagoftricks(
            {k: v for k, v in weights(head="classifier").items() if k != "classifier.bias"}
        ),
        "bagoftricks", CIFAR,
    ),
    "BagofTricks, cRT": (
        lambda: bagoftricks(weights("resnet10", "classifier.fc")), "bagoftricks", "resnet10",
    ),
    "BagofTricks, LWS": (
        lambda: bagoftricks(
            {**weights(head="classifier.fc"), "classifier.scales": torch.linspace(0.5, 2.0, C)}
        ),
        "bagoftricks", CIFAR,
    ),
    "MiSLAS, stage 1": (lambda: mislas(weights(head="fc")), "mislas", CIFAR),
    "MiSLAS, stage 2": (
        lambda: mislas(weights(head="fc"), norm=torch.linspace(0.5, 2.0, C)), "mislas", CIFAR,
    ),
    "RIDE": (lambda: ride(RIDE_CIFAR), "ride", "ride-resnet8-3x48"),
    "RIDE, assignment": (ride_assigned, "ride", "ride-resnet8-3x48"),
    "RIDE, DataParallel": (lambda: ride(RIDE_CIFAR, prefix="module."), "ride", "ride-resnet8-3x48"),
    "PaCo": (lambda: paco(weights()), "paco", CIFAR),
    "GPaCo": (lambda: paco(weights(), momentum=False), "gpaco", CIFAR),
    "LDiffNC": (lambda: ldiffnc(weights(head="fc")), "ldiffnc", CIFAR),
    "LDiffNC, LDAM, wide": (
        lambda: ldiffnc(transposed(weights("cifar-resnet32x2", "fc"), "fc")),
        "ldiffnc", "cifar-resnet32x2",
    ),
    "bare": (weights, "plain", CIFAR),
    "bare, DataParallel": (lambda: prefixed(weights()), "plain", CIFAR),
    "bare, fc": (lambda: weights(head="fc"), "plain", CIFAR),
    "akamaster": (
        lambda: {"state_dict": prefixed(weights()), "best_prec1": 92.5}, "plain", CIFAR,
    ),
    "under state_dict": (lambda: {"state_dict": weights(head="classifier")}, "plain", CIFAR),
    "under model": (
        lambda: {"model": prefixed(weights(head="head")), "epoch": 3}, "plain", CIFAR,
    ),
    "small-cnn": (lambda: {"state_dict": weights("small-cnn")}, "plain", "small-cnn"),
    "torchvision": (
        lambda: weights("torchvision/resnet18", "fc"), "plain", "torchvision/resnet18",
    ),
}  # fmt: skip
"""By what it is: how to make its content, its family, its backbone."""

ONE_EACH = {
    name: FAMILIES[name]
    for name in (
        *("LDAM-DRW, cross entropy", "LDMLR", "BALMS, best", "LWS on CIFAR", "LADE", "DiVE"),
        *("MiSLAS, stage 2", "RIDE, assignment", "PaCo", "GPaCo", "LDiffNC", "akamaster"),
    )
}
"""One file a family."""
