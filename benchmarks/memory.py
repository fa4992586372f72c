"""`fit-head --memory` on a store ten times its budget: peak memory, and the metrics that it costs.

    python -m benchmarks.memory [--budget 832MiB] [--times 10] [--seeds 2] [--folder DIR]

Makes a long-tailed store of random features (class means plus noise, D = 2048, rows in the order
of the classes, as image folders give them) whose training features take `times` the budget, then
fits heads with and without `--memory`, every one in a process of its own, and prints the largest
resident memory that the system has counted for it, and accuracy and harmonic mean on test rows.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import describe
from cache import Classifier, Identity, SplitSpec, StoreSpec, create_store, open_store
from cache.identity import samples_digest
from pipeline.config import FitConfig, build_config, parse_size
from pipeline.datasets import exponential_counts

WIDTH, N_CLASSES, N_TEST, SHARD_ROWS = 2048, 100, 5000, 512
NOISE = 12.0
"""Deviation of the noise, where class means have deviation 1: enough that classes are confused."""


def make_store(path: Path, n_bytes: int) -> None:
    """A store whose training features take `n_bytes` as float32."""
    rows = n_bytes // (4 * WIDTH)
    shape = exponential_counts(1000, 100, N_CLASSES)
    counts = [max(1, round(count * rows / sum(shape))) for count in shape]
    labels = {
        "train": np.repeat(np.arange(N_CLASSES), counts),
        "test": np.arange(N_TEST) % N_CLASSES,
    }
    generator = np.random.default_rng(0)
    means = generator.standard_normal((N_CLASSES, WIDTH), np.float32)
    classifier = Classifier(means)
    ids = {name: [f"{name}/{i}" for i in range(len(of))] for name, of in labels.items()}
    identity = Identity(
        model={}, checkpoint="", backbone="", classifier=classifier.digest(),
        preprocessing={}, compute={}, dtype="float32", device="cpu", views={},
        samples={name: samples_digest(ids[name], of) for name, of in labels.items()},
    )  # fmt: skip
    splits = tuple(SplitSpec(name, ids[name], of) for name, of in labels.items())
    names = tuple(f"class {c}" for c in range(N_CLASSES))
    spec = StoreSpec(identity, names, classifier, splits, store_logits=False, shard_rows=SHARD_ROWS)
    with create_store(path, spec) as writer:
        for shard in writer.missing():
            of = labels[shard.split][shard.rows]
            noise = generator.standard_normal((len(of), WIDTH), np.float32)
            writer.write_shard(shard, features=(means[of] + NOISE * noise) / NOISE)
        writer.seal().close()


def peak_bytes() -> int:
    """Largest resident memory of this process, as the system has counted it.

    Not `ru_maxrss`: a process that another one started begins with that one's size there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fit(path: Path, settings: dict[str, object]) -> None:
    """Fit one head in this process and print what it took, as JSON."""
    from pipeline.stages.evaluate import evaluate
    from pipeline.stages.fit_head import fit_head

    with open_store(path) as store:
        result = fit_head(store, build_config(FitConfig, settings))
        peak = peak_bytes()
        scores = evaluate(store, result.head)
    print(json.dumps([peak, result.seconds, scores.accuracy, scores.harmonic_mean]))


@click.command()
@click.option("--budget", default="832MiB", show_default=True)
@click.option("--times", default=10.0, show_default=True)
@click.option("--seeds", default=2, show_default=True)
@click.option("--epochs", default=2, show_default=True)
@click.option("--sampler", "samplers", multiple=True, default=("instance",), show_default=True)
@click.option("--suffix", default=".zarr", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to make the store.")
@click.option("--one", hidden=True, help="Fit one head: settings as JSON.")
def main(
    budget: str, times: float, seeds: int, epochs: int, samplers: tuple[str, ...], suffix: str,
    folder: Path | None, one: str | None,
) -> None:  # fmt: skip
    """Print peak memory and metrics, streamed and in memory."""
    if one is not None and folder is not None:
        fit(folder, json.loads(one))
        return
    print(describe())
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / f"x{suffix}"
        begun = time.perf_counter()
        make_store(path, int(times * parse_size(budget)))
        with open_store(path) as store:
            rows = store["train"].n_samples
        print(f"store                 {rows:,} x {WIDTH} float32, {rows * WIDTH * 4 / 2**20:,.0f} "
              f"MiB, made in {time.perf_counter() - begun:.0f} s")  # fmt: skip
        print(f"budget                {parse_size(budget) / 2**20:,.0f} MiB")
        print("sampler          memory      seed   peak MiB   seconds   accuracy   harmonic mean")
        for sampler in samplers:
            for memory in (budget, None):
                for seed in range(seeds):
                    settings = {"epochs": epochs, "seed": seed, "sampler": sampler, "lr": 0.5,
                                "batch_size": 256, "memory": memory}  # fmt: skip
                    given = {key: value for key, value in settings.items() if value is not None}
                    done = subprocess.run(  # noqa: S603 - this very script
                        [sys.executable, "-m", "benchmarks.memory", "--folder", str(path),
                         "--one", json.dumps(given)],
                        capture_output=True, text=True, check=False, env=os.environ,
                    )  # fmt: skip
                    if done.returncode:
                        sys.exit(done.stdout + done.stderr)
                    peak, seconds, accuracy, harmonic = json.loads(done.stdout)
                    print(f"{sampler:<16} {memory or 'all':<11} {seed:<6} {peak / 2**20:8,.0f}   "
                          f"{seconds:7.1f}   {accuracy:8.2f}   {harmonic:13.2f}", flush=True)  # fmt: skip  # noqa: E501


if __name__ == "__main__":
    main()
