"""CIFAR ResNets: the paper's sizes, option A exactly, names that trained weights have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.backbones.cifar_resnet import DEPTHS, BasicBlock, CifarResNet


# He et al. 2016, Table 6: 0.27 M, 0.46 M, 0.66 M and 0.85 M parameters for 10 classes.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_has_the_papers_number_of_parameters(depth: int, millions: float) -> None:
    with torch.device("meta"):
        network = CifarResNet(depth, 10)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("depth", DEPTHS)
def test_has_as_many_weighted_layers_as_its_name_says(depth: int) -> None:
    with torch.device("meta"):
        network = CifarResNet(depth, 10)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) == depth


@pytest.mark.parametrize("depth", [0, 2, 18, 33])
def test_refuses_depths_that_are_not_6n_plus_2(depth: int) -> None:
    with pytest.raises(ValueError, match="has 6n \\+ 2 layers"):
        CifarResNet(depth, 10)


def test_names_are_those_of_trained_weights() -> None:
    with torch.device("meta"):
        keys = CifarResNet(32, 100).state_dict()
    assert keys["conv1.weight"].shape == (16, 3, 3, 3)
    assert keys["layer2.0.conv1.weight"].shape == (32, 16, 3, 3)
    assert keys["layer3.4.bn2.running_var"].shape == (64,)
    assert keys["linear.weight"].shape == (100, 64)
    assert not [key for key in keys if "shortcut" in key or "downsample" in key]


def test_the_shortcut_takes_every_second_pixel_and_pads_planes_on_both_sides() -> None:
    x = torch.randn(2, 16, 6, 6)
    out = BasicBlock(16, 32, stride=2).shortcut(x)
    # 16 new planes: 8 of zeros before the old ones, 8 behind.
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].count_nonzero() == out[:, 24:].count_nonzero() == 0
    assert out.shape == (2, 32, 3, 3)


def plain_forward(network: CifarResNet, x: Tensor) -> Tensor:
    """The network as sec. 4.2 tells it, from its weights, with nothing in place."""

    def bn(x: Tensor, m: nn.BatchNorm2d) -> Tensor:
        assert m.running_mean is not None
        assert m.running_var is not None
        mean, var = m.running_mean.view(1, -1, 1, 1), m.running_var.view(1, -1, 1, 1)
        scaled = (x - mean) / torch.sqrt(var + m.eps)
        return scaled * m.weight.view(1, -1, 1, 1) + m.bias.view(1, -1, 1, 1)

    x = bn(functional.conv2d(x, network.conv1.weight, padding=1), network.bn1).clamp(min=0)
    for stage, stride in ((network.layer1, 1), (network.layer2, 2), (network.layer3, 2)):
        for index, block in enumerate(stage):
            assert isinstance(block, BasicBlock)
            step = stride if index == 0 else 1
            y = functional.conv2d(x, block.conv1.weight, stride=step, padding=1)
            y = bn(y, block.bn1).clamp(min=0)
            y = bn(functional.conv2d(y, block.conv2.weight, padding=1), block.bn2)
            short = x[:, :, ::step, ::step]
            zeros = torch.zeros_like(short)[:, : (y.shape[1] - x.shape[1]) // 2]
            x = (y + torch.cat([zeros, short, zeros], dim=1)).clamp(min=0)
    features = x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])
    return features @ network.linear.weight.T + network.linear.bias


@pytest.mark.parametrize("size", [32, 17])
def test_computes_what_the_paper_says(size: int) -> None:
    torch.manual_seed(0)
    network = CifarResNet(20, 7).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), plain_forward(network, x))


def test_gradients_flow_through_every_weight() -> None:
    network = CifarResNet(20, 3)
    network(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
