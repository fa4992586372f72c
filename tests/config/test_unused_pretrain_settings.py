"""Settings that have no effect on a training are refused if they are given explicitly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PretrainConfig
from pipeline.config.pretrain import AUGMENTATION_SETTINGS
from pipeline.config.unused import refuse_unused, unused_settings
from pipeline.errors import ConfigError
from tests.commands import nolb
from tests.small_data import small_checkpoint
from tests.small_trainings import SMALL, Run, run_in, weights_of

OTHER: dict[str, Any] = {
    "max_margin": 0.2, "margin_scale": 3.0, "beta": 0.5, "padding": 2, "fill": "mean",
    "smallest_crop": 0.9,
}  # fmt: skip
"""Another value for each setting that has no effect on some trainings."""

TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"epochs": 1},
    "ldam": {"loss": "ldam", "epochs": 1},
    "drw": {"schedule": "ldam-drw", "epochs": 8},
    "cropped": {"size": 8, "epochs": 1},
    "unpadded": {"padding": 0, "epochs": 1},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_they_have_no_effect_and_the_others_do(tmp_path: Path, name: str) -> None:
    run, config = run_in(tmp_path), dataclasses.replace(SMALL, **TRAININGS[name])

    def trained(config: PretrainConfig) -> dict[str, bytes]:
        run("m.pth", config, overwrite=True)
        return {key: weight.numpy().tobytes() for key, weight in weights_of(tmp_path / "m.pth").items()}  # fmt: skip  # noqa: E501

    plain = trained(config)
    unused = {
        setting
        for setting, value in OTHER.items()
        if trained(dataclasses.replace(config, **{setting: value})) == plain
    }
    resolved = "resized-crop" if name == "cropped" else "shift"
    assert unused_settings(dataclasses.replace(config, augmentation=resolved)) == unused
    known = {"padding", "smallest_crop"} if name == "unpadded" else AUGMENTATION_SETTINGS
    assert unused_settings(config) == unused - known  # before the network is known


def test_each_of_them_is_tried() -> None:
    fields = dataclasses.fields(PretrainConfig)
    assert {field.name for field in fields if "only_with" in field.metadata} == set(OTHER)


def test_one_sentence_names_all_of_them() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unused([PretrainConfig()], ["beta", "lr", "margin_scale", "max_margin", "padding"])
    assert str(caught.value) == (
        "--beta has no effect with schedule cosine, only with schedule ldam-drw; --margin-scale "
        "and --max-margin have no effect with loss cross-entropy, only with loss ldam: leave them "
        "out."
    )
    with pytest.raises(ConfigError, match=r"^--fill has no effect with --padding 0, .*it"):
        refuse_unused([PretrainConfig(padding=0)], ["fill", "padding"])
    refuse_unused([PretrainConfig(loss="ldam", schedule="ldam-drw")], OTHER)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_in(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--beta", 0.5), "--beta has no effect with schedule cosine"),
        (
            ("--max-margin", 0.3, "--schedule", "steps", "--epochs", 8),
            "--max-margin has no effect with loss",
        ),
        (("--smallest-crop", 0.5), "--smallest-crop has no effect with augmentation shift"),
        (("--size", 8, "--fill", "mean"), "--fill has no effect with augmentation resized"),
        (("--augmentation", "shift", "--smallest-crop", 0.5), "--smallest-crop has no effect"),
    ],
)
def test_the_command_refuses_before_it_trains(
    run: Run, options: tuple[Any, ...], message: str
) -> None:
    assert message in pretrained(run, *options, code=2)
    assert not (run.folder / "m.pth").exists()


def test_a_network_to_begin_with_says_what_becomes_of_its_images(run: Run) -> None:
    start = small_checkpoint(run.folder / "start.pth")
    message = pretrained(run, "--from", start, "--smallest-crop", 0.5, code=2)
    assert "augmentation shift" in message
    pretrained(run, "--from", start, "--padding", 1)


def test_a_recipe_may_hold_them(run: Run) -> None:
    recipe = run.folder / "recipe.yaml"
    recipe.write_text("pretrain:\n  beta: 0.5\n  smallest_crop: 0.5\n")
    pretrained(run, "--config", recipe)


def pretrained(run: Run, *options: object, code: int = 0) -> str:
    """What the command says that trains with these options, or refuses to."""
    words = ["pretrain", "--train", run.folder / "train", "--out", run.folder / "m.pth"]
    words += ["--model", "small-cnn", "--epochs", 1, "--batch-size", 4, "--workers", 0, *options]
    return nolb(*words, code=code).output
