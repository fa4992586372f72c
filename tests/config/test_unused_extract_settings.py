"""Settings that have no effect on an extraction are refused if they are given explicitly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cache import Store
from pipeline.config import ExtractConfig
from pipeline.config.unused import refuse_unused, unused_settings
from pipeline.errors import ConfigError
from tests.commands import nolb, refused
from tests.small_data import small_inputs
from tests.small_extractions import Run

SMALL = ExtractConfig(device="cpu", workers=0, batch_size=4)

OTHER: dict[str, Any] = {
    "recalibrate_bn_sampler": "class-balanced", "view_seed": 7, "view_padding": 2,
    "view_fill": "black", "view_flip": None, "view_colour": 0.3, "view_erase": 3,
    "test_view_shift": 3, "logits": "recompute",
}  # fmt: skip
"""Another value for each setting that has no effect on some extractions; None: the other of two."""

EXTRACTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "views": {"views": 2},
    "unpadded": {"views": 2, "view_padding": 0},
    "coloured": {"views": 1, "view_colour": 0.5, "view_padding": 0},
    "in turns": {"views": 2, "view_colour": 0.5, "view_padding": 0, "view_erase": 4},
    "mirrored": {"test_views": 1},
    "moved": {"test_views": 2},
    "moved, not mirrored": {"test_views": 1, "view_flip": False},
    "recalibrated": {"recalibrate_bn": 8},
    "features only": {"features_only": True},
}


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_they_have_no_effect_and_the_others_do(tmp_path: Path, name: str) -> None:
    run = Run(small_inputs(tmp_path), SMALL)
    config = dataclasses.replace(SMALL, **EXTRACTIONS[name])

    def extracted(config: ExtractConfig) -> tuple[object, ...]:
        with run("x.memory", config, overwrite=True).store as store:
            return tuple(contents(store))

    plain = extracted(config)
    unused = {
        setting
        for setting, value in OTHER.items()
        if extracted(with_other(config, setting, value)) == plain
    }
    assert unused_settings(config) == unused


def with_other(config: ExtractConfig, setting: str, value: object) -> ExtractConfig:
    other = not getattr(config, setting) if value is None else value
    return dataclasses.replace(config, **{setting: other})


def contents(store: Store) -> list[object]:
    """All numbers of a store, and whether it holds the old logits or computes them."""
    found: list[object] = [store.header.store_logits]
    for split in (store["train"], store["test"]):
        found += [split.features().tobytes(), split.n_views]
        found += [split.views().tobytes()] if split.n_views else []
    return found


def test_one_sentence_says_what_they_need() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_unused([SMALL], ["view_colour", "view_erase", "device", "test_view_shift"])
    assert str(caught.value) == (
        "--view-colour and --view-erase have no effect with --views 0, only with --views above 0; "
        "--test-view-shift has no effect with --test-views 0, only with --test-views above 1: "
        "leave them out."
    )
    with pytest.raises(ConfigError, match=r"^--no-view-flip has no effect"):
        refuse_unused([dataclasses.replace(SMALL, view_flip=False)], ["view_flip"])
    refuse_unused([dataclasses.replace(SMALL, views=2, test_views=2)], OTHER.keys() - {"recalibrate_bn_sampler", "logits"})  # fmt: skip  # noqa: E501


def test_the_command_refuses_them_before_anything_is_read(tmp_path: Path) -> None:
    words = ["extract", "--checkpoint", "none.pth", "--train", "none", "--test", "none"]
    words += ["--out", str(tmp_path / "x.zarr"), "--view-erase", "4"]
    assert "--view-erase has no effect with --views 0" in refused(*words, code=2)
    recipe = [*words[:-2], "--config", "cifar100-lt-test-views", "--test-views", "0"]
    assert "no effect" not in nolb(*recipe, code=1).output
