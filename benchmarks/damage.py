"""Damage finished stores at random, find it, refuse to serve it, and repair it.

    python -m benchmarks.damage [--trials 1000] [--seed 0] [--folder /dev/shm]

Each trial takes a whole store, Zarr or HDF5, and flips one random bit, cuts a file short, deletes
one, or swaps two shards (of an HDF5 file: two chunks of it). Then

- a full verify must find it;
- every reader must raise or give the original bytes, and `fit-head` must raise or give the
  original head;
- a repair must give the original bytes, and compute no shard but the damaged ones: for Zarr those
  whose objects were damaged; for HDF5, where a flipped bit may hit the tables of the file, those
  that are not as recorded (all of them, where the file cannot be opened any more).

It ends with exit code 1 at the first trial that fails.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import click
import h5py
import torch

from benchmarks.machine import describe
from benchmarks.small_extraction import make_inputs, run, tree
from cache import CorruptStoreError, NolbError, open_store, reopen_store, verify_store
from pipeline.config import FitConfig
from pipeline.stages.fit_head import fit_head

SUFFIXES = (".zarr", ".h5")
FIT = FitConfig(epochs=1)


def damage(path: Path, draw: random.Random) -> tuple[str, set[str] | None]:
    """Damage a store; what was done, and the shards of which bytes were damaged, where it tells."""
    kind = draw.choice(("flip", "truncate", "delete", "swap"))
    if path.is_file():
        return _damage_file(path, kind, draw), None
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = draw.choice(files)
    if kind == "swap":
        pairs = [
            (a, b)
            for a in files for b in files
            if a < b and a.parent == b.parent and shard_of(a) and shard_of(b)
            and a.read_bytes() != b.read_bytes()
        ]  # fmt: skip
        first, second = draw.choice(pairs)
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
        return kind, {shard_of(first), shard_of(second)}
    if kind == "delete":
        file.unlink()
    elif kind == "truncate":
        content = file.read_bytes()
        file.write_bytes(content[: draw.randrange(len(content))])
    else:
        _flip(file, draw)
    return kind, {shard_of(file)} - {""}


def shard_of(file: Path) -> str:
    """Name of the shard that an object of a Zarr store holds; "" for other files."""
    array = file.parent.name
    if array not in ("features", "views", "logits") or file.name == "zarr.json":
        return ""
    index = int(file.name.split(".")[2 if array == "views" else 1])
    return f"{file.parent.parent.name}-{index:05d}"


def _damage_file(path: Path, kind: str, draw: random.Random) -> str:
    content = path.read_bytes()
    if kind == "truncate":
        path.write_bytes(content[: draw.randrange(len(content))])
    elif kind == "flip":
        _flip(path, draw)
    else:
        with h5py.File(path, "r") as file:
            name = draw.choice(
                ("train/features", "train/views", "train/logits", "test/features", "test/views")
            )
            chunks = file[name].id
            places = [chunks.get_chunk_info(i) for i in range(chunks.get_num_chunks())]
        one, other = draw.sample(places, 2)
        changed = bytearray(content)
        first = slice(one.byte_offset, one.byte_offset + one.size)
        second = slice(other.byte_offset, other.byte_offset + other.size)
        if kind == "swap":
            changed[first], changed[second] = content[second], content[first]
        else:  # what a lost block of the disk leaves of a chunk
            changed[first] = bytes(one.size)
        path.write_bytes(changed)
    return kind


def _flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def read_all(path: Path) -> dict[str, bytes]:
    """Everything that a reader can ask a store for."""
    found: dict[str, bytes] = {}
    with open_store(path) as store:
        found["names"] = repr((store.class_names, store.identity)).encode()
        found["head"] = store.classifier.digest().encode()
        for name in store.splits:
            split = store[name]
            found[f"{name}/ids"] = repr((split.ids, split.failed)).encode()
            found[f"{name}/labels"] = split.labels.tobytes()
            found[f"{name}/features"] = split.features().tobytes()
            found[f"{name}/logits"] = split.logits().tobytes()
            if split.n_views:
                found[f"{name}/views"] = split.views().tobytes()
    return found


def head_of(path: Path) -> bytes:
    """The head that `fit-head` makes of a store."""
    with open_store(path) as store:
        return fit_head(store, FIT).head.weight.tobytes()


def repair(home: Path, path: Path) -> set[str] | None:
    """Repair a store; the shards that were computed again, None where all of it had to be."""
    try:
        lost = reopen_store(path).lost
    except CorruptStoreError:  # neither copy of the catalogue is left
        with suppress(FileNotFoundError):
            path.unlink()
        run(home, path).store.close()
        return None
    result = run(home, path, resume=True)
    result.store.close()
    if result.computed != sum(shard.n_rows for shard in lost):
        _fail("other shards were computed than those that were lost")
    return {shard.name for shard in lost}


def _fail(what: str) -> None:
    print(f"FAILED: {what}")
    sys.exit(1)


@click.command()
@click.option("--trials", default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work, as /dev/shm.")
def main(trials: int, seed: int, folder: Path | None) -> None:
    """Damage, verify, read, repair, compare, and print the counts."""
    torch.set_num_threads(1)
    print(describe())
    draw = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    computed: Counter[str] = Counter()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        home = Path(temporary)
        make_inputs(home)
        whole = {suffix: home / f"whole{suffix}" for suffix in SUFFIXES}
        for path in whole.values():
            run(home, path).store.close()
        bytes_of = {suffix: tree(path) for suffix, path in whole.items()}
        content = {suffix: read_all(path) for suffix, path in whole.items()}
        head = head_of(whole[".h5"])
        for _ in range(trials):
            suffix = draw.choice(SUFFIXES)
            path = home / f"x{suffix}"
            (shutil.copytree if whole[suffix].is_dir() else shutil.copy)(whole[suffix], path)
            kind, shards = damage(path, draw)
            what = f"{suffix} {kind}"
            if tree(path) == bytes_of[suffix]:
                _fail(f"{what} changed nothing")
            counts[what] += 1
            with suppress(NolbError):
                if not verify_store(path):
                    _fail(f"{what} was not found")
            with suppress(NolbError):
                if read_all(path) != content[suffix]:
                    _fail(f"{what} was served to a reader")
            with suppress(NolbError):
                if head_of(path) != head:
                    _fail(f"{what} was served to fit-head")
                counts["fit-head had not to read the damaged bytes"] += 1
            again = repair(home, path)
            if again is None:
                computed[f"{suffix}: no catalogue left, all computed again"] += 1
            elif shards is not None and again != shards:
                _fail(f"{what} of {shards} computed {again} again")
            else:
                computed[f"{suffix}: {len(again)} of 16 shards"] += 1
            if tree(path) != bytes_of[suffix]:
                _fail(f"{what} was repaired to other bytes")
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, table in (("damaged, all found, none served", counts), ("repaired", computed)):
        print(name)
        for key in sorted(table):
            print(f"  {table[key]:5d}  {key}")
    print(f"trials                     {trials}, all repaired to the original bytes")
    print(f"seconds                    {time.monotonic() - begun:.0f}")


if __name__ == "__main__":
    main()
