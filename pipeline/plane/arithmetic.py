"""Which arithmetic measures a plane: NumPy's, or torch's on another device."""

from __future__ import annotations

from pipeline.plane.partitions import MakeChunk, NumpyChunk


def chunks_on(device: str) -> MakeChunk:
    """NumPy on the CPU, torch elsewhere.

    Args:
        device: `cpu`, `cuda`, `cuda:K` or `auto`.

    Raises:
        ConfigError: if there is no such device.
    """
    if device == "cpu":
        return NumpyChunk
    from pipeline.devices import choose_device  # torch takes seconds to load
    from pipeline.plane.on_torch import torch_chunks

    chosen = choose_device(device)
    return NumpyChunk if chosen.type == "cpu" else torch_chunks(chosen)
