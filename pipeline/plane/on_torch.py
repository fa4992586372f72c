"""The arithmetic of a plane by torch, for CUDA devices (and CPUs, so that tests reach it)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.ensemble import Logits
from pipeline.metrics import Floats
from pipeline.plane.candidates import Indices, below
from pipeline.plane.partitions import ROUGH_RANGE, MakeChunk

WORKED_ON = 2**26
"""Numbers in the working array of one step (256 MiB in float32)."""


class TorchChunk:
    """Logits (B, C) of each head on a device; see `partitions.Chunk`."""

    def __init__(self, logits: Sequence[Logits], device: torch.device) -> None:
        self._device = device
        self._logits = [
            torch.from_numpy(np.ascontiguousarray(values)).to(device) for values in logits
        ]

    def surviving(self, margins: Sequence[float]) -> tuple[Indices, Indices]:
        """See `candidates.surviving`."""
        alive = torch.ones_like(self._logits[0], dtype=torch.bool)
        for anchor in [values.argmax(dim=1, keepdim=True) for values in self._logits]:
            above = torch.zeros_like(alive)
            for values, margin in zip(self._logits, margins, strict=True):
                bound = below(values.gather(1, anchor).cpu().numpy(), margin)
                above |= values > torch.from_numpy(bound).to(self._device)
            alive &= above
        rows, classes = alive.nonzero(as_tuple=True)
        return rows.cpu().numpy(), classes.cpu().numpy()

    def partitions(self, head: int, rows: Indices, temperatures: Floats) -> Floats:
        """(R, T) sums of exp((logit - largest) / t), see `partitions.Chunk`."""
        values = self._logits[head][torch.from_numpy(rows).to(self._device)]
        tops = values.amax(dim=1, keepdim=True)
        rough = (values - tops).float()
        sums = torch.empty((len(rows), len(temperatures)), dtype=torch.float64, device=self._device)
        step = max(1, WORKED_ON // values.shape[1])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            for k, t in enumerate(temperatures.tolist()):
                if ROUGH_RANGE[0] <= t <= ROUGH_RANGE[1]:
                    sums[part, k] = rough[part].mul(1 / t).exp_().sum(dim=1)
                else:
                    exact = values[part].double() - tops[part]
                    sums[part, k] = exact.div_(t).exp_().sum(dim=1)
        return sums.cpu().numpy()


def torch_chunks(device: torch.device) -> MakeChunk:
    """Chunks on a device."""
    return lambda logits: TorchChunk(logits, device)
