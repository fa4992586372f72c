"""Sweeps made up, for the tests of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.sweeping.sweep import Sweep


def made_sweep(t_old: Sequence[float], t_new: Sequence[float], **more: Any) -> Sweep:
    """A sweep of two classes on `val` that has chosen nothing; its planes are flat unless given."""
    shape = (len(t_old), len(t_new))
    flat, none = np.full(shape, 10.0), np.zeros(shape, np.int64)
    settings: dict[str, Any] = {
        **dict.fromkeys(("accuracy", "geometric_mean", "harmonic_mean", "lowest_recall"), flat),
        "groups": {"many": flat, "medium": flat, "few": np.full(shape, np.nan)},
        "lowest_class": none,
        "substituted_zeros": none,
        "split": "val",
        "class_names": ("ant", "bee"),
        "n_samples": 50,
        "n_failed": 0,
    }
    return Sweep(t_old=np.array(t_old, float), t_new=np.array(t_new, float), **settings | more)
