"""Kill extractions at random instants with kill -9, resume them, and compare every byte.

    python -m benchmarks.faults [--kills 200] [--seed 0] [--folder /dev/shm]

Each trial extracts real images with one to four processes into a Zarr or an HDF5 store. At a
random instant one of the processes, or all of them, get SIGKILL; where one got it, the others get
SIGTERM, as torchrun does it. The extraction is resumed by a new random number of processes, and
killed again now and then, until it completes. Then every byte must be that of an uninterrupted
run, and no row that had been recorded may have been computed again. It ends with exit code 1 at
the first difference.

The processes are forked from one that has loaded torch, and meet at a file instead of a socket;
otherwise they are what `torchrun -m pipeline extract` starts.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from torch.distributed import FileStore  # type: ignore[attr-defined]  # exported unsaid

from benchmarks.machine import describe
from benchmarks.small_extraction import N_ROWS, make_inputs, run, tree
from cache import Shard, describe_store, verify_store
from pipeline.errors import NolbError
from pipeline.team import Team

SUFFIXES = (".zarr", ".h5")
AGAIN = 0.3
"""Probability that a resumed extraction is killed too."""

FEW = 20
"""Kills up to which only a single process makes the reference."""

PATIENCE = 120.0
"""Seconds after which an extraction that nobody killed counts as hanging."""


@dataclass
class Trial:
    """One store from its beginning to its completion, killed on the way."""

    folder: Path
    out: Path
    draw: random.Random
    landed: Counter[str]
    """Where the kills found the store."""
    computed: int = 0
    """Rows that went through the model in processes that lived to tell."""

    def attempt(self, size: int, seconds: float | None) -> bool:
        """Run `size` processes, and kill after `seconds`; whether any was still alive then."""
        meeting = self.folder / f"meeting-{self.draw.random()}"
        processes = [self._start(rank, size, meeting) for rank in range(size)]
        if seconds is None:
            _wait(processes, PATIENCE)
            meeting.unlink(missing_ok=True)
            return False
        time.sleep(seconds)
        alive = [pid for pid in processes if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        victims = alive if self.draw.random() < 0.5 else self.draw.sample(alive, bool(alive))
        self.landed[self._state()] += bool(victims)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        for pid in set(alive) - set(victims):
            os.kill(pid, signal.SIGTERM)
        for pid in alive:
            os.waitpid(pid, 0)
        meeting.unlink(missing_ok=True)
        return bool(victims)

    def _start(self, rank: int, size: int, meeting: Path) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            store = FileStore(str(meeting), size) if size > 1 else None
            team = Team(rank, size, rank, size, store=store)
            result = run(self.folder, self.out, resume=True, team=team)
            log = self.folder / f"computed-{os.getpid()}.json"
            log.write_text(str(result.computed))
            code = 0
        except NolbError as error:
            print(f"process {rank} of {size}: {error}", file=sys.stderr)
        finally:
            os._exit(code)

    def _state(self) -> str:
        if self.out.exists():
            return "published"
        try:
            info = describe_store(self.out)
        except NolbError:
            return "nothing recorded"
        recorded = sum(split.n_recorded for split in info.splits)
        shards = sum(split.n_shards for split in info.splits)
        return "all recorded, being sealed" if recorded == shards else "shards being written"

    def recorded_rows(self) -> int:
        """Rows whose shards are recorded now."""
        if self.out.exists():
            return N_ROWS
        from cache.backends import backend_for

        backend = backend_for(self.out)
        if not backend.has_draft(self.out):
            return 0
        recorded: list[Shard] = list(backend.open_draft(self.out).records())
        return sum(shard.n_rows for shard in recorded)

    def fresh_rows(self) -> int:
        """Rows that the last attempt's processes computed."""
        logs = list(self.folder.glob("computed-*.json"))
        rows = sum(int(log.read_text()) for log in logs)
        for log in logs:
            log.unlink()
        return rows


