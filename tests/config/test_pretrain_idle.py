"""Settings that decide nothing about a training are refused where they are given by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PretrainConfig
from pipeline.config.idle_training import AUGMENTATION_SETTINGS, USES, idle_settings, refuse_idle
from pipeline.errors import ConfigError
from tests.commands import nolb
from tests.small_data import small_checkpoint
from tests.small_trainings import SMALL, Run, run_in, weights_of

OTHER: dict[str, Any] = {
    "max_margin": 0.2, "margin_scale": 3.0, "beta": 0.5, "padding": 2, "fill": "mean",
    "smallest_crop": 0.9,
}  # fmt: skip
"""Another value for each setting that some trainings have no use for."""

TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"epochs": 1},
    "ldam": {"loss": "ldam", "epochs": 1},
    "drw": {"schedule": "ldam-drw", "epochs": 8},
    "cropped": {"size": 8, "epochs": 1},
    "unpadded": {"padding": 0, "epochs": 1},
}


@pytest.mark.parametrize("name", TRAININGS)
def test_they_decide_nothing_and_the_others_do(tmp_path: Path, name: str) -> None:
    run, config = run_in(tmp_path), dataclasses.replace(SMALL, **TRAININGS[name])

    def trained(config: PretrainConfig) -> dict[str, bytes]:
        run("m.pth", config, overwrite=True)
        return {key: weight.numpy().tobytes() for key, weight in weights_of(tmp_path / "m.pth").items()}  # fmt: skip  # noqa: E501

    plain = trained(config)
    idle = {
        setting
        for setting, value in OTHER.items()
        if trained(dataclasses.replace(config, **{setting: value})) == plain
    }
    cropped = "resized-crop" if name == "cropped" else "shift"
    assert idle_settings(config, cropped) == idle
    known = set() if name == "unpadded" else AUGMENTATION_SETTINGS  # without the network
    assert idle_settings(config) == idle - known - {"smallest_crop"}


def test_each_of_them_is_tried() -> None:
    assert {name for names, _, _ in USES for name in names} == set(OTHER)


def test_one_sentence_names_all_of_them() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_idle(PretrainConfig(), ["beta", "lr", "margin_scale", "max_margin", "padding"])
    assert str(caught.value) == (
        "--max-margin and --margin-scale decide nothing with the loss cross-entropy, but with "
        "ldam; --beta decides nothing with the schedule cosine, but with ldam-drw: leave them out."
    )
    with pytest.raises(ConfigError, match=r"^--fill decides nothing with a padding of 0, but .*it"):
        refuse_idle(PretrainConfig(padding=0), ["fill", "padding"])
    refuse_idle(PretrainConfig(loss="ldam", schedule="ldam-drw"), OTHER)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_in(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--beta", 0.5), "--beta decides nothing with the schedule cosine"),
        (
            ("--max-margin", 0.3, "--schedule", "steps", "--epochs", 8),
            "--max-margin decides nothing with the",
        ),
        (("--smallest-crop", 0.5), "--smallest-crop decides nothing with the augmentation shift"),
        (("--size", 8, "--fill", "mean"), "--fill decides nothing with the augmentation resized"),
        (("--augmentation", "shift", "--smallest-crop", 0.5), "--smallest-crop decides nothing"),
    ],
)
def test_the_command_refuses_before_it_trains(
    run: Run, options: tuple[Any, ...], told: str
) -> None:
    assert told in pretrained(run, *options, code=2)
    assert not (run.folder / "m.pth").exists()


def test_a_network_to_begin_with_says_what_becomes_of_its_images(run: Run) -> None:
    start = small_checkpoint(run.folder / "start.pth")
    told = pretrained(run, "--from", start, "--smallest-crop", 0.5, code=2)
    assert "the augmentation shift" in told
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
