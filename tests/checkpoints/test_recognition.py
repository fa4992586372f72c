"""Networks found by names and shapes, and what users may write instead."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.backbones import find_backbone
from pipeline.backbones.finding import without_memory
from pipeline.checkpoints import load_checkpoint
from pipeline.checkpoints.library import hinted_backbone, torchvision_backbone
from pipeline.checkpoints.payload import Payload
from pipeline.checkpoints.recognition import RESIDUAL, matching_backbone
from pipeline.checkpoints.registry import ALIASES, FAMILIES, find_family
from pipeline.checkpoints.variants import ModelVariant, parse_variant
from pipeline.errors import CheckpointError
from tests.checkpoints.peer_files import State, ldam, lws, prefixed, save, two_networks, weights


def outline(name: str, n_classes: int = 12) -> State:
    """The state dict of a network, without memory for its values."""
    build = partial(find_backbone(name).build, n_classes)
    return without_memory(build).state_dict()


class TestNetworks:
    @pytest.mark.parametrize(
        "name",
        [
            *("resnet10", "resnext101_32x4d", "torchvision/resnet50", "torchvision/resnet152"),
            *("torchvision/resnext50_32x4d", "torchvision/wide_resnet50_2"),
        ],
    )
    def test_each_residual_network_is_told_from_the_others(self, name: str) -> None:
        body = {key: value for key, value in outline(name).items() if not key.startswith("fc.")}
        found = matching_backbone(body)
        assert found is not None
        assert found.name == name
        assert name in RESIDUAL.values()
        del body["layer3.0.bn1.weight"]
        assert matching_backbone(body) is None

    def test_a_bottleneck_that_widens_is_no_residual_network(self) -> None:
        body = {f"layer{stage}.0.conv3.weight": torch.zeros(8, 2, 1, 1) for stage in range(1, 5)}
        assert matching_backbone(body | {"layer1.0.conv2.weight": torch.zeros(2, 4, 3, 3)}) is None

    def test_torchvisions_networks_are_found_without_a_hint(self) -> None:
        name = "torchvision/regnet_y_400mf"
        state = outline(name)
        found = torchvision_backbone(state)
        assert found is not None
        assert found.name == name
        last = next(reversed(state))
        assert torchvision_backbone({k: v for k, v in state.items() if k != last}) is None

    def test_auxiliary_classifiers_are_left_out(self, tmp_path: Path) -> None:
        import torchvision

        network = torchvision.models.googlenet(num_classes=7, init_weights=False)
        file = save({"state_dict": prefixed(network.state_dict())}, tmp_path / "x.pth")
        model = load_checkpoint(file)
        assert (model.backbone, model.n_classes) == ("torchvision/googlenet", 7)
        assert all(key.startswith(("aux1.", "aux2.")) for key in model.left_out)
        assert model.left_out

    @pytest.mark.parametrize("library", ["torchvision", "timm"])
    def test_the_files_own_word_is_taken_where_it_fits(self, library: str) -> None:
        pytest.importorskip(library)
        arch = {"torchvision": "squeezenet1_1", "timm": "resnet18d"}[library]
        state = outline(f"{library}/{arch}")
        found = hinted_backbone(Payload("x.pth", "", {"arch": arch}), state)
        assert found is not None
        assert found.name == f"{library}/{arch}"
        for wrong in ("resnet50", "nonsense", None):
            assert hinted_backbone(Payload("x.pth", "", {"arch": wrong}), state) is None

    def test_timms_networks_can_be_named(self, tmp_path: Path) -> None:
        pytest.importorskip("timm")
        name = "timm/mobilenetv3_small_050"
        file = save({"state_dict": weights(name, "classifier")}, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match="no family recognises it"):
            load_checkpoint(file)
        for model in (f"plain:{name}", name):
            loaded = load_checkpoint(file, model=model)
            assert (loaded.backbone, loaded.family) == (name, "plain")
            assert loaded.name == f"plain:{name}"

    def test_a_librarys_network_without_its_head_is_refused(self, tmp_path: Path) -> None:
        state = weights("resnet10", "fc")
        body = {key: value for key, value in state.items() if not key.startswith("fc.")}
        file = save(body, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match=r"holds no classifier .* \(fc\.weight\)"):
            load_checkpoint(file, model="resnet10")


class TestVariants:
    def test_parts_come_in_any_order(self) -> None:
        read = partial(parse_variant, "x", rules=("ce", "other"), settings=("tau",))
        expected = ModelVariant("cifar-resnet32", "ce", {"tau": "0.5"})
        assert read("ce,cifar-resnet32,tau=0.5") == expected
        assert read("tau=0.5,cifar-resnet32,ce") == expected
        assert read(None) == read("") == ModelVariant()
        assert read("ce").backbone is None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("resnet18", "No backbone is called 'resnet18'; choose one of cifar-resnet20"),
            ("softmax", "Behind x: stand ce, tau=... and the name of a backbone"),
            ("scale=3", "'scale=3' does not belong there"),
            ("ce,ce", "No backbone is called 'ce'"),
            ("tau=1,tau=2", "'tau=2' does not belong there"),
            ("cifar-resnet32,cifar-resnet20", "'cifar-resnet20' does not belong there"),
        ],
    )
    def test_what_is_not_known_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(CheckpointError) as caught:
            parse_variant("x", text, rules=("ce",), settings=("tau",))
        assert message in str(caught.value)

    @pytest.mark.parametrize("alias", ALIASES)
    def test_methods_are_known_by_their_own_names(self, alias: str) -> None:
        family = find_family(alias)
        assert family is not None
        assert ALIASES[alias] == family.NAME
        assert alias not in {family.NAME for family in FAMILIES}

    def test_dive_is_bagoftricks(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="a file of the family bagoftricks keeps"):
            load_checkpoint(save(weights(), tmp_path / "x.pth"), model="dive")


class TestRefusal:
    @staticmethod
    def message(tmp_path: Path, content: dict[str, Any]) -> str:
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(save(content, tmp_path / "x.pth"))
        return str(caught.value)

    def test_a_file_of_two_families_shows_the_evidence_of_both(self, tmp_path: Path) -> None:
        both = {**two_networks(weights(head="fc")), **ldam(weights())}
        message = self.message(tmp_path, both)
        assert "could be of 2 families: ldam-drw (epoch, arch, state_dict, best_acc1;" in message
        assert "; balms (feat_model of cifar-resnet20, classifier fc (7, 64))" in message
        assert "Choose with --model ldam-drw or --model balms" in message

    def test_a_known_form_around_an_unknown_network_says_so(self, tmp_path: Path) -> None:
        state = lws(weights(head="fc"))
        state["conv1.weight"] = torch.ones(16, 3, 5, 5)
        message = self.message(tmp_path, two_networks(state))
        assert "no family recognises it" in message
        with pytest.raises(CheckpointError, match=r"conv1\.weight is \(16, 3, 5, 5\) for"):
            load_checkpoint(tmp_path / "x.pth", model="lws:cifar-resnet20")

    @pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.NAME)
    def test_every_family_says_what_it_needs(self, tmp_path: Path, family: Any) -> None:
        file = save({"net": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "x.pth")
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(file, model=family.NAME)
        assert "holds at its top level: net with 1 tensors, epoch" in str(caught.value)
