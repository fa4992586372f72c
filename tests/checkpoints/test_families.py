"""Families: found by their marks, filled to the last key, refused with the evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.backbones import Tap
from pipeline.checkpoints import TrainedModel, load_checkpoint, registry
from pipeline.checkpoints.payload import Payload
from pipeline.errors import CheckpointError
from tests.checkpoints.peer_files import (
    FAMILIES,
    C,
    ldam,
    ldmlr,
    load,
    prefixed,
    refusal,
    transposed,
    weights,
)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_each_kind_of_file_is_found_and_its_head_is_linear(tmp_path: Path, name: str) -> None:
    make, family, backbone = FAMILIES[name]
    model = load(tmp_path, make(), "lade:lade" if family == "lade" else "auto")
    assert (model.family, model.backbone, model.n_classes) == (family, backbone, C)
    assert not model.module.training
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    with Tap(model.module, model.classifier_name) as tap:
        features, logits = tap(model.preprocessing.normalize(pixels))
    assert features.shape == (3, model.feature_width)
    recomputed = model.classifier.logits(features.numpy())
    scale = float(logits.abs().max())
    np.testing.assert_allclose(recomputed, logits.numpy(), rtol=1e-4, atol=1e-5 * scale)
    # The name that an identity keeps loads the same again.
    again = load_checkpoint(tmp_path / "checkpoint.pth.tar", model=model.name)
    assert again.name == model.name
    assert again.backbone_digest() == model.backbone_digest()
    assert again.classifier.digest() == model.classifier.digest()


def test_every_weight_comes_from_the_file(tmp_path: Path) -> None:
    state = weights(seed=5)
    torch.manual_seed(99)
    model = load(tmp_path, prefixed(state))
    loaded = model.module.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert np.array_equal(model.classifier.weight, state["linear.weight"].numpy())


def test_ldam_gives_bare_cosines(tmp_path: Path) -> None:
    state = transposed(weights(), "linear")
    model = load(tmp_path, ldam(state))
    assert model.classifier.normalized
    assert model.classifier.scale == 1.0
    assert model.classifier.bias is None
    assert np.array_equal(model.classifier.weight, state["linear.weight"].numpy().T)
    # The feature (1, 0, ..., 0) against class c: w_c0 / |w_c|, with w_c the column c.
    matrix = state["linear.weight"]
    unit = np.eye(1, model.feature_width, dtype=np.float32)
    expected = (matrix[0] / matrix.norm(dim=0)).numpy()
    np.testing.assert_allclose(model.classifier.logits(unit)[0], expected, rtol=1e-6)
    assert "cosines without a scale" in model.notes[0]


def test_each_family_has_its_own_normalisation(tmp_path: Path) -> None:
    own = load(tmp_path, ldmlr(weights(head="fc")))
    assert own.preprocessing.mean == (125.3 / 255, 123.0 / 255, 113.9 / 255)
    assert "157 images of 7 classes, 50 to 2 a class" in own.notes[0]
    usual = load(tmp_path, ldam(weights()))
    assert usual.preprocessing.mean == (0.4914, 0.4822, 0.4465)
    assert "is assumed" in load(tmp_path, weights()).notes[0]


def test_safetensors_are_plain(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "model.safetensors")
    model = load_checkpoint(tmp_path / "model.safetensors")
    assert (model.family, model.backbone) == ("plain", "cifar-resnet20")


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    load(tmp_path, weights())
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    load_checkpoint(tmp_path / "checkpoint.pth.tar")
    assert torch.equal(torch.rand(2), wanted)


def test_old_files_may_lack_the_batch_counters_alone(tmp_path: Path) -> None:
    state = weights()
    old = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    assert load(tmp_path, old).backbone_digest() == load(tmp_path, state).backbone_digest()
    del old["bn1.running_mean"]
    assert "1 missing: bn1.running_mean" in refusal(tmp_path, old, "plain:cifar-resnet20")


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights().items()}
    model = load(tmp_path, half)
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert model.classifier.weight.dtype == np.float32


def test_a_linear_layer_without_bias_is_plain_too(tmp_path: Path) -> None:
    state = weights()
    del state["linear.bias"]
    model = load(tmp_path, state)
    assert model.classifier.bias is None
    assert not model.classifier.normalized


class TestKeys:
    def test_missing_left_over_and_misshapen_keys_are_listed(self, tmp_path: Path) -> None:
        state = weights()
        state["layer1.0.conv1.extra"] = torch.zeros(1)
        del state["layer3.2.bn2.bias"]
        state["conv1.weight"] = torch.zeros(16, 3, 7, 7)
        message = refusal(tmp_path, state, "plain:cifar-resnet20")
        assert "1 missing: layer3.2.bn2.bias" in message
        assert "1 left over: layer1.0.conv1.extra" in message
        assert "conv1.weight is (16, 3, 7, 7) for (16, 3, 3, 3)" in message

    def test_of_many_keys_ten_and_the_number_are_shown(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, weights("cifar-resnet32"), "plain:cifar-resnet20")
        # Twelve layers more, each a convolution and four entries of BatchNorm, and the counters.
        assert "72 left over: " in message
        assert "and 62 more" in message
        assert message.count("layer") == 10

    def test_only_a_leading_module_that_all_keys_have_is_stripped(self, tmp_path: Path) -> None:
        state = prefixed(weights())
        state["conv1.weight"] = state.pop("module.conv1.weight")
        message = refusal(tmp_path, state, "plain:cifar-resnet20")
        assert "a classifier called fc, linear, classifier, head" in message

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite_are_refused(self, tmp_path: Path, value: float) -> None:
        state = weights()
        state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
        message = refusal(tmp_path, state)
        assert "1 weights hold NaN or infinity (layer2.0.conv1.weight)" in message

    def test_integer_weights_are_refused(self, tmp_path: Path) -> None:
        state = weights()
        state["conv1.weight"] = state["conv1.weight"].to(torch.int8)
        assert "conv1.weight is torch.int8" in refusal(tmp_path, state)


class TestChoice:
    def test_nothing_fits_shows_what_the_file_holds_and_the_remedy(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, {"epoch": 3, "net_g": {"a": torch.zeros(2)}})
        assert "no family recognises it" in message
        assert "epoch, net_g with 1 tensors" in message
        assert "--model FAMILY[:BACKBONE]" in message
        assert "ldmlr, ldam-drw, balms, classifier-balancing, lade, bagoftricks" in message

    def test_two_fit_shows_the_evidence_of_both(self, tmp_path: Path) -> None:
        both = ldam(weights())
        both["train_info"] = {"class_num_list": [1] * C}
        both["state_dict"] = dict(both["state_dict"])
        path = tmp_path / "x.pth"
        torch.save(both, path)

        class Twin:
            NAME = "twin"

            def detect(self, payload: Payload) -> str | None:
                return "train_info" if "train_info" in payload.content else None

            def load(self, payload: Payload, variant: str | None) -> TrainedModel:
                raise AssertionError((payload, variant))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry, "SPECIFIC", (*registry.SPECIFIC, Twin()))
            with pytest.raises(CheckpointError, match="could be of 2 families: ldam-drw") as caught:
                load_checkpoint(path)
        assert "linear.weight (7, 64) on cifar-resnet20); twin (train_info)" in str(caught.value)
        assert "--model ldam-drw or --model twin" in str(caught.value)
        assert load_checkpoint(path, model="ldam-drw").family == "ldam-drw"

    def test_a_named_family_overrides_detection(self, tmp_path: Path) -> None:
        assert load(tmp_path, ldam(weights()), "plain").family == "plain"
        assert load(tmp_path, transposed(weights(), "linear"), "ldam-drw").classifier.normalized

    def test_a_normed_linear_under_plain_names_its_family(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, transposed(weights(), "linear"))
        assert "linear.weight (64, 7) without a bias" in message
        assert "say --model ldam-drw" in message

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ("resnet", "No checkpoint family is called 'resnet'; name it with --model FAMILY"),
            ("plain:resnet18", "No backbone is called 'resnet18'; choose one of cifar-resnet20"),
            ("ldmlr", "family ldmlr keeps its weights in state_dict.model"),
        ],
    )
    def test_a_wrong_name_is_refused(self, tmp_path: Path, model: str, message: str) -> None:
        assert message in refusal(tmp_path, weights(), model)

    def test_an_unknown_body_under_a_named_family(self, tmp_path: Path) -> None:
        state = {"layer.weight": torch.zeros(3, 3), "fc.weight": torch.zeros(5, 3)}
        message = refusal(tmp_path, state, "plain")
        assert "are those of no known backbone" in message
        assert "--model FAMILY:BACKBONE to see which differ" in message


class TestDigest:
    def test_is_of_the_weights_before_the_head(self, tmp_path: Path) -> None:
        state = weights()
        first = load(tmp_path, state).backbone_digest()
        state["linear.weight"] += 1
        assert load(tmp_path, ldam(state)).backbone_digest() == first
        state["bn1.running_var"] += 1
        assert load(tmp_path, state).backbone_digest() != first
