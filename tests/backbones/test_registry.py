"""Every backbone by the same contract."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.backbones import BACKBONES, Backbone, CosineLinear, Tap, find_backbone
from pipeline.errors import ConfigError


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
class TestContract:
    @torch.inference_mode()
    def test_the_tapped_features_times_the_head_are_the_logits(self, backbone: Backbone) -> None:
        network = backbone.build(5).eval()
        head = network.get_submodule(backbone.classifier)
        assert isinstance(head, nn.Linear)
        with Tap(network, backbone.classifier) as tap:
            features, logits = tap(torch.randn(3, 3, 16, 16))
        assert features.shape == (3, backbone.feature_width)
        assert logits.shape == (3, 5)
        torch.testing.assert_close(head(features), logits)

    @torch.inference_mode()
    def test_takes_images_of_other_sizes(self, backbone: Backbone) -> None:
        network = backbone.build(4).eval()
        for height, width in ((8, 8), (9, 13), (32, 32), (64, 64)):
            assert network(torch.randn(1, 3, height, width)).shape == (1, 4)

    def test_is_found_by_its_name(self, backbone: Backbone) -> None:
        assert find_backbone(backbone.name) is backbone


def test_no_two_backbones_have_the_same_weights() -> None:
    shapes = []
    for backbone in BACKBONES.values():
        with torch.device("meta"):
            state = backbone.build(10).state_dict()
        shapes.append({key: tensor.shape for key, tensor in state.items()})
    assert all(a != b for i, a in enumerate(shapes) for b in shapes[:i])


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'resnet'; choose one of cifar-resnet20, .*small-cnn"):
        find_backbone("resnet")


def test_the_cosine_head_gives_cosines() -> None:
    head = CosineLinear(2, 2, scale=3.0)
    head.weight.data = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    # Angles of (0, 5) to (2, 0) and (1, 1): 90 and 45 degrees.
    logits = head(torch.tensor([[0.0, 5.0], [0.0, 0.0]]))
    torch.testing.assert_close(logits, torch.tensor([[0.0, 3 * 0.5**0.5], [0.0, 0.0]]))


def test_the_small_network_is_small() -> None:
    with torch.device("meta"):
        network = BACKBONES["small-cnn"].build(10)
    # 3*16*9 + 16*2 + 16*32*9 + 32*2 = 5,136, and 129 for each class.
    assert sum(p.numel() for p in network.parameters()) == 5_136 + 129 * 10
