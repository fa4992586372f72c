"""`fit-head` by several processes that torchrun starts."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cache import Classifier, open_store
from pipeline.config import FitConfig
from pipeline.heads import load_head
from pipeline.stages.fit_head import fit_head
from tests.processes import ONE_THREAD, ROOT, torchrun
from tests.training_stores import LABELS, planted_features, training_store

SETTINGS = ("--epochs", "4", "--batch-size", "16", "--feature-dropout", "0.1")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A store of six shards; every class but the smallest is in several of them."""
    order = np.random.default_rng(0).permutation(54)
    path = tmp_path / "x.zarr"
    training_store(
        planted_features(n_views=2)[:, order], LABELS[order], {7: "broken", 30: "broken"},
        shard_rows=10, path=path, old=Classifier(np.eye(3, 6, dtype=np.float32)),
    ).close()  # fmt: skip
    return path


@pytest.mark.parametrize("memory", [(), ("--memory", "100GiB")])
def test_two_processes_fit_the_head_of_one(
    stored: Path, tmp_path: Path, memory: tuple[str, ...]
) -> None:
    out = tmp_path / "head.safetensors"
    said = torchrun("-m", "pipeline", "fit-head", stored, "--out", out, *SETTINGS, *memory)
    assert said.count("fitted         gml, 4 epochs over 52 rows and 2 views of each") == 1
    config = FitConfig(epochs=4, batch_size=16, feature_dropout=0.1)
    with open_store(stored) as store:
        alone = fit_head(store, config).head
    together = load_head(out)
    np.testing.assert_allclose(together.weight, alone.weight, rtol=0, atol=1e-5)
    np.testing.assert_allclose(together.bias, alone.bias, rtol=0, atol=1e-5)
    assert together.class_counts == alone.class_counts


SCRATCH = """
import sys
from cache import open_store
from pipeline.config import FitConfig
from pipeline.fitting import store_rows
from pipeline.fitting.scratch import ScratchRows
from pipeline.heads import save_head
from pipeline.stages.fit_head import fit_head
from pipeline.team import Team

store_rows._fits = lambda *_: False
held = []
fill = ScratchRows._fill
ScratchRows._fill = lambda self, split, part: (held.append(len(part)), fill(self, split, part))
team = Team.from_environment(work="fit")
with open_store(sys.argv[1]) as store:
    config = FitConfig(epochs=4, batch_size=16, feature_dropout=0.1, memory="100GiB")
    result = fit_head(store, config, team=team)
print(f"holds {held[0]}" + chr(10), end="", flush=True)  # in one piece: both processes write
if team.leads:
    save_head(result.head, sys.argv[2])
"""


def test_each_scratch_file_holds_a_share(stored: Path, tmp_path: Path) -> None:
    program, out = tmp_path / "fit.py", tmp_path / "head.safetensors"
    program.write_text(SCRATCH)
    said = torchrun(program, stored, out)
    assert sorted(line for line in said.splitlines() if "holds" in line) == [
        "holds 24", "holds 30",
    ]  # fmt: skip
    with open_store(stored) as store:
        alone = fit_head(store, FitConfig(epochs=4, batch_size=16, feature_dropout=0.1)).head
    np.testing.assert_allclose(load_head(out).weight, alone.weight, rtol=0, atol=1e-5)


DYING = """
import os, signal, sys, time
from cache import open_store
from pipeline.config import FitConfig
from pipeline.errors import FitError
from pipeline.stages.fit_head import fit_head
from pipeline.team import Team

rank, way = int(sys.argv[2]), sys.argv[3]
env = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[4]}
os.environ |= env

def stop(snapshot):
    if rank == 1 and snapshot.done == 2:
        if way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise FitError("The lights went out.")

with open_store(sys.argv[1]) as store:
    try:
        team = Team.from_environment(work="fit")
        fit_head(store, FitConfig(epochs=10**6, batch_size=16), on_progress=stop, team=team)
    except FitError as error:
        print(error, flush=True)
        time.sleep(1)  # it keeps the place where they meet
"""


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ("killed", "Another process of this fit has died or cannot be reached any more. No head"),
        ("failed", "Process 1 of this fit stopped: The lights went out. No head was written"),
    ],
)
def test_the_death_of_a_process_is_a_sentence(
    stored: Path, tmp_path: Path, free_port: int, way: str, sentence: str
) -> None:
    # Started by hand: torchrun would end the one that is left before it can speak.
    program = tmp_path / "fit.py"
    program.write_text(DYING)
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), str(stored), str(rank), way, str(free_port)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=ONE_THREAD,
        )
        for rank in range(2)
    ]  # fmt: skip
    (told, errors), (_, _) = [process.communicate(timeout=300) for process in processes]
    assert sentence in told, errors
    assert processes[1].returncode == (-signal.SIGKILL if way == "killed" else 0)


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