def _wait(processes: Sequence[int], seconds: float) -> None:
    """Wait for processes that must end well."""
    latest = time.monotonic() + seconds
    left = set(processes)
    while left:
        for pid in list(left):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done and status:
                _fail(f"a process that nobody killed ended with status {status}")
            if done:
                left.remove(pid)
        if time.monotonic() > latest:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            _fail(f"an extraction that nobody killed hung for {seconds:.0f} s")
        time.sleep(0.005)


def _fail(what: str) -> None:
    print(f"FAILED: {what}")
    sys.exit(1)


@click.command()
@click.option("--kills", default=200, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work, as /dev/shm.")
def main(kills: int, seed: int, folder: Path | None) -> None:
    """Kill, resume, compare, and print the counts."""
    torch.set_num_threads(1)  # forked processes must not inherit a pool of threads
    print(describe())
    draw = random.Random(seed)  # noqa: S311 - no secret
    landed: Counter[str] = Counter()
    done: Counter[str] = Counter()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        home = Path(temporary)
        make_inputs(home)
        whole, usual = _references(home, draw, landed, sizes=(1, 2, 3, 4) if kills > FEW else (1,))
        while sum(landed.values()) < kills:
            suffix, size = draw.choice(SUFFIXES), draw.randint(1, 4)
            trial = Trial(home, home / f"x{suffix}", draw, landed)
            killed = 0
            while True:
                again = not killed or draw.random() < AGAIN
                before = trial.recorded_rows()
                # Later than usual, so that the sealing at the end is met as often as the rest.
                hit = trial.attempt(size, draw.uniform(0.1, 1.3) * usual[size] if again else None)
                fresh = trial.fresh_rows()
                if not hit and fresh + before != N_ROWS:
                    _fail(f"{fresh} rows were computed where {N_ROWS - before} were missing")
                killed += hit
                if not hit:
                    break
                size = draw.randint(1, 4)
            if problems := verify_store(trial.out):
                _fail(f"a resumed store has problems: {problems[0]}")
            if tree(trial.out) != whole[suffix]:
                _fail(f"a store that was killed {killed} times differs from an uninterrupted one")
            done[f"{suffix}, finished by {size}"] += 1
            _clear(trial.out)
            if rest := list(home.glob("*.partial")) + list(home.glob(".x*")):
                _fail(f"{rest[0].name} was left behind")
    print(f"kills that hit             {sum(landed.values())}")
    for state in sorted(landed):
        print(f"  {state:<25}{landed[state]}")
    print(f"stores completed           {sum(done.values())}")
    for kind in sorted(done):
        print(f"  {kind:<25}{done[kind]}")
    print(f"byte-identical to an uninterrupted run: all {sum(done.values())}")
    print(f"seconds                    {time.monotonic() - begun:.0f}")


def _references(
    home: Path, draw: random.Random, landed: Counter[str], sizes: tuple[int, ...]
) -> tuple[dict[str, dict[str, bytes]], dict[int, float]]:
    """Bytes of uninterrupted stores, equal for all sizes; and the seconds that they take."""
    whole: dict[str, dict[str, bytes]] = {}
    usual: dict[int, float] = {}
    for suffix in SUFFIXES:
        for size in sizes:
            trial = Trial(home, home / f"x{suffix}", draw, landed)
            begun = time.monotonic()
            trial.attempt(size, None)
            usual[size] = time.monotonic() - begun
            trial.fresh_rows()
            if tree(trial.out) != whole.setdefault(suffix, tree(trial.out)):
                _fail(f"{size} processes give another {suffix} store than one")
            _clear(trial.out)
    said = ", ".join(f"{n} in {usual[n]:.2f} s" for n in sizes)
    print(f"uninterrupted: equal bytes from processes {said}; both backends")
    return whole, {size: usual.get(size, usual[max(sizes)]) for size in (1, 2, 3, 4)}


def _clear(out: Path) -> None:
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink()


if __name__ == "__main__":
    main()
