"""The parts of a training: schedules, losses, networks, epochs, files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.backbones import BACKBONES, CosineLinear
from pipeline.checkpoints.own import FORMAT, write_file
from pipeline.config import PretrainConfig
from pipeline.datasets import Preprocessing
from pipeline.errors import ConfigError, TrainingError
from pipeline.losses import LOSSES
from pipeline.losses.margins import margin_shares
from pipeline.training.augmentation import Mix, Shift
from pipeline.training.draws import EpochDraws
from pipeline.training.images import HeldImages
from pipeline.training.loop import Trainer
from pipeline.training.network import build_network, preprocessing_for, require_fits
from pipeline.training.objectives import Objective
from pipeline.training.saving import is_ours, read_file, require_same
from pipeline.training.schedules import class_weights, learning_rate
from tests.small_trainings import CPU, HALF, generator, pictures

# Schedules


def test_the_cosine_falls_from_the_rate_to_nothing() -> None:
    config = PretrainConfig(lr=0.2, epochs=10)
    assert learning_rate(config, 0, 0.0) == 0.2
    assert learning_rate(config, 5, 0.0) == pytest.approx(0.1)
    # cos(pi * 0.25) at epoch 2.5 of 10
    assert learning_rate(config, 2, 0.5) == pytest.approx(0.1 * (1 + math.sqrt(0.5)))
    assert learning_rate(config, 9, 0.999) < 1e-6


def test_the_steps_are_those_of_ldam_drw_s_code() -> None:
    config = PretrainConfig(schedule="ldam-drw", loss="ldam", epochs=200, lr=0.1, warmup_epochs=5)
    rates = {epoch: learning_rate(config, epoch, 0.5) for epoch in range(200)}
    # 1/5, 2/5, ... of the rate in the first five epochs; 160 and 180 from 0.
    assert [rates[epoch] for epoch in range(6)] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert (rates[159], rates[160], rates[179], rates[180]) == pytest.approx(
        (0.1, 1e-3, 1e-3, 1e-5)
    )
    constant = PretrainConfig(schedule="constant", lr=0.3)
    assert {learning_rate(constant, epoch, 0.5) for epoch in range(200)} == {0.3}


def test_both_steps_are_seen_in_any_training_that_is_long_enough() -> None:
    for name in ("steps", "ldam-drw"):
        for epochs in range(1, 300):
            if epochs < 8:
                # 80 and 90 % of 7 epochs are 5.6 and 6.3: both steps would come after the sixth.
                with pytest.raises(ConfigError, match=f"epochs must be 8 or more .* {name}.* not"):
                    PretrainConfig(schedule=name, epochs=epochs)  # type: ignore[arg-type]  # a literal
                continue
            config = PretrainConfig(schedule=name, epochs=epochs, lr=1.0)  # type: ignore[arg-type]  # a literal
            rates = [learning_rate(config, epoch, 0.0) for epoch in range(epochs)]
            assert sorted(set(rates), reverse=True) == pytest.approx([1, 1e-2, 1e-4]), epochs
            for share, rate in ((0.8, 1.0), (0.9, 1e-2)):
                # The step that ends this rate comes within half an epoch of its share of all.
                last = max(epoch for epoch in range(epochs) if rates[epoch] == pytest.approx(rate))
                assert abs(last + 1 - share * epochs) <= 0.5 + 1e-9, epochs


def test_classes_are_re_weighted_late_by_their_effective_numbers() -> None:
    config = PretrainConfig(schedule="ldam-drw", loss="ldam", epochs=10, beta=0.5)
    counts = torch.tensor([1, 2])
    assert class_weights(config, 7, counts) is None
    weights = class_weights(config, 8, counts)
    # Effective numbers (1 - 0.5) / 0.5 = 1 and (1 - 0.25) / 0.5 = 1.5: inverses 1 and 2/3, over
    # their mean 5/6.
    assert weights is not None
    assert weights.tolist() == pytest.approx([1.2, 0.8])
    assert class_weights(PretrainConfig(schedule="steps", epochs=10), 9, counts) is None
    plain = PretrainConfig(schedule="ldam-drw", loss="ldam", epochs=10, beta=0.0)
    even = class_weights(plain, 8, counts)
    assert even is not None
    assert even.tolist() == [1, 1]


def test_the_weights_are_those_of_the_class_balanced_loss() -> None:
    config = PretrainConfig(schedule="ldam-drw", epochs=10, beta=0.99)
    weights = class_weights(config, 9, COUNTS)
    logits, labels = some_logits()
    assert weights is not None
    # Of equal weights in sum: a mean over rows, where torch divides by the weights' sum.
    found = functional.cross_entropy(logits, labels, weights, reduction="sum") / len(labels)
    torch.testing.assert_close(found, LOSSES["class-balanced"](logits, labels, COUNTS, beta=0.99))


# Losses


def objective(counts: torch.Tensor, **settings: object) -> Objective:
    return Objective(PretrainConfig(**settings), counts)  # type: ignore[arg-type]  # any field


COUNTS = torch.tensor([50, 9, 3])


def some_logits() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, 3, generator=generator()), torch.tensor([0, 1, 2, 0, 0, 1, 0, 2])


@pytest.mark.parametrize("name", ["cross-entropy", "balanced-softmax", "gml"])
def test_losses_are_those_by_name(name: str) -> None:
    logits, labels = some_logits()
    found = objective(COUNTS, loss=name)(logits, labels, None, None)
    torch.testing.assert_close(found, LOSSES[name](logits, labels, COUNTS))


def test_ldam_takes_the_margin_from_the_true_class() -> None:
    # N^(-1/4) of 16 and 1 are 1/2 and 1: margins 0.25 and 0.5.
    assert margin_shares(torch.tensor([16, 1])).tolist() == [0.5, 1]
    cosines = torch.tensor([[0.5, 0.25]])
    found = objective(torch.tensor([16, 1]), loss="ldam", margin_scale=4.0)(
        4 * cosines, torch.tensor([1]), None, None
    )
    # Logits 4 * 0.5 and 4 * (0.25 - 0.5) = -1; -log of e^-1 / (e^2 + e^-1) = log(1 + e^3).
    assert found.item() == pytest.approx(math.log(1 + math.exp(3)))


def test_ldam_is_the_ldam_of_the_heads() -> None:
    cosines, labels = some_logits()
    cosines = cosines.tanh()
    found = objective(COUNTS, loss="ldam")(30 * cosines, labels, None, None)
    wanted = LOSSES["ldam"](cosines, labels, COUNTS)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["cross-entropy", "balanced-softmax", "gml", "ldam"])
def test_of_mixed_images_the_losses_are_mixed(name: str) -> None:
    logits, labels = some_logits()
    each = objective(COUNTS, loss=name)
    mix = Mix(0.3, torch.tensor([7, 6, 5, 4, 3, 2, 1, 0]))
    wanted = 0.3 * each(logits, labels, None, None) + 0.7 * each(logits, labels.flip(0), None, None)
    torch.testing.assert_close(each(logits, labels, None, mix), wanted)


def test_class_weights_are_those_of_cross_entropy() -> None:
    logits, labels = some_logits()
    weights = torch.tensor([0.5, 1.0, 1.5])
    found = objective(COUNTS, schedule="ldam-drw")(logits, labels, weights, None)
    torch.testing.assert_close(found, functional.cross_entropy(logits, labels, weight=weights))


# Networks


def test_a_network_s_first_weights_depend_on_the_seed_alone() -> None:
    def first(seed: int) -> torch.Tensor:
        return build_network(BACKBONES["small-cnn"], 3, PretrainConfig(seed=seed)).conv1.weight  # type: ignore[union-attr, return-value]  # a convolution

    torch.manual_seed(1)
    before = first(0)
    assert torch.equal(first(0), before)
    assert not torch.equal(first(1), before)


def test_ldam_has_a_cosine_classifier_with_its_scale() -> None:
    network = build_network(BACKBONES["small-cnn"], 3, PretrainConfig(loss="ldam", margin_scale=20))
    classifier = network.linear
    assert isinstance(classifier, CosineLinear)
    assert classifier.scale == 20
    logits = network(torch.randn(4, 3, 8, 8, generator=generator()))
    assert logits.abs().max() <= 20 * (1 + 1e-6)


def test_the_size_of_the_images_can_be_set() -> None:
    usual = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, resize=256, crop=224)
    assert preprocessing_for(usual, PretrainConfig()) == usual
    smaller = preprocessing_for(usual, PretrainConfig(size=112, mean=(0.1, 0.2, 0.3)))
    assert (smaller.resize, smaller.crop, smaller.mean) == (128, 112, (0.1, 0.2, 0.3))


def test_an_image_that_the_network_cannot_take_is_told_at_once() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(ConfigError, match="own:net cannot take images of 5 x 5 pixels"):
        require_fits(network, torch.zeros(1, 3, 5, 5), "own:net")
    with pytest.raises(ConfigError, match=r"gives \(1, 3, 2, 2\) for an image"):
        require_fits(nn.Identity(), torch.zeros(1, 3, 2, 2), "own:net")
    assert network.training


# Epochs


def trainer(config: PretrainConfig, n: int = 33) -> Trainer:
    labels = torch.arange(n) % 3
    return Trainer(
        build_network(BACKBONES["small-cnn"], 3, config),
        HeldImages(pictures(n, side=8)),
        labels,
        class_counts=labels.bincount(),
        preprocessing=HALF,
        shift=Shift(1, (0, 0, 0), flip=True),
        config=config,
        device=CPU,
    )


def test_one_plain_step_is_that_of_sgd() -> None:
    config = PretrainConfig(
        epochs=1, batch_size=33, lr=0.1, padding=0, schedule="constant", channels_last=False
    )
    found = trainer(config)
    found._shift = None  # the images as they are
    network = build_network(BACKBONES["small-cnn"], 3, config)
    order = torch.randperm(33, generator=EpochDraws(0, 0).order)
    logits = network(HALF.normalize(pictures(33, side=8)[order]))
    loss = functional.cross_entropy(logits, (torch.arange(33) % 3)[order])
    loss.backward()  # type: ignore[no-untyped-call]  # torch has none there
    counted: list[int] = []
    record = found.run_epoch(0, counted.append)
    assert record.loss == pytest.approx(loss.item(), rel=1e-5)
    right = (logits.argmax(1) == (torch.arange(33) % 3)[order]).float().mean().item()
    assert (record.epoch, record.accuracy, record.lr) == (1, pytest.approx(right), 0.1)
    assert counted == [33]
    for (name, after), before in zip(
        found.network.named_parameters(), network.parameters(), strict=True
    ):
        assert before.grad is not None
        # The first step of momentum is the gradient itself, weight decay included.
        wanted = before - 0.1 * (before.grad + 5e-4 * before)
        torch.testing.assert_close(after, wanted, msg=name)


@pytest.mark.parametrize("settings", [{}, {"mixup": 1.0}, {"autocast": "bfloat16"}])
def test_an_epoch_is_repeatable_to_the_bit(settings: dict[str, object]) -> None:
    config = PretrainConfig(epochs=2, batch_size=8, lr=0.05, **settings)  # type: ignore[arg-type]  # any field
    weights = []
    for _ in range(2):
        one = trainer(config)
        records = [one.run_epoch(epoch, lambda _: None) for epoch in range(2)]
        weights.append((one.network.state_dict(), [record.loss for record in records]))
    assert weights[0][1] == weights[1][1]
    for name, weight in weights[0][0].items():
        assert torch.equal(weight, weights[1][0][name]), name


def test_dropout_is_repeatable_too() -> None:
    config = PretrainConfig(batch_size=8, lr=0.05)
    losses = []
    for outside in range(2):
        one = trainer(config)
        one.network.linear = nn.Sequential(nn.Dropout(0.5), one.network.linear)  # type: ignore[arg-type]  # a module
        torch.manual_seed(outside)
        losses.append(one.run_epoch(0, lambda _: None).loss)
    assert losses[0] == losses[1]


def test_a_training_learns() -> None:
    config = PretrainConfig(epochs=30, batch_size=8, lr=0.05, padding=0)
    one = trainer(config)
    records = [one.run_epoch(epoch, lambda _: None) for epoch in range(30)]
    assert records[-1].loss < records[0].loss / 2
    assert records[-1].accuracy > 0.9


def test_no_batch_has_one_image() -> None:
    # 33 images in batches of 8 would leave one over, of which BatchNorm knows no deviation.
    one, counted = trainer(PretrainConfig(batch_size=8)), []
    one.run_epoch(0, counted.append)
    assert sorted(counted) == [6, 6, 7, 7, 7]


def test_a_training_that_diverges_says_what_to_do() -> None:
    one = trainer(PretrainConfig(batch_size=8, lr=1e6))
    with pytest.raises(TrainingError, match=r"no number any more in epoch 1.*lr below 1e\+06"):
        one.run_epoch(0, lambda _: None)


# Files


def test_files_hold_tensors_and_plain_values_only(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    write_file(path, {"format": FORMAT, "version": 1, "weight": torch.ones(2)})
    assert read_file(path, FORMAT)["weight"].tolist() == [1, 1]
    assert is_ours(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or no file of nolb pretrain"),
        (b"not a checkpoint", "damaged or no file of nolb pretrain"),
        ({"state_dict": {}}, "something else than a file of nolb pretrain"),
        ({"format": FORMAT, "version": 99}, "written by another version"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "model.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(TrainingError, match=message):
        read_file(path, FORMAT)
    assert not is_ours(path)


def test_what_differs_is_named() -> None:
    require_same(Path("a"), {"lr": 0.1, "seed": 0}, {"lr": 0.1, "seed": 0})
    with pytest.raises(
        TrainingError, match=r"lr \(0.1 there, 0.2 now\), new \(None there, 1 now\)"
    ):
        require_same(Path("a"), {"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0, "new": 1})
