"""Python in a process of its own: what it imports, how much it holds, how several work together."""

from __future__ import annotations

import subprocess
import sys
from os import environ
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder of this checkout, from which `tests` and `benchmarks` can be imported too."""

ONE_THREAD = environ | {"OMP_NUM_THREADS": "1"}
"""The environment of processes that share the machine with others of the test."""


def python(*words: object) -> str:
    """What Python prints, run with these words in a process of its own, which ends well."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=ONE_THREAD, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def torchrun(*words: object, size: int = 2) -> str:
    """As `python`, of a program in as many processes that torchrun starts."""
    return python(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", size, *words
    )  # fmt: skip
