"""What every benchmark states: the machine, the versions, the number of runs."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from pipeline.cores import available_cores
from pipeline.versions import versions


def describe() -> str:
    """Processor, cores, threads and versions, on two lines."""
    capability = torch.backends.cpu.get_cpu_capability()
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    return (
        f"{platform.machine()}, {capability}, {available_cores()} cores, "
        f"{torch.get_num_threads()} threads\n"
        f"{packages}"
    )


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def spread(values: Sequence[float], unit: str = "s") -> str:
    """Median with smallest and largest: these machines are noisy."""
    middle = statistics.median(values)
    return f"{middle:.3f} {unit} ({min(values):.3f} to {max(values):.3f}, {len(values)} runs)"
