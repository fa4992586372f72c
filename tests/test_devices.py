"""Which device a name means."""

from __future__ import annotations

import pytest
import torch

from pipeline.devices import choose_device
from pipeline.errors import ConfigError
from pipeline.team import Team


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of such a machine; no device is touched."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("name", "team", "found"),
    [
        ("auto", None, "cuda"),
        ("cuda", Team(), "cuda"),
        ("auto", Team(rank=5, size=8, local_rank=1), "cuda:1"),
        ("cuda", Team(rank=4, size=8, local_rank=4), "cuda:1"),  # the fifth process here
        ("cuda:2", Team(rank=1, size=8, local_rank=1), "cuda:2"),
        ("cpu", Team(rank=1, size=8, local_rank=1), "cpu"),
    ],
)
def test_processes_on_one_machine_take_different_gpus(
    name: str, team: Team | None, found: str
) -> None:
    assert choose_device(name, team) == torch.device(found)


def test_without_gpus_auto_is_the_cpu_and_the_others_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for team in (None, Team(rank=1, size=2, local_rank=1)):
        assert choose_device("auto", team) == torch.device("cpu")
        with pytest.raises(ConfigError, match="sees 0 CUDA devices here: choose --device cpu"):
            choose_device("cuda", team)
