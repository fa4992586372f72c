"""Each family's classifier as a linear head, against its rule written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name the field uses
from torch import Tensor

from pipeline.backbones import Tap
from pipeline.backbones.ride_resnet import ExpertNetwork, ExpertPlan
from pipeline.checkpoints import TrainedModel
from pipeline.errors import CheckpointError, UndecidedError
from tests.checkpoints.peer_files import (
    RIDE_CIFAR,
    C,
    bagoftricks,
    lade,
    ldiffnc,
    load,
    lws,
    mislas,
    paco,
    part,
    refusal,
    ride,
    ride_assigned,
    transposed,
    two_networks,
    weights,
)

COUNTS = np.array([50, 40, 30, 20, 10, 5, 2])


@torch.inference_mode()
def outputs(model: TrainedModel, side: int = 32) -> tuple[Tensor, Tensor]:
    """Features (4, D) and logits (4, C) of seeded noise."""
    noise = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1))
    with Tap(model.module, model.classifier_name) as tap:
        return tap(noise)


def assert_logits(model: TrainedModel, features: Tensor, logits: Tensor, wanted: Tensor) -> None:
    """The module and the stored head both give the wanted logits."""
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    recomputed = model.classifier.logits(features.numpy())
    np.testing.assert_allclose(recomputed, wanted.numpy(), rtol=1e-4, atol=1e-4)


class TestScales:
    def test_lws_multiplies_product_and_bias(self, tmp_path: Path) -> None:
        state = lws(weights("resnet10", "fc"))
        model = load(tmp_path, two_networks(state))
        features, logits = outputs(model)
        plain = features @ state["fc.weight"].T + state["fc.bias"]
        assert_logits(model, features, logits, state["scales"] * plain)
        assert "LWS" in model.head

    def test_learned_norm_does_too(self, tmp_path: Path) -> None:
        state, norm = weights(head="fc"), torch.linspace(0.5, 2.0, C)
        model = load(tmp_path, mislas(state, norm))
        features, logits = outputs(model)
        assert_logits(
            model, features, logits, norm * (features @ state["fc.weight"].T + state["fc.bias"])
        )

    def test_lws_of_bagoftricks_does_too(self, tmp_path: Path) -> None:
        state = weights(head="classifier.fc") | {"classifier.scales": torch.linspace(-1, 1, C)}
        model = load(tmp_path, bagoftricks(state))
        features, logits = outputs(model)
        plain = features @ state["classifier.fc.weight"].T + state["classifier.fc.bias"]
        assert_logits(model, features, logits, state["classifier.scales"] * plain)

    def test_scales_for_another_number_of_classes_are_refused(self, tmp_path: Path) -> None:
        content = mislas(weights(head="fc"), torch.ones(C + 1))
        assert f"{C + 1} scales for {C} classes" in refusal(tmp_path, content)

    @pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
    def test_tau_normalisation_divides_rows_and_drops_the_bias(
        self, tmp_path: Path, tau: float
    ) -> None:
        state = weights("resnet10", "fc")
        for name in ("classifier-balancing", "tau-norm"):
            model = load(tmp_path, two_networks(state), f"{name}:tau={tau}")
            features, logits = outputs(model)
            lengths = state["fc.weight"].norm(dim=1, keepdim=True)
            assert_logits(model, features, logits, features @ (state["fc.weight"] / lengths**tau).T)
            assert model.classifier.bias is None

    @pytest.mark.parametrize("tau", ["much", "nan", ""])
    def test_tau_is_a_number(self, tmp_path: Path, tau: str) -> None:
        message = refusal(tmp_path, two_networks(weights("resnet10", "fc")), f"crt:tau={tau}")
        assert "tau is a number" in message


class TestCosines:
    def test_fcnorm_is_classes_by_features(self, tmp_path: Path) -> None:
        state = weights(head="classifier")
        del state["classifier.bias"]
        model = load(tmp_path, bagoftricks(state))
        features, logits = outputs(model)
        wanted = F.linear(F.normalize(features), F.normalize(state["classifier.weight"]))
        assert_logits(model, features, logits, wanted)
        assert model.classifier.normalized
        assert "say --model bagoftricks:fc" in model.notes[0]

    def test_a_layer_without_bias_can_be_named(self, tmp_path: Path) -> None:
        state = weights(head="classifier")
        del state["classifier.bias"]
        model = load(tmp_path, bagoftricks(state), "dive:fc")
        features, logits = outputs(model)
        assert_logits(model, features, logits, features @ state["classifier.weight"].T)

    def test_normed_linear_is_features_by_classes(self, tmp_path: Path) -> None:
        state = transposed(weights(head="fc"), "fc")
        model = load(tmp_path, ldiffnc(state))
        features, logits = outputs(model)
        wanted = F.normalize(features) @ F.normalize(state["fc.weight"], dim=0)
        assert_logits(model, features, logits, wanted)

    def test_the_wrong_way_round_is_refused(self, tmp_path: Path) -> None:
        state = transposed(weights(head="classifier"), "classifier")
        assert "one weight (C, 64)" in refusal(tmp_path, bagoftricks(state))
        state = weights(head="fc")
        del state["fc.bias"]
        assert "one weight (64, C)" in refusal(tmp_path, ldiffnc(state))


class TestLade:
    def test_ce_subtracts_the_log_prior_of_the_training_data(self, tmp_path: Path) -> None:
        state = weights("bbn-resnet32", "fc")
        raw = load(tmp_path, lade(state), "lade:ce")
        assert raw.rule is not None
        model = raw.for_training_labels(np.repeat(np.arange(C), COUNTS))
        features, logits = outputs(model)
        prior = torch.tensor(COUNTS / COUNTS.sum())
        plain = features @ state["fc.weight"].T + state["fc.bias"]
        assert_logits(model, features, logits, plain - prior.log().float())
        assert (model.rule, model.name) == (None, "lade:ce,bbn-resnet32")
        assert model.for_training_counts(COUNTS * 2) is model
        # The model that it was made from keeps its own head and shares all other weights.
        assert_logits(raw, features, outputs(raw)[1], plain)
        assert model.backbone_digest() == raw.backbone_digest()
        shared = raw.module.get_parameter("conv1.weight").data_ptr()
        assert model.module.get_parameter("conv1.weight").data_ptr() == shared

    @pytest.mark.parametrize("rule", ["lade", "balanced-softmax"])
    def test_the_others_add_the_prior_of_a_balanced_test_set(
        self, tmp_path: Path, rule: str
    ) -> None:
        state = weights("bbn-resnet32", "fc")
        model = load(tmp_path, lade(state), f"lade:{rule}")
        features, logits = outputs(model)
        plain = features @ state["fc.weight"].T + state["fc.bias"]
        assert model.rule is None
        assert_logits(model, features, logits, plain + np.log(1 / C))

    def test_the_file_asks_for_the_rule(self, tmp_path: Path) -> None:
        with pytest.raises(
            UndecidedError, match=r"--model lade:ce .*; --model lade:lade "
        ) as caught:
            load(tmp_path, lade(weights("bbn-resnet32", "fc")))
        assert list(caught.value.choices) == ["lade:ce", "lade:lade", "lade:balanced-softmax"]

    def test_a_class_without_training_images_has_no_prior(self, tmp_path: Path) -> None:
        model = load(tmp_path, lade(weights("bbn-resnet32", "fc")), "lade:ce")
        for counts in (np.array([5, 4, 3, 2, 1, 1, 0]), np.ones(C + 1, np.int64)):
            with pytest.raises(CheckpointError, match="each of the 7 classes needs a training"):
                model.for_training_counts(counts)

    def test_its_causal_classifier_is_not_linear(self, tmp_path: Path) -> None:
        content = lade(weights("bbn-resnet32", "fc"))
        content["state_dict"]["classifier"] = {"module.weight": torch.ones(C, 128)}
        message = refusal(tmp_path, content, "lade:ce")
        assert "holds classifier.weight and no fc.weight" in message


class TestMislas:
    def test_the_separate_block_is_the_last_of_its_stage(self, tmp_path: Path) -> None:
        whole = weights("torchvision/resnet18", "fc")
        body = {key: value for key, value in whole.items() if not key.startswith("layer4.1.")}
        model = load(tmp_path, mislas(body, block=part(whole, "layer4.1")))
        assert model.backbone == "torchvision/resnet18"
        loaded = model.module.state_dict()
        assert all(torch.equal(loaded[key], whole[key]) for key in whole)
        assert any("separate block" in note for note in model.notes)

    def test_rows_go_into_the_order_of_the_labels(self, tmp_path: Path) -> None:
        state = weights("resnet10", "fc")
        content = mislas(state, torch.linspace(0.5, 2.0, C))
        counts = np.array([5, 50, 20, 2, 40, 10, 30])
        # Descending: labels 1, 4, 6, 2, 5, 0, 3. So label 0 is row 5, label 1 row 0 ...
        rows = [5, 0, 3, 6, 1, 4, 2]
        factors = torch.linspace(0.5, 2.0, C)
        weight, bias = factors[:, None] * state["fc.weight"], factors * state["fc.bias"]
        model = load(tmp_path, content).for_training_counts(counts)
        features, logits = outputs(model)
        assert_logits(model, features, logits, features @ weight[rows].T + bias[rows])
        assert model.rule is None

        as_it_is = load(tmp_path, content, "mislas:label-order")
        assert as_it_is.rule is None
        np.testing.assert_allclose(as_it_is.classifier.weight, weight.numpy(), rtol=1e-6)

    def test_labels_that_were_reordered_too_are_the_rows(self, tmp_path: Path) -> None:
        model = load(tmp_path, mislas(weights("resnet10", "fc")))
        descending = model.for_training_counts(np.array([9, 9, 9, 5, 5, 2, 1]))
        assert descending.classifier.digest() == model.classifier.digest()

    def test_ties_are_not_guessed(self, tmp_path: Path) -> None:
        model = load(tmp_path, mislas(weights("resnet10", "fc")))
        with pytest.raises(CheckpointError, match="5 of 7 classes share their number") as caught:
            model.for_training_counts(np.array([9, 5, 9, 2, 9, 5, 1]))
        assert "--class-order FILE" in str(caught.value)
        assert "--model mislas:label-order" in str(caught.value)
        with pytest.raises(CheckpointError, match="A head for 7 classes"):
            model.for_training_counts(np.arange(8))

    def test_cifar_keeps_the_order_of_its_labels(self, tmp_path: Path) -> None:
        assert load(tmp_path, mislas(weights(head="fc"))).rule is None


class TestRide:
    @staticmethod
    def expert_logits(content: dict[str, Any], features: Tensor, scale: float) -> Tensor:
        """(B, E, C): each expert's own logits from raw features (B, E, D)."""
        state = content["state_dict"]
        own = []
        for index in range(features.shape[1]):
            weight = state[f"backbone.linears.{index}.weight"]
            bias = state.get(f"backbone.linears.{index}.bias")
            row = features[:, index]
            if bias is None:
                own.append(scale * F.normalize(row) @ F.normalize(weight, dim=0))
            else:
                own.append(row @ weight.T + bias)
        return torch.stack(own, dim=1)

    @pytest.mark.parametrize(
        "plan",
        [
            RIDE_CIFAR,
            ExpertPlan(True, (1, 2, 1), (16, 32, 64), n_shared=1, n_experts=2, cosine=False),
            ExpertPlan(False, (1, 1, 1, 1), (64, 128, 192, 384), 2, 3, cosine=True),
            ExpertPlan(False, (1, 1, 1, 1), (64, 128, 192, 384), 3, 2, cosine=True),
            ExpertPlan(
                False, (1, 1, 1, 1), (64, 64, 96, 96), 2, 2, bottleneck=True, groups=32,
                group_width=4, cosine=True,
            ),
            ExpertPlan(False, (1, 1, 1, 1), (64, 64, 64, 64), 2, 2, bottleneck=True),
        ],
        ids=["cosine", "linear", "ResNet-10", "shared layer3", "ResNeXt", "bottleneck, linear"],
    )  # fmt: skip
    def test_the_mean_over_experts_is_one_head(self, tmp_path: Path, plan: ExpertPlan) -> None:
        content = ride(plan)
        model = load(tmp_path, content)
        assert isinstance(model.module, ExpertNetwork)
        features, logits = outputs(model)
        noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            raw = model.module.expert_features(noise)
        wanted = self.expert_logits(content, raw, scale=30.0).mean(dim=1)
        torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
        assert_logits(model, features, logits, wanted)
        assert model.classifier.scale == (30 if plan.cosine else 1) / plan.n_experts

    def test_another_scale_can_be_named(self, tmp_path: Path) -> None:
        usual = load(tmp_path, ride(RIDE_CIFAR))
        other = load(tmp_path, ride(RIDE_CIFAR), "ride:scale=15")
        torch.testing.assert_close(outputs(other)[1] * 2, outputs(usual)[1])
        assert other.name == "ride:scale=15,ride-resnet8-3x48"
        message = refusal(tmp_path, ride(RIDE_CIFAR), "ride:scale=0")
        assert "the scale is a number above 0" in message

    @pytest.mark.parametrize("shared", [True, False])
    def test_expert_assignment_is_left_out_and_told(self, tmp_path: Path, shared: bool) -> None:
        content, without = ride_assigned(shared=shared), ride(RIDE_CIFAR)
        model, plain = load(tmp_path, content), load(tmp_path, without)
        # Two hidden layers and one or two last ones, each with weight and bias.
        assert len(model.left_out) == (6 if shared else 8)
        assert set(model.left_out) == set(content["state_dict"]) - set(without["state_dict"])
        assert plain.left_out == ()
        assert any("those of all experts" in note for note in model.notes)
        assert not any("assignment" in note for note in plain.notes)
        assert model.backbone_digest() == plain.backbone_digest()
        for one, other in zip(outputs(model), outputs(plain), strict=True):
            assert torch.equal(one, other)

    def test_experts_of_different_form_are_refused(self, tmp_path: Path) -> None:
        content = ride(RIDE_CIFAR)
        content["state_dict"]["backbone.linears.1.weight"] = torch.ones(40, C)
        assert "heads of different forms" in refusal(tmp_path, content)

    def test_a_missing_stage_is_named(self, tmp_path: Path) -> None:
        content = ride(RIDE_CIFAR)
        for key in [key for key in content["state_dict"] if "layer2s" in key]:
            del content["state_dict"][key]
        assert "stages [1, 3]" in refusal(tmp_path, content)

    def test_a_missing_expert_is_named(self, tmp_path: Path) -> None:
        content = ride(RIDE_CIFAR)
        for key in [key for key in content["state_dict"] if "layer3s.2." in key]:
            del content["state_dict"][key]
        message = refusal(tmp_path, content)
        assert "10 missing: experts.2.layer3.0.conv1.weight" in message


class TestPaco:
    def test_what_serves_training_alone_is_left_out_and_named(self, tmp_path: Path) -> None:
        model = load(tmp_path, paco(weights()))
        assert {key.split(".")[0] for key in model.left_out} == {
            *("encoder_k", "linear_k", "queue", "queue_l", "queue_ptr", "encoder_q"),
        }
        assert [key for key in model.left_out if key.startswith("encoder_q")] == [
            "encoder_q.fc.0.weight",
            "encoder_q.fc.0.bias",
        ]

    def test_a_stray_weight_is_not(self, tmp_path: Path) -> None:
        content = paco(weights())
        content["state_dict"]["module.extra.weight"] = torch.ones(2)
        assert "1 left over: extra.weight" in refusal(tmp_path, content, "paco:cifar-resnet20")
