"""Networks of one's own: how their factory is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.backbones.importable import backbone, pretrained
from pipeline.errors import ConfigError

NETS = """
from torch import nn

def told(num_classes):
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*pooled, nn.Linear(4, num_classes))

def knows(num_classes=5):
    return told(num_classes)

def fixed():
    return told(3)
"""


@pytest.fixture(autouse=True)
def _networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "importable_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("importable_nets", None)


@pytest.mark.parametrize(("name", "classes"), [("told", 7), ("knows", 7), ("fixed", 3)])
def test_a_factory_is_told_the_number_of_classes_where_it_takes_it(name: str, classes: int) -> None:
    found = backbone(f"importable_nets:{name}")
    assert (found.classifier, found.feature_width) == ("3", 4)
    assert found.build(7)(torch.zeros(1, 3, 8, 8)).shape == (1, classes)


def test_weights_of_their_own_are_for_classes_of_their_own() -> None:
    assert pretrained("importable_nets:knows")[0](torch.zeros(1, 3, 8, 8)).shape == (1, 5)
    with pytest.raises(ConfigError, match="num_classes has no default: give it the number"):
        pretrained("importable_nets:told")
