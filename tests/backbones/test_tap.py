"""The tap: one pass gives features and logits, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pipeline.backbones import Tap
from pipeline.errors import ConfigError, ExtractionError


class Last(nn.Linear):
    """A classifier that may get, and ignore, a second input."""

    def forward(self, features: Tensor, _ignored: Tensor | None = None) -> Tensor:  # type: ignore[override]  # on purpose
        return super().forward(features)


WAYS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "once": lambda last, f: last(f),
    "keyword": lambda last, f: last(features=f),
    "never": lambda _, f: f,
    "twice": lambda last, f: last(f) + last(f),
    "maps": lambda last, f: last(f[:, None]),
    "two": lambda last, f: last(f, f),
    "halved": lambda last, f: last(f[: len(f) // 2]),
    "tuple": lambda last, f: (last(f), f),
    "squeezed": lambda last, f: last(f)[:, 0],
}
"""How a model may call its classifier."""


class Net(nn.Module):
    """A model that calls its classifier in one of these ways."""

    def __init__(self, way: str = "once") -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        self.head = nn.ModuleDict({"last": Last(3, 2)})
        self.way = way
        self.passes = 0

    def forward(self, x: Tensor) -> object:
        self.passes += 1
        return WAYS[self.way](self.head["last"], self.body(x))


@pytest.mark.parametrize("way", ["once", "keyword"])
def test_one_pass_gives_features_and_logits(way: str) -> None:
    net, x = Net(way), torch.randn(5, 4)
    features, logits = Tap(net, "head.last")(x)
    assert net.passes == 1
    assert torch.equal(features, net.body(x))
    assert torch.equal(logits, net.head["last"](net.body(x)))


def test_leaves_no_hook_behind() -> None:
    net = Net()
    with Tap(net, "head.last") as tap:
        tap(torch.randn(1, 4))
    assert not net.head["last"]._forward_pre_hooks
    net(torch.randn(1, 4))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("never", "called its classifier 'head.last' never in one pass"),
        ("twice", "called its classifier 'head.last' 2 times in one pass"),
        ("maps", r"input of the classifier 'head.last' .* got the shape \(6, 1, 3\)"),
        ("two", "got 2 inputs; features are one tensor"),
        ("halved", r"one row for each of the 6 samples .* got the shape \(3, 3\)"),
        ("tuple", "The model's output must be one tensor .* got a tuple"),
        ("squeezed", r"The model's output must have .* got the shape \(6,\)"),
    ],
)
def test_says_what_it_needs(way: str, message: str) -> None:
    with (
        Tap(Net(way), "head.last") as tap,
        pytest.raises(ExtractionError, match=message),
    ):
        tap(torch.randn(6, 4))


def test_works_again_after_a_failed_pass() -> None:
    net = Net("twice")
    with Tap(net, "head.last") as tap:
        with pytest.raises(ExtractionError):
            tap(torch.randn(2, 4))
        net.way = "once"
        assert tap(torch.randn(2, 4))[0].shape == (2, 3)


def test_an_unknown_classifier_lists_the_models_parts() -> None:
    with pytest.raises(ConfigError, match=r"no module 'fc' .* top-level modules are body, head"):
        Tap(Net(), "fc")


def test_a_batch_that_the_model_cannot_take_is_said() -> None:
    message = r"cannot take a batch of the shape \(2, 5\) \(.*\); .* --resize and --crop"
    with Tap(Net(), "head.last") as tap, pytest.raises(ExtractionError, match=message):
        tap(torch.randn(2, 5))
