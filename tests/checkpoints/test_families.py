"""Families: found by their marks, filled to the last key, refused with the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.backbones import BACKBONES, Tap
from pipeline.checkpoints import TrainedModel, load_checkpoint, registry
from pipeline.checkpoints.payload import Payload
from pipeline.errors import CheckpointError

C = 7
State = dict[str, Tensor]


def weights(backbone: str = "cifar-resnet20", head: str = "linear", seed: int = 0) -> State:
    """Random weights of a backbone, its classifier called `head`."""
    torch.manual_seed(seed)
    entry = BACKBONES[backbone]
    state = entry.build(C).state_dict()
    return {key.replace(f"{entry.classifier}.", f"{head}."): value for key, value in state.items()}


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


def without_bias(state: State) -> State:
    """The state of an LDAM model: NormedLinear is (D, C) and has no bias."""
    cosine = {key: value for key, value in state.items() if key != "linear.bias"}
    return {**cosine, "linear.weight": state["linear.weight"].T.contiguous()}


def prefixed(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def load(tmp_path: Path, content: Mapping[str, Any], model: str = "auto") -> TrainedModel:
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(content, path)
    return load_checkpoint(path, model=model)


def refusal(tmp_path: Path, content: Mapping[str, Any], model: str = "auto") -> str:
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, content, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "bare": (weights(), "plain"),
    "bare, DataParallel": (prefixed(weights()), "plain"),
    "bare, fc": (weights(head="fc"), "plain"),
    "under state_dict": ({"state_dict": weights(head="classifier"), "best_prec1": 92.5}, "plain"),
    "under model": ({"model": prefixed(weights(head="head")), "epoch": 3}, "plain"),
    "small-cnn": ({"state_dict": weights("small-cnn")}, "plain"),
    "LDAM-DRW, cross entropy": (ldam(weights()), "ldam-drw"),
    "LDAM-DRW, DataParallel": (ldam(prefixed(weights("cifar-resnet32"))), "ldam-drw"),
    "LDAM-DRW, LDAM": (ldam(without_bias(weights())), "ldam-drw"),
    "LDMLR": (ldmlr(weights(head="fc")), "ldmlr"),
    "LDMLR, DataParallel": (ldmlr(prefixed(weights("cifar-resnet44", "fc"))), "ldmlr"),
}


@pytest.mark.parametrize("name", FILES)
@torch.inference_mode()
def test_each_kind_of_file_is_found_and_its_head_is_linear(tmp_path: Path, name: str) -> None:
    content, family = FILES[name]
    model = load(tmp_path, content)
    assert model.family == family
    assert (model.n_classes, model.feature_width) == (C, BACKBONES[model.backbone].feature_width)
    assert not model.module.training
    x = model.preprocessing.normalize(torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8))
    features, logits = Tap(model.module, model.classifier_name)(x)
    recomputed = model.classifier.logits(features.numpy())
    np.testing.assert_allclose(recomputed, logits.numpy(), rtol=1e-4, atol=1e-5)


def test_every_weight_comes_from_the_file(tmp_path: Path) -> None:
    state = weights(seed=5)
    torch.manual_seed(99)
    model = load(tmp_path, prefixed(state))
    loaded = model.module.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert np.array_equal(model.classifier.weight, state["linear.weight"].numpy())


def test_ldam_gives_bare_cosines(tmp_path: Path) -> None:
    state = without_bias(weights())
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
    assert "are assumed" in load(tmp_path, weights()).notes[0]


def test_safetensors_are_plain(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "model.safetensors")
    model = load_checkpoint(tmp_path / "model.safetensors")
    assert (model.family, model.backbone) == ("plain", "cifar-resnet20")


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
        assert "ldmlr, ldam-drw, plain" in message

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
        assert load(tmp_path, without_bias(weights()), "ldam-drw").classifier.normalized

    def test_a_normed_linear_under_plain_names_its_family(self, tmp_path: Path) -> None:
        message = refusal(tmp_path, without_bias(weights()))
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
        assert "--model FAMILY:BACKBONE to see which keys differ" in message


class TestDigest:
    def test_is_of_the_weights_before_the_head(self, tmp_path: Path) -> None:
        state = weights()
        first = load(tmp_path, state).backbone_digest()
        state["linear.weight"] += 1
        assert load(tmp_path, ldam(state)).backbone_digest() == first
        state["bn1.running_var"] += 1
        assert load(tmp_path, state).backbone_digest() != first
