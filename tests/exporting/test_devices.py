"""Where onnxruntime runs a program: it knows other devices than torch."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.exporting import formats

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ON_CPU, ON_BOTH = ["CPUExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("name", "torch_s", "providers", "wanted"),
    [
        ("auto", CPU, ON_CPU, CPU),
        ("auto", CPU, ON_BOTH, CPU),  # onnxruntime-gpu on a machine without a GPU
        ("auto", CUDA, ON_CPU, CPU),
        ("auto", CUDA, ON_BOTH, CUDA),
        ("cpu", CPU, ON_BOTH, CPU),
        ("cuda", CUDA, ON_BOTH, CUDA),
    ],
)
def test_auto_is_a_gpu_where_both_have_one(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    torch_s: torch.device,
    providers: list[str],
    wanted: torch.device,
) -> None:
    monkeypatch.setattr(formats, "choose_device", {name: torch_s}.__getitem__)
    assert formats._onnx_device(name, providers) == wanted


def test_a_gpu_that_onnxruntime_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "choose_device", {"cuda": CUDA}.__getitem__)
    with pytest.raises(ConfigError, match=r"runs on the CPU alone.*choose --device cpu"):
        formats._onnx_device("cuda", ON_CPU)
