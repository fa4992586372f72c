"""How much of the machine this process may use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores that this process may use; those of the machine where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
